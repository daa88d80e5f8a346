"""What the end of a loop is held against: its first iteration, or the policy that it set out from."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tasks.evaluate import EvaluationConfig, Prediction, SplitResult, summarise
from tasks.report.compare import RESAMPLES, Comparison, read_predictions
from tasks.report.records import IterationRecord

SET_OUT_FROM = ("warm start", "base model")
"""A loop over a policy's own samples names the policy that drew the first ones so among its comparisons. Its first
iteration has been improved already: the gain of the whole loop is the one over this policy."""


@dataclass(frozen=True)
class Beginning:
    """The first of the two models that the headline compares."""

    name: str
    """ "iteration 1", "the warm start"."""
    place: str
    """The word before the name: accuracy "in" an iteration, "for" a policy."""
    test: SplitResult
    answers: list[Prediction]
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def is_iteration(self) -> bool:
        """True for the first iteration, False for a policy before it."""
        return self.place == "in"

    @property
    def title(self) -> str:
        """The name as a heading: "Iteration 1", "Warm start"."""
        return self.name.removeprefix("the ").capitalize()


def first_iteration(records: Sequence[IterationRecord]) -> Beginning:
    """The first iteration as the beginning."""
    first = records[0]
    test = first.splits["test"]
    return Beginning(
        f"iteration {first.number}", "in", test, read_predictions(test.predictions), first.metrics
    )


def set_out_from(comparisons: Sequence[Comparison], confidence: float, seed: int) -> Beginning | None:
    """The policy that the loop set out from, when it stands among the comparisons."""
    for comparison in comparisons:
        if comparison.name not in SET_OUT_FROM:
            continue
        answers = read_predictions(comparison.predictions)
        config = EvaluationConfig(confidence=confidence, resamples=RESAMPLES, seed=seed)
        test = summarise(answers, comparison.predictions, config)
        return Beginning(f"the {comparison.name}", "for", test, answers, comparison.metrics)
    return None
