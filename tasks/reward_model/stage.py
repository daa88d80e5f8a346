"""Stage: train a reward model on preference pairs (TRL's RewardTrainer), normalise it, test it on held-out pairs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tasks.core.digests import folder_digest
from tasks.core.errors import UserError
from tasks.core.examples import write_rows
from tasks.core.models import load_tokenizer
from tasks.core.references import DatasetRef, ModelRef
from tasks.core.stage import Report, Stage
from tasks.reward_model.calibration_plot import draw_calibration
from tasks.reward_model.classifier import full_weights
from tasks.reward_model.config import RewardTrainingConfig
from tasks.reward_model.evaluation import PairEvaluation, evaluate_pairs
from tasks.reward_model.normalisation import Normalisation, fit_normalisation
from tasks.reward_model.pairs import Preference, read_preferences
from tasks.reward_model.scoring import load_scorer
from tasks.reward_model.tokens import tokenise_pairs
from tasks.reward_model.training import train
from tasks.sft.trainer_arguments import be_deterministic

MOST_REFERENCE_PAIRS = 1000
"""Training pairs on which the rewards are normalised when none are held out."""


class RewardTrainingInputs(BaseModel):
    """What a reward model is trained from and on."""

    model: ModelRef
    """Full weights, or an adapter, which is merged into its base first."""
    train: DatasetRef
    test: DatasetRef | None = None
    """Held-out pairs; without them the model is normalised on training pairs and not tested."""


class RewardTrainingResult(BaseModel):
    """The trained reward model."""

    model: ModelRef
    """Adapter and head, or full weights, with `reward.json` beside them: see `load_reward_model`."""
    steps: int
    pairs: int
    too_long: int
    """Pairs left out because an answer does not fit (`too_long: drop`)."""
    loss: float
    """Mean training loss over all steps."""
    normalisation: Normalisation
    held_out: PairEvaluation | None = None
    rewards: DatasetRef | None = None
    """Of every held-out pair its id and the raw rewards of both answers."""
    calibration_plot: str = ""
    """The PNG's path; empty when nothing is held out."""
    step_s: float
    """Median seconds of an optimizer step, in the process that finished the training."""
    peak_memory_gb: float
    """The most memory that process held until training ended."""

    def cautions(self, name: str) -> list[str]:
        """What a reader of the results should know of it; `name` is what it is called."""
        if not self.too_long:
            return []
        return [f"{self.too_long:,} pairs were too long for the {name} and were left out."]

    def metrics(self) -> dict[str, float]:
        """The figures by their names in MLflow."""
        figures = {
            "train/steps": float(self.steps),
            "train/loss": self.loss,
            "train/step_s": self.step_s,
            "train/peak_memory_gb": self.peak_memory_gb,
        }
        return figures | (self.held_out.metrics() if self.held_out else {})


def run(
    config: RewardTrainingConfig, inputs: RewardTrainingInputs, out: Path, report: Report
) -> RewardTrainingResult:
    """Train and save the reward model beneath `out`/model, with `out`/base beside it when it begins at an adapter.

    Goes on from the newest whole checkpoint beside `out`. Raises UserError for pairs that do not fit, and for a model
    that ends up giving NaN or one and the same reward.
    """
    import torch
    from accelerate import PartialState  # type: ignore[import-untyped]

    pairs = read_preferences(inputs.train)
    if not pairs:
        raise UserError("there is no pair to train on", field="preferences.train")
    held_out = read_preferences(inputs.test) if inputs.test else []
    tokenizer = load_tokenizer(inputs.model)
    rows, too_long = tokenise_pairs(config, tokenizer, pairs)

    be_deterministic()
    processes = PartialState(cpu=not torch.cuda.is_available())
    # An adapter needs its base for good; full weights are trained away from theirs.
    place = out / "base" if config.method != "full" else out.parent / "merged"
    base = full_weights(inputs.model, place, config.precision)
    folder = out / "model"
    lies_on = base if config.method != "full" else None
    training = train(config, base, tokenizer, rows, folder, report, base=lies_on)

    trained = ModelRef(
        uri=str(folder),
        digest=folder_digest(folder),
        base=lies_on,
        facts=inputs.model.facts,
    )
    # Every process does it for itself: none has to wait, longer than its communication allows, for another.
    chosen, rejected = _raw_rewards(config, trained, held_out or pairs[:MOST_REFERENCE_PAIRS], report)
    words = "held-out pairs" if held_out else "training pairs"
    normalisation = fit_normalisation([*chosen, *rejected], words)
    processes.wait_for_everyone()  # before the folder that they read is written to
    if processes.is_main_process:
        normalisation.save(folder)
    result = RewardTrainingResult(
        model=trained.model_copy(update={"digest": folder_digest(folder)}),
        steps=training.steps,
        pairs=len(rows),
        too_long=too_long,
        loss=training.loss,
        normalisation=normalisation,
        step_s=training.step_s,
        peak_memory_gb=training.peak_memory_gb,
    )
    if not held_out or not processes.is_main_process:
        return result
    return result.model_copy(update=_test(config, held_out, chosen, rejected, out))


def _raw_rewards(
    config: RewardTrainingConfig, model: ModelRef, pairs: Sequence[Preference], report: Report
) -> tuple[list[float], list[float]]:
    """The raw rewards of the pairs' better and worse answers, as the saved model gives them when it is loaded."""

    def progress(done: int, total: int) -> None:
        report({"progress": [done, total], "text": "scored"})

    scorer = load_scorer(model, float, precision=config.precision, batch_size=2 * config.batch_size)
    prompts = [pair.conversation for pair in pairs]
    answers = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    rewards = scorer.raw(prompts * 2, answers, progress)
    return rewards[: len(pairs)], rewards[len(pairs) :]


def _test(
    config: RewardTrainingConfig,
    pairs: Sequence[Preference],
    chosen: Sequence[float],
    rejected: Sequence[float],
    out: Path,
) -> dict[str, Any]:
    """The fields of the result that held-out pairs fill; writes their rewards and the plot beneath `out`."""
    evaluation = evaluate_pairs(
        chosen, rejected, confidence=config.confidence, resamples=config.resamples, seed=config.seed
    )
    records = [
        {"id": pair.id, "chosen": better, "rejected": worse}
        for pair, better, worse in zip(pairs, chosen, rejected, strict=True)
    ]
    plot = out / "calibration.png"
    plot.write_bytes(draw_calibration(evaluation))
    return {
        "held_out": evaluation,
        "rewards": write_rows(out / "held_out.jsonl", records),
        "calibration_plot": str(plot),
    }


STAGE = Stage(
    "reward_model",
    run,
    RewardTrainingConfig,
    RewardTrainingInputs,
    RewardTrainingResult,
    own_process=True,
    distributed=True,
)
