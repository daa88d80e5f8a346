"""What speaks against a policy trained on rewards: a training that went wrong, a reward that is pleased and nothing
else, answers that became longer, shorter or alike, a reward model that knows nothing."""

from tasks.report.policies import PolicyFigures
from tasks.report.policy_curves import tested_rewards
from tasks.report.reward_cautions import LEAST_DIVERSITY, LENGTH_DRIFT
from tasks.report.wording import decimals, percent, span

MOST_CUT = 0.5
"""When more of the policy's answers than this reach the token limit, what is compared are beginnings."""


def policy_cautions(figures: PolicyFigures, *, learned: bool) -> list[str]:
    """The cautions, the gravest first; `learned`: the reward is a model's, and not a verifier's."""
    return [
        *training_warnings(figures),
        *_hacking(figures, learned),
        *_knows_nothing(figures),
        *_drift(figures),
        *_left_out(figures),
    ]


def training_warnings(figures: PolicyFigures) -> list[str]:
    """Why the training ended early, and what was wrong at any of its steps, in its own words."""
    trained = figures.record.trained
    found = []
    if trained.stopped:
        steps = f"{trained.steps:,} step{'' if trained.steps == 1 else 's'}"
        found.append(f"The training ended early, after {steps}: {_sentence(trained.stopped)}")
    others = [warning for warning in trained.warnings if warning != trained.stopped]
    return found + [f"During the training {_sentence(warning)}" for warning in others]


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _hacking(figures: PolicyFigures, learned: bool) -> list[str]:
    """A reward that gained by more than chance, while a judge that the training never met does not prefer the policy,
    is a sign of over-optimisation (Gao et al. 2023)."""
    judged, gain = figures.record.compared.judged, figures.gain
    if gain.high < 0:
        return [
            f"By the very reward it was trained on the policy is worse than its start, by {_amount(-gain.mean)}."
        ]
    if gain.low <= 0:
        return []
    risen = f"The reward on held-out prompts rose by {_amount(gain.mean)}"
    if judged is None:
        if not learned:
            return []
        return [
            f"{risen}, and no judge was asked: a learned reward can be pleased without any answer getting better. Set "
            "judge to true, or read the answers below."
        ]
    if judged.high < 0.5:
        return [
            f"{risen}, while the judge, which the training never met, prefers the start: the policy learned to please "
            "the reward, not to answer better. This is what reward hacking looks like."
        ]
    if judged.low <= 0.5:
        return [
            f"{risen}, while the judge, which the training never met, cannot tell the two apart: the policy may be "
            "learning to please the reward (reward hacking), or these prompts are too few to show what it gained."
        ]
    return []


def _amount(value: float) -> str:
    return decimals(value)


def _knows_nothing(figures: PolicyFigures) -> list[str]:
    return [
        f"The {name} prefers the better answer in {percent(tested.accuracy)} of {tested.pairs:,} held-out pairs "
        f"({span(tested.low, tested.high)}), which chance could do as well: what it says of the policy may be noise."
        for name, tested in tested_rewards(figures).items()
        if tested.low <= 0.5
    ]


def _drift(figures: PolicyFigures) -> list[str]:
    start, policy = figures.record.compared.start, figures.record.compared.policy
    found = []
    short, long = sorted((start.words, policy.words))
    if long > LENGTH_DRIFT * short:
        direction = "longer" if policy.words > start.words else "shorter"
        found.append(
            f"The policy’s answers are {direction} than its start’s: {policy.words:.1f} words on average, not "
            f"{start.words:.1f}. A reward may pay for length rather than for what is said: read some of them."
        )
    if policy.distinct_2 < LEAST_DIVERSITY * start.distinct_2:
        found.append(
            "The policy’s answers became alike: distinct-2, the share of different word pairs, fell from "
            f"{decimals(start.distinct_2)} to {decimals(policy.distinct_2)}."
        )
    if policy.cut > MOST_CUT:
        found.append(
            f"{percent(policy.cut)} of the policy’s answers were cut at the token limit: what is compared are "
            "beginnings. Raise ppo.max_new_tokens, or ppo.missing_eos_penalty."
        )
    return found


def _left_out(figures: PolicyFigures) -> list[str]:
    compared, trained = figures.record.compared, figures.record.trained
    found = []
    if compared.unanswered:
        asked = compared.prompts + compared.unanswered
        found.append(
            f"{compared.unanswered:,} of {asked:,} held-out prompts stand in no figure here: they do not fit into "
            "the context of one of the two policies."
        )
    if trained.too_long:
        asked = trained.prompts + trained.too_long
        found.append(f"{trained.too_long:,} of {asked:,} training prompts were too long and left out.")
    return found
