"""From a candidate to a registered version without Prefect: compared with the base model where there is no champion,
and a champion's adapter merged where the next training starts from it."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
import pytest

from flows.llm2llm import LLM2LLMConfig
from tasks.base_model import ModelConfig
from tasks.core.compression.config import CompressorConfig
from tasks.core.digests import folder_digest
from tasks.core.flow_result import FlowResult
from tasks.core.generators.load import EngineConfig
from tasks.core.references import ModelRef
from tasks.core.tracking import Tracking, TrackingConfig
from tasks.data.config import DataConfig
from tasks.evaluate import EvaluationConfig
from tasks.promotion.decision import Decision, PromotionConfig
from tasks.promotion.promoting import Promotion
from tasks.promotion.registry import ModelRegistry
from tasks.retrain import new_rows
from tasks.retrain.new_rows import NewRows, NewRowsConfig
from tests.tiny_encoder import build_tiny_encoder

ROWS = [("play jazz", "music"), ("rain today?", "weather")]
TEST = [("louder", "music"), ("sun?", "weather"), ("a song", "music")]


@dataclass
class FolderRun:
    """Runs stages in folders of their own, here and now."""

    folder: Path
    tracking: Tracking
    run_id: str
    flow_run_id: str = ""
    labels: list[str] = field(default_factory=list)

    def stage(self, stage: Any, config: Any, inputs: Any, *, label: str = "", training: bool = False) -> Any:
        self.labels.append(label)
        out = self.folder / f"{len(self.labels)} {stage.name}"
        out.mkdir(parents=True)
        return stage.run(config, inputs, out, lambda event: None)


@pytest.fixture(scope="module")
def tracking(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOPWRIGHT_HOME", str(folder))
        yield Tracking(TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db"))


@pytest.fixture(scope="module")
def adapter(tiny_ref, tmp_path_factory):
    """An adapter on the tiny model that changes what it says."""
    import torch
    from peft import LoraConfig, get_peft_model

    from tasks.core.models import load_model, tidy_model

    folder = tmp_path_factory.mktemp("adapter") / "adapter"
    adapted = get_peft_model(load_model(tiny_ref), LoraConfig(r=4, target_modules="all-linear"))
    for name, weights in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(weights, 0.01)
    adapted.save_pretrained(folder)
    tidy_model(folder, tiny_ref)
    return ModelRef(uri=str(folder), digest=folder_digest(folder), base=tiny_ref)


def write(path: Path, rows) -> str:
    path.write_text("".join(json.dumps({"input": text, "target": label}) + "\n" for text, label in rows))
    return str(path)


def registered(tmp_path, tiny_ref, tracking, model, name, evaluation=EvaluationConfig(), **promotion):  # noqa: B008
    """A candidate registered in a new registry: the promotion, its run, and the version."""
    data = DataConfig(train=write(tmp_path / "train.jsonl", ROWS), test=write(tmp_path / "test.jsonl", TEST))
    method = LLM2LLMConfig(data=data, student=ModelConfig(model=tiny_ref.uri), evaluation=evaluation)
    run = FolderRun(tmp_path / "stages", tracking, tracking.start("retrain"))
    registry = ModelRegistry(tracking, name)
    registry.create()
    promotion = Promotion(run, registry, PromotionConfig(**promotion), method, "llm2llm")
    (tmp_path / "incoming").mkdir()
    config = NewRowsConfig(location=str(tmp_path / "incoming"), data=data)
    found: NewRows = run.stage(new_rows.STAGE, config, new_rows.inputs(config, []))
    trained = FlowResult(
        flow="llm2llm",
        status="completed",
        flow_run_id="",
        mlflow_run_id=run.run_id,
        iterations=[],
        metrics={"eval/accuracy": 0.5},
        model=model,
    )
    return promotion, run, promotion.register(trained, found)


def test_candidates_are_asked_through_the_compressor_of_the_evaluation(tmp_path, tiny_ref, tracking):
    folder = build_tiny_encoder(tmp_path / "encoder")
    engine = EngineConfig(compressor=CompressorConfig(model=str(folder)))
    evaluation = EvaluationConfig(engine=engine)
    _, run, _ = registered(tmp_path, tiny_ref, tracking, tiny_ref, "compressed", evaluation)
    assert "evaluate candidate" in run.labels  # which loads it by address and digest
    files = mlflow.artifacts.download_artifacts(
        run_id=run.run_id, tracking_uri=tracking.uri, dst_path=str(tmp_path)
    )
    (served,) = Path(files).rglob("served.json")
    assert json.loads(served.read_text())["compressor"]["digest"] == folder_digest(folder)


def test_the_first_candidate_is_compared_with_the_base_model_and_equal_is_not_better(
    tmp_path, tiny_ref, tracking
):
    _, run, version = registered(tmp_path, tiny_ref, tracking, tiny_ref, "equal")
    decision = Decision.model_validate_json(version.tags["decision"])
    assert {"evaluate candidate", "evaluate base model"} <= set(run.labels)
    assert (decision.promoted, decision.opponent) == (False, "base model")
    assert decision.accuracy == decision.opponent_accuracy
    assert (version.promoted, version.parent) == (False, "")
    assert (version.tags["data.rows"], version.tags["data.new_rows"]) == ("2", "2")


def test_a_champion_with_an_adapter_is_one_model_to_start_from(tmp_path, tiny_ref, tracking, adapter):
    import torch

    from tasks.core.models import load_model

    promotion, run, version = registered(tmp_path, tiny_ref, tracking, adapter, "adapted", first="promote")
    assert "evaluate base model" not in run.labels
    assert promotion.registry.settle(version)
    assert (version.tags["base.digest"], version.tags["model.digest"]) == (tiny_ref.digest, adapter.digest)
    folder = promotion.start(version)
    merged = load_model(ModelRef(uri=folder, digest=folder_digest(Path(folder))))
    tokens = torch.tensor([[5, 6, 7, 8]])
    assert torch.allclose(merged(tokens).logits, load_model(adapter)(tokens).logits, atol=1e-6)
    assert not torch.allclose(merged(tokens).logits, load_model(tiny_ref)(tokens).logits, atol=1e-3)
    assert promotion.start(None) == ""


def test_the_second_candidate_is_compared_with_the_champion(tmp_path, tiny_ref, tracking, adapter):
    promotion, _, first = registered(tmp_path, tiny_ref, tracking, tiny_ref, "two", first="promote")
    promotion.registry.settle(first)
    (tmp_path / "again").mkdir()
    again, run, _ = registered(tmp_path / "again", tiny_ref, tracking, adapter, "two")
    versions = again.registry.versions()
    assert len(versions) == 1  # the same rows: this work was registered before
    assert "evaluate champion" in run.labels
