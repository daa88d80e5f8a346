"""One training by one process and by two, plainly and with ZeRO: the same steps, the same weights within rounding."""

from pathlib import Path
from typing import Any

import pytest

from tasks.core.examples import make_example, write_rows
from tasks.core.launching.launch import LaunchConfig
from tasks.core.references import DatasetRef, ModelRef
from tasks.core.stage import compute
from tasks.core.store import Store, fetch
from tasks.problems.base import ProblemConfig
from tasks.sft import stage as sft
from tasks.sft.config import AdapterConfig, TrainingConfig
from tasks.sft.stage import TrainingInputs, TrainingResult

LAYOUTS = ("", "zero2", "zero3")
ROWS = 9
"""Batches of 4: the last one of an epoch has a single row, so that one of two processes has none."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> DatasetRef:
    examples = [
        make_example(f"Say {'a ' * number}word.", f"word {'b ' * (number % 4)}") for number in range(ROWS)
    ]
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", examples)


def train(
    folder: Path, model: ModelRef, rows: DatasetRef, processes: int, **settings: Any
) -> tuple[list[float], dict[str, Any]]:
    """The losses of all steps, and the weights."""
    from safetensors.torch import load_file

    config = TrainingConfig.model_validate(
        {"batch_size": 4, "epochs": 2, "learning_rate": 1e-2, "adapter": AdapterConfig(rank=4)} | settings
    )
    inputs = TrainingInputs(model=model, train=rows, problem=ProblemConfig(name="exact_match"))
    events: list[dict[str, Any]] = []
    launch = LaunchConfig(processes=processes)
    manifest = compute(sft.STAGE, config, inputs, Store(str(folder)), launch, events.append)
    losses = [event["train/loss"] for event in events if "train/loss" in event]
    files = fetch(TrainingResult.model_validate(manifest.result).model).glob("*.safetensors")
    return losses, {name: tensor for file in files for name, tensor in load_file(file).items()}


def same(ours: dict[str, Any], theirs: dict[str, Any], tolerance: float) -> None:
    import torch

    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], atol=tolerance, rtol=1e-3, msg=name)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, tiny_ref: ModelRef, rows: DatasetRef) -> Any:
    return train(tmp_path_factory.mktemp("alone"), tiny_ref, rows, 1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_processes_train_what_one_does(
    tmp_path: Path, tiny_ref: ModelRef, rows: DatasetRef, alone: Any, layout: str
):
    losses, weights = train(tmp_path, tiny_ref, rows, 2, deepspeed=layout)
    assert len(losses) == len(alone[0]) == 6
    assert losses == pytest.approx(alone[0], abs=2e-3)
    same(weights, alone[1], 2e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_weights_as_well(tmp_path: Path, tiny_ref: ModelRef, rows: DatasetRef, layout: str):
    losses, weights = train(tmp_path / "1", tiny_ref, rows, 1, method="full", learning_rate=1e-3)
    ours, others = train(
        tmp_path / "2", tiny_ref, rows, 2, method="full", learning_rate=1e-3, deepspeed=layout
    )
    assert ours == pytest.approx(losses, abs=2e-3)
    same(others, weights, 2e-4)
