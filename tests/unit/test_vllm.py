"""The vLLM generator, as far as it goes without vLLM and a GPU."""

import json
import sys
from pathlib import Path

import pytest

from tasks.core.errors import UserError
from tasks.core.generators.vllm import VLLMGenerator, _lora_rank
from tasks.core.references import ModelRef


def test_without_vllm_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"engine: vLLM is not installed\n  pip install 'loopwright\[vllm\]'"):
        VLLMGenerator(ModelRef(uri="model", digest="0"))


@pytest.mark.parametrize(("rank", "reserved"), [(4, 8), (8, 8), (16, 16), (24, 32), (512, 512)])
def test_room_for_an_adapter_is_the_least_rank_vllm_reserves(
    tmp_path: Path, rank: int, reserved: int
) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": rank}))
    assert _lora_rank(tmp_path) == reserved


def test_an_adapter_too_large_for_vllm_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 1024}))
    with pytest.raises(UserError, match="up to rank 512, this one has 1024"):
        _lora_rank(tmp_path)
