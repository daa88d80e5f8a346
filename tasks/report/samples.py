"""The samples of a policy that it was trained on: what each Improve step kept, and some of them word for word."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.core.examples import Example, read_examples
from tasks.improve.figures import Selection
from tasks.report.choice import choose
from tasks.report.records import IterationRecord

REJECTED = {
    "low": "reward not high enough",
    "cut": "cut at the token limit",
    "long": "longer than training.max_length",
    "many": "over the limit per prompt",
}
"""Why a sample was not kept, in words."""

_LEVELS = {
    "threshold": "reward above {:g}",
    "percentile": "percentile {:g} of each prompt",
    "top_n": "best {:g} of each prompt",
}


@dataclass(frozen=True)
class Step:
    """One Improve step as the page shows it."""

    iteration: int
    number: int
    """From 1, within the iteration."""
    level: str
    """In words."""
    selection: Selection

    @property
    def outcome(self) -> str:
        """What became of the step."""
        if not self.selection.after.rows:
            return "nothing kept"
        return "taken" if self.selection.taken else "gone back on"

    @property
    def per_prompt(self) -> float | None:
        """Samples kept per prompt, over all prompts that were asked; None without a prompt."""
        prompts = self.selection.asked
        return self.selection.after.samples / prompts if prompts else None

    @property
    def most_per_prompt(self) -> int:
        """Most samples kept of one prompt."""
        return max(self.selection.after.per_prompt, default=0)


def is_sampled(records: Sequence[IterationRecord]) -> bool:
    """Whether a loop trained on its policy's own samples."""
    return any(record.selections for record in records)


def improve_steps(records: Sequence[IterationRecord], settings: Mapping[str, Any]) -> list[Step]:
    """All Improve steps, in their order; what a level means stands among the flow's settings (`improve.by`)."""
    words = _LEVELS.get(str(settings.get("improve.by")), "level {:g}")
    return [
        Step(record.number, number, words.format(selection.level), selection)
        for record in records
        for number, selection in enumerate(record.selections, start=1)
    ]


def rejected_reasons(steps: Sequence[Step]) -> list[str]:
    """The reasons that occurred: the known ones in their order, then others."""
    occurred = {reason for step in steps for reason, count in step.selection.rejected.items() if count}
    known = [reason for reason in REJECTED if reason in occurred]
    return [*known, *sorted(occurred.difference(known))]


@dataclass(frozen=True)
class KeptSamples:
    """The kept samples of one iteration: how many, and some of them in full."""

    iteration: int
    count: int
    shown: list[Example]


def kept_samples(records: Sequence[IterationRecord], most: int, seed: int) -> list[KeptSamples]:
    """The samples that every iteration kept; `most` are shown in all, spread over the iterations."""
    kept = [(record.number, record.kept) for record in records if record.kept and record.kept.rows]
    share = -(-most // len(kept)) if kept else 0
    found = []
    for number, ref in kept:
        samples = [row for row in read_examples(ref) if row.completion is not None]
        found.append(KeptSamples(number, len(samples), choose(samples, share, f"{seed} samples {number}")))
    return [samples for samples in found if samples.count]


@dataclass(frozen=True)
class HeldOutReward:
    """The mean reward of answers to rows that nothing was trained on, by iteration."""

    rows: str
    """Which rows: "test" or "validation"."""
    values: list[float]

    @property
    def metric(self) -> str:
        """Its name in MLflow."""
        return f"reward/{self.rows}"


def held_out_reward(records: Sequence[IterationRecord]) -> HeldOutReward | None:
    """The reward on the test rows, on which the task score is measured too, or else on the validation rows, which
    also decided where to stop; None where an iteration has neither."""
    for rows in ("test", "validation"):
        values = [record.metrics.get(f"reward/{rows}") for record in records]
        known = [value for value in values if value is not None]
        if len(known) == len(records):
            return HeldOutReward(rows, known)
    return None
