"""Stage: two policies' answers to the same prompts, rewarded, judged, and put side by side."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, pstdev

from pydantic import BaseModel

from tasks.core.config import Config
from tasks.core.errors import UserError
from tasks.core.examples import Example, read_examples, write_rows
from tasks.core.references import DatasetRef
from tasks.core.stage import Report, Stage
from tasks.grow.diversity import distinct_n, length_statistics
from tasks.side_by_side.win_rate import WinRate, win_rate


class SideBySideInputs(BaseModel):
    """The prompts, and for each at most one sample of either policy, with the reward that the second one learned from
    and, where there is one, with that of a judge it never met."""

    prompts: DatasetRef
    start: DatasetRef
    policy: DatasetRef
    start_judged: DatasetRef | None = None
    policy_judged: DatasetRef | None = None


class Voice(BaseModel):
    """How a policy speaks."""

    reward: float
    """Mean over the prompts."""
    spread: float
    """Standard deviation of the reward over the prompts."""
    words: float
    distinct_1: float
    distinct_2: float
    cut: float
    """Share of the answers that reached the token limit."""


class SideBySideResult(BaseModel):
    """Both policies' figures, and who wins."""

    prompts: int
    unanswered: int
    """Prompts left out because one of the policies could not be asked: they do not fit into its context. An empty
    answer is one."""
    start: Voice
    policy: Voice
    wins: WinRate
    """By the reward that the policy was trained on."""
    judged: WinRate | None
    """By the judge: the figure to believe."""
    rows: DatasetRef
    """Per prompt: input, both answers, their rewards, and what the judge gives them."""

    def metrics(self) -> dict[str, float]:
        """The figures by their names in MLflow."""
        figures = {
            "held_out/reward": self.policy.reward,
            "held_out/reward_start": self.start.reward,
            "held_out/reward_gain": self.policy.reward - self.start.reward,
            "held_out/win_rate": self.wins.rate,
            "held_out/words": self.policy.words,
            "held_out/words_start": self.start.words,
            "held_out/distinct_2": self.policy.distinct_2,
            "held_out/distinct_2_start": self.start.distinct_2,
            "held_out/cut": self.policy.cut,
        }
        if self.start.spread:
            gain = (self.policy.reward - self.start.reward) / self.start.spread
            figures["held_out/reward_gain_in_deviations"] = gain
        if self.judged:
            figures |= {
                "held_out/judged_win_rate": self.judged.rate,
                "held_out/judged_win_rate_low": self.judged.low,
                "held_out/judged_win_rate_high": self.judged.high,
            }
        return figures


def run(config: Config, inputs: SideBySideInputs, out: Path, report: Report) -> SideBySideResult:
    """Pair the answers prompt by prompt and write them to `out`/side_by_side.jsonl.

    Raises UserError when no prompt was answered by both.
    """
    sides = [_by_prompt(inputs.start), _by_prompt(inputs.policy)]
    prompts = read_examples(inputs.prompts)
    both = [prompt for prompt in prompts if all(prompt.id in side for side in sides)]
    if not both:
        raise UserError(
            "no held-out prompt was answered by both policies",
            field="data.test",
            mend="shorten the prompts, or raise the number of new tokens",
        )
    start, policy = ([side[prompt.id] for prompt in both] for side in sides)
    judged, verdicts = None, []
    if inputs.start_judged and inputs.policy_judged:
        verdicts = [_by_prompt(inputs.start_judged), _by_prompt(inputs.policy_judged)]
        judged = win_rate(*([_reward(side[prompt.id]) for prompt in both] for side in verdicts))
    return SideBySideResult(
        prompts=len(both),
        unanswered=len(prompts) - len(both),
        start=_voice(start),
        policy=_voice(policy),
        wins=win_rate([_reward(row) for row in start], [_reward(row) for row in policy]),
        judged=judged,
        rows=write_rows(
            out / "side_by_side.jsonl",
            (
                {
                    "id": prompt.id,
                    "input": prompt.input,
                    "start": one.completion,
                    "policy": two.completion,
                    "start_reward": one.reward,
                    "policy_reward": two.reward,
                }
                | {
                    f"{name}_judged": side[prompt.id].reward
                    for name, side in zip(("start", "policy"), verdicts, strict=False)
                }
                for prompt, one, two in zip(both, start, policy, strict=True)
            ),
        ),
    )


def _by_prompt(samples: DatasetRef) -> dict[str, Example]:
    return {sample.parent or sample.id: sample for sample in read_examples(samples)}


def _voice(samples: Sequence[Example]) -> Voice:
    texts = [sample.completion or "" for sample in samples]
    rewards = [_reward(sample) for sample in samples]
    return Voice(
        reward=fmean(rewards),
        spread=pstdev(rewards),
        words=length_statistics(texts)[0],
        distinct_1=distinct_n(texts, 1),
        distinct_2=distinct_n(texts, 2),
        cut=fmean(sample.cut for sample in samples),
    )


def _reward(sample: Example) -> float:
    if sample.reward is None:
        raise ValueError(f"sample {sample.id} has no reward")
    return sample.reward


STAGE = Stage("side_by_side", run, Config, SideBySideInputs, SideBySideResult)
