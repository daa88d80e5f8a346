"""A training shared by two processes; every other stage keeps to one, whatever the launch settings say."""

from pathlib import Path

import pytest

from tasks import evaluate
from tasks.core.examples import make_example, write_rows
from tasks.core.launching.launch import LaunchConfig
from tasks.core.references import DatasetRef, ModelRef
from tasks.core.stage import compute
from tasks.core.store import Store, fetch
from tasks.evaluate import EvaluationConfig, EvaluationInputs
from tasks.problems.base import ProblemConfig
from tasks.sft import stage as sft
from tasks.sft.config import AdapterConfig, TrainingConfig
from tasks.sft.stage import TrainingInputs, TrainingResult

PROBLEM = ProblemConfig(name="exact_match")
TWO = LaunchConfig(processes=2)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> DatasetRef:
    examples = [make_example(f"Say the number {number}.", f"number {number}") for number in range(8)]
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", examples)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_ref: ModelRef, rows: DatasetRef) -> TrainingResult:
    config = TrainingConfig(
        batch_size=2, max_steps=4, learning_rate=1e-2, adapter=AdapterConfig(rank=4), checkpoint_steps=2
    )
    inputs = TrainingInputs(model=tiny_ref, train=rows, problem=PROBLEM)
    store = Store(str(tmp_path_factory.mktemp("store")))
    events: list[dict] = []
    result = TrainingResult.model_validate(
        compute(sft.STAGE, config, inputs, store, TWO, events.append).result
    )
    steps = [event["step"] for event in events if "train/loss" in event]
    assert steps == [1, 2, 3, 4]  # one process reports, not both
    return result


@pytest.mark.slow
def test_two_processes_train_one_adapter_that_can_be_loaded(
    trained: TrainingResult, tiny_ref: ModelRef
) -> None:
    from safetensors.torch import load_file

    folder = fetch(trained.model)
    assert trained.model.base == tiny_ref
    assert {path.name for path in folder.glob("*")} >= {"adapter_model.safetensors", "tokenizer.json"}
    assert not list(folder.glob("*.bin"))
    raised = {
        name for name, tensor in load_file(folder / "adapter_model.safetensors").items() if tensor.any()
    }
    assert any("lora_B" in name for name in raised)  # these start at zero


@pytest.mark.slow
def test_an_evaluation_runs_in_one_process(trained: TrainingResult, rows: DatasetRef, tmp_path: Path) -> None:
    inputs = EvaluationInputs(model=trained.model, splits={"test": rows}, problem=PROBLEM)
    config = EvaluationConfig(max_new_tokens=4, resamples=100)
    manifest = compute(evaluate.STAGE, config, inputs, Store(str(tmp_path)), TWO, lambda event: None)
    assert manifest.result["splits"]["test"]["rows"] == 8
