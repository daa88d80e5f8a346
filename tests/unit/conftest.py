"""Models of a kind that several tests of generation and of Grow need, a fresh one for each file."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tasks.core.references import ModelRef


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    from tests.unit.tiny_generation import (
        tiny_network,  # within, as below: other tests need not wait for torch
    )

    return tiny_network(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def early_end(tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    from tests.unit.tiny_generation import end_early

    return end_early(tiny, monkeypatch)


@pytest.fixture(scope="module")
def short_context(tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    from tests.unit.small_grow import short_context_model

    return short_context_model(tmp_path_factory.mktemp("grow") / "short")


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> ModelRef:
    from tests.unit.small_grow import silent_model

    return silent_model(tmp_path_factory.mktemp("grow") / "silent", tiny_model)
