"""The result of a training on rewards in words: what the reward says of it, and what a judge does."""

from collections.abc import Sequence

from tasks.report.headline import Headline
from tasks.report.policies import PolicyFigures
from tasks.report.wording import percent, signed, span

NOTE = (
    "The intervals cover the choice of held-out prompts; those of win rates are Wilson’s, at 95\u00a0%. Every figure "
    "comes from one training, and from one sampled answer to each prompt: how much it would vary with another seed is "
    "not in them."
)


def policy_headline(
    figures: PolicyFigures, confidence: float, accuracy: str, cautions: Sequence[str]
) -> Headline:
    """The headline of the last policy; `accuracy` is the sentence on the test accuracy, which comes last."""
    compared = figures.record.compared
    prompts = f"{compared.prompts:,} held-out prompt{'' if compared.prompts == 1 else 's'}"
    result = (
        f"By the reward that it was trained on, the policy’s answers to {prompts} are worth {figures.policy}, those of "
        f"the policy it started from {figures.start}."
    )
    return Headline(
        result=result,
        reading=f"{_gain(figures, confidence)} {_judged(figures)} {accuracy}",
        cautions=list(cautions),
        note=NOTE,
    )


def _gain(figures: PolicyFigures, confidence: float) -> str:
    gain = figures.gain
    words = (
        f"The difference is {signed(gain.mean)} (paired {100 * confidence:g}\u00a0% interval {signed(gain.low)} to "
        f"{signed(gain.high)})"
    )
    if gain.low <= 0 <= gain.high:
        return f"{words}: these prompts do not tell the two apart by the reward."
    return f"{words}: {'more' if gain.mean > 0 else 'less'} by more than the choice of prompts explains."


def _judged(figures: PolicyFigures) -> str:
    judged = figures.record.compared.judged
    if judged is None:
        return "No judge was asked."
    lost = judged.prompts - judged.wins - judged.ties
    words = (
        f"A judge that the training never met prefers the policy in {percent(judged.rate)} of the prompts "
        f"({span(judged.low, judged.high)}; {judged.wins:,} won, {judged.ties:,} even, {lost:,} lost)"
    )
    if judged.low <= 0.5 <= judged.high:
        return f"{words}, which is not told apart from chance."
    return f"{words}, which chance does not explain."
