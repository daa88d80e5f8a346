"""What samples and their rewards say against a loop: a reward that is pleased while the task is not learned, answers
that become alike or ever longer, filters that keep nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.report.compare import Difference
from tasks.report.samples import Step
from tasks.report.wording import decimals, points

LEAST_RISE = 0.01
"""A mean reward that gained less (rewards lie in [0, 1]) has not risen to speak of."""
LENGTH_DRIFT = 1.5
"""Samples whose mean length changed by more than this factor, either way, are worth a look."""
LEAST_DIVERSITY = 2 / 3
"""Share of the first samples' distinct-2 below which the last ones have become alike."""
_MOST_NAMED = 5


@dataclass(frozen=True)
class RewardChange:
    """The reward on held-out rows over a loop, and the test accuracy over the same stretch of it."""

    since: str
    """Where both begin: "iteration 1", "the warm start"."""
    rows: str
    """Which rows are rewarded: "test" or "validation"."""
    first: float
    last: float
    accuracy: Difference


def reward_cautions(steps: Sequence[Step], change: RewardChange | None, confidence: float) -> list[str]:
    """The cautions, the gravest first."""
    hacking = _hacking(change, confidence) if change else []
    return [*hacking, *_drift(steps), *_no_sample(steps), *_nothing_kept(steps)]


def _hacking(change: RewardChange, confidence: float) -> list[str]:
    """A rising reward is suspect when the accuracy fell by more than chance, or when chance explains its change
    and even the upper end of its interval is less than what the reward gained."""
    rise, accuracy = change.last - change.first, change.accuracy
    if rise < LEAST_RISE:
        return []
    risen = (
        f"The mean reward on the {change.rows} rows rose from {decimals(change.first)} ({change.since}) to "
        f"{decimals(change.last)}"
    )
    interval = (
        f"paired {100 * confidence:g}\u00a0% interval {points(accuracy.low)} to {points(accuracy.high)}"
    )
    if accuracy.high < 0:
        return [
            f"{risen}, while test accuracy fell ({points(accuracy.mean)} points, {interval}): the policy learned to "
            "please the reward, not to do the task. This is what reward hacking looks like."
        ]
    if accuracy.low <= 0 <= accuracy.high < rise:
        return [
            f"{risen}, while test accuracy cannot be told from standing still ({points(accuracy.mean)} points, "
            f"{interval}): the policy may be learning to please the reward (reward hacking), or these test rows are "
            "too few to show what it gained."
        ]
    return []


def _drift(steps: Sequence[Step]) -> list[str]:
    """The samples of the last iteration beside those of the first, both before any filter."""
    if not steps or steps[0].iteration == steps[-1].iteration:
        return []
    first, last = steps[0].selection.before, steps[-1].selection.before
    if not first.samples or not last.samples:  # training rows that are mixed in are none of the policy's
        return []
    found, stretch = [], f"between iterations {steps[0].iteration} and {steps[-1].iteration}"
    short, long = sorted((first.words, last.words))
    if long > LENGTH_DRIFT * short:
        direction = "longer" if last.words > first.words else "shorter"
        found.append(
            f"Samples became {direction} {stretch}: from {first.words:.1f} words on average to {last.words:.1f}. "
            "A reward may pay for length rather than for what is said: read some of the kept samples."
        )
    if last.distinct_2 < LEAST_DIVERSITY * first.distinct_2:
        found.append(
            f"Samples became alike {stretch}: distinct-2, the share of different word pairs, fell from "
            f"{decimals(first.distinct_2)} to {decimals(last.distinct_2)}. A policy that repeats itself finds "
            "little that is new to learn from."
        )
    return found


def _no_sample(steps: Sequence[Step]) -> list[str]:
    """Of a policy that says nothing any more, which training rows that are mixed in would hide."""
    silent = list(dict.fromkeys(str(step.iteration) for step in steps if not step.selection.before.samples))
    if not silent:
        return []
    more = f" and {len(silent) - _MOST_NAMED} more" if len(silent) > _MOST_NAMED else ""
    return [
        f"Not one sample came of the policy in iteration{'' if len(silent) == 1 else 's'} "
        f"{', '.join(silent[:_MOST_NAMED])}{more}: it ended every answer at once, or answered none."
    ]


def _nothing_kept(steps: Sequence[Step]) -> list[str]:
    empty = [step for step in steps if not step.selection.after.rows]
    if not empty:
        return []
    named = [f"{step.iteration} ({step.level})" for step in empty[:_MOST_NAMED]]
    more = len(empty) - len(named)
    text = f"The filter kept nothing in iteration{'' if len(empty) == 1 else 's'} {', '.join(named)}"
    text += f" and {more} more" if more else ""
    text += ": such a step is not trained, and the policy before it stands."
    trained = {step.iteration for step in steps if step.selection.after.rows}
    idle = [
        str(number) for number in dict.fromkeys(step.iteration for step in empty) if number not in trained
    ]
    if idle:
        shown = ", ".join(idle[:_MOST_NAMED]) + (" and others" if len(idle) > _MOST_NAMED else "")
        text += f" Iteration{'' if len(idle) == 1 else 's'} {shown} trained on nothing at all."
    return [text]
