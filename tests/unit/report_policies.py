"""A policy trained on rewards, on disk, for the report's tests: every figure can be counted by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.core.config import Config
from tasks.core.examples import make_example, make_sample, write_rows
from tasks.core.references import ModelRef
from tasks.ppo.stage import PolicyTrainingResult
from tasks.report.policies import PolicyFigures, policy_figures
from tasks.report.records import IterationRecord, PolicyRecord
from tasks.reward_model.evaluation import evaluate_pairs
from tasks.reward_model.normalisation import Normalisation
from tasks.reward_model.stage import RewardTrainingResult
from tasks.side_by_side import stage as pairing
from tests.unit.report_loop import answers, held_out, split
from tests.unit.test_report_samples import LAST

START, POLICY = (0.2, 0.4, 0.6, 0.8), (0.4, 0.4, 0.5, 1.0)
"""By the reward the policy wins two of four prompts and loses one."""


def compare(
    folder: Path,
    start: Sequence[float],
    policy: Sequence[float],
    judged: tuple[Sequence[float], Sequence[float]] | None = None,
    words: tuple[str, str] = ("one word after another", "another word, {}"),
) -> pairing.SideBySideResult:
    """Both policies' answers with these rewards, put side by side by the stage that does it."""
    prompts = [make_example(f"prompt {number}", "reply") for number in range(len(start))]

    def said(name: str, template: str, rewards: Sequence[float]) -> Any:
        rows = [
            make_sample(prompt, template.format(number), reward=reward)
            for number, (prompt, reward) in enumerate(zip(prompts, rewards, strict=True))
        ]
        return write_rows(folder / f"{name}.jsonl", rows)

    inputs = pairing.SideBySideInputs(
        prompts=write_rows(folder / "prompts.jsonl", prompts),
        start=said("start", words[0], start),
        policy=said("policy", words[1], policy),
        start_judged=said("start-judged", words[0], judged[0]) if judged else None,
        policy_judged=said("policy-judged", words[1], judged[1]) if judged else None,
    )
    return pairing.run(Config(), inputs, folder, lambda event: None)


def steps(count: int, **figures: Any) -> list[dict[str, float]]:
    """Figures that change by the step."""
    known = {
        "reward/mean": lambda step: 0.1 + step / 100,
        "objective/kl": lambda step: step / 10,
        "policy/entropy_avg": lambda step: 3.0 - step / 50,
        "policy/clipfrac_avg": lambda step: 0.2,
        "policy/approxkl_avg": lambda step: 0.01,
        "val/clipfrac_avg": lambda step: 0.1,
        "val/explained_variance": lambda step: -50.0 if step == 1 else 0.5,
        "val/response_tokens": lambda step: 20.0 + step,
    } | figures
    return [{name: of(step) for name, of in known.items() if of} for step in range(1, count + 1)]


def few(count: int) -> list[dict[str, float]]:
    """Only the figures that every algorithm has: one curve is drawn of them, and drawing takes its time."""
    return [{name: step[name] for name in ("reward/mean", "objective/kl")} for step in steps(count)]


def learned(folder: Path, chosen: Sequence[float], rejected: Sequence[float]) -> RewardTrainingResult:
    """What was learned from preferences, with its figures on pairs of these raw rewards."""
    evaluation = evaluate_pairs(chosen, rejected, confidence=0.95, resamples=200, seed=0)
    return RewardTrainingResult(
        model=ModelRef(uri=str(folder), digest="r"),
        steps=3,
        pairs=30,
        too_long=0,
        loss=0.5,
        normalisation=Normalisation(low=-1, high=1, mean=0, std=1, answers=2, reference="held-out pairs"),
        held_out=evaluation,
        step_s=1.0,
        peak_memory_gb=1.0,
    )


def reinforced(
    folder: Path, *, number: int = 1, right: Sequence[bool] = LAST, **parts: Any
) -> IterationRecord:
    """An iteration that trained by reinforcement; `parts` are those of its record, or fields of the training."""
    place = folder / f"iteration-{number}"
    history = parts.pop("history", few(3))
    compared = parts.pop("compared", None) or compare(place, START, POLICY)
    rewards = {name: parts.pop(name, None) for name in ("reward_model", "judge")}
    training = {
        "model": ModelRef(uri=f"policies/{number}", digest=str(number)),
        "steps": len(history),
        "prompts": 7,
        "too_long": 0,
        "figures": {"objective/kl": 1.25, "reward/mean": 0.75},
        "history": write_rows(place / "steps.jsonl", history),
        "warnings": [],
        "stopped": "",
        "step_s": 1.5,
        "peak_memory_gb": 2.0,
    } | parts
    trained = PolicyTrainingResult(**training)
    rows = [make_example(f"asked {row}", "reply") for row in range(7)]
    return IterationRecord(
        number=number,
        metrics={"train/steps": float(len(history)), "reward/test": 0.5},
        model=trained.model,
        train=write_rows(place / "asked.jsonl", rows),
        splits={"test": split(place / "test-answers.jsonl", answers(held_out(len(right)), right))},
        policy=PolicyRecord(trained=trained, compared=compared, **rewards),
    )


def figures_of(record: IterationRecord) -> PolicyFigures:
    return policy_figures([record], 0.95, 0)[0]
