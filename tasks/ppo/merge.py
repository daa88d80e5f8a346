"""Stage: merge an adapter into its base, so that adapters off is the fine-tuned model and not the one before it."""

from pathlib import Path

from pydantic import BaseModel

from tasks.core.config import Config
from tasks.core.models import Precision
from tasks.core.references import ModelRef
from tasks.core.stage import Report, Stage
from tasks.reward_model.classifier import full_weights


class MergeConfig(Config):
    """How an adapter is merged."""

    precision: Precision = "auto"
    """Number format of the merged weights; auto is bfloat16 on GPUs that have it, else float32."""


class MergeInputs(BaseModel):
    """What is merged."""

    model: ModelRef
    """An adapter; a model of full weights stays as it is."""


class MergeResult(BaseModel):
    """The full model."""

    model: ModelRef


def run(config: MergeConfig, inputs: MergeInputs, out: Path, report: Report) -> MergeResult:
    """Write base and adapter as one model beneath `out`/model."""
    return MergeResult(model=full_weights(inputs.model, out / "model", config.precision))


STAGE = Stage("merge", run, MergeConfig, MergeInputs, MergeResult, own_process=True)
