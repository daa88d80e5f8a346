"""What a rollout's responses are worth: by the reward adapter on the shared base, or by their texts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.core.examples import Example, make_sample
from tasks.ppo.masked import sum_over_processes
from tasks.ppo.processes import last_of_processes
from tasks.ppo.roles import Roles
from tasks.ppo.rollout import Rollout
from tasks.problems.base import Problem
from tasks.reward_model.scoring import RewardModel
from tasks.rewards.config import RewardConfig
from tasks.rewards.endpoint import RewardEndpoint
from tasks.rewards.judging import broken, judge, scores_right_answers

if TYPE_CHECKING:
    from torch import Tensor

Score = Callable[[Rollout, Sequence[Example]], "Tensor"]
"""The reward in [0, 1] of each response [B] to the example its prompt was made from."""


def by_role(roles: Roles) -> Score:
    """Rewards by the reward model that shares the policy's base, read from the tokens as they were drawn."""
    return lambda rollout, examples: roles.rewards(rollout)


@dataclass
class Failures:
    """The responses that a verifier failed on and that are worth 0 for it; the same in every process."""

    count: int = 0
    """Of the last batch, in all processes."""
    reason: str = ""
    """Of the last one."""


def by_verifier(
    config: RewardConfig, problem: Problem, tokenizer: Any, failures: Failures | None = None
) -> Score:
    """Rewards by the problem's own score, a function of the user's or a service (`config.by`); a response on which the
    verifier fails gets 0, and is counted in `failures`.

    Raises UserError when it fails on a whole batch (a problem: and on a right answer). One service is asked all along:
    if it is away for a while between two batches, it is waited for.
    """
    noted = Failures() if failures is None else failures
    endpoint = RewardEndpoint(config.endpoint) if config.by == "endpoint" else None

    def score(rollout: Rollout, examples: Sequence[Example]) -> "Tensor":
        rows = as_samples(rollout, examples, tokenizer)
        judgements = judge(config, problem, None, rows, lambda done, total: None, endpoint)
        reasons = [judgement.reason for judgement in judgements if judgement.failure]
        failed, asked = sum_over_processes(_tensor([len(reasons), len(rows)], rollout)).tolist()
        noted.count = round(failed)
        if failed:
            noted.reason = last_of_processes(reasons[-1] if reasons else "")
        if failed == asked and not _right_ones_scored(config, problem, rollout, rows):
            raise broken(config, type(problem).__name__, noted.count, noted.reason)
        return _tensor([judgement.reward for judgement in judgements], rollout)

    return score


def _right_ones_scored(
    config: RewardConfig, problem: Problem, rollout: Rollout, rows: Sequence[Example]
) -> bool:
    """Whether a right answer can be scored in any process, which all have to agree on."""
    able = bool(rows) and scores_right_answers(config, problem, rows[0])
    return bool(sum_over_processes(_tensor([float(able)], rollout)).item())


def by_reward_model(model: RewardModel, problem: Problem, tokenizer: Any) -> Score:
    """Rewards by a reward model of its own weights, of whatever architecture and tokens, which reads the texts."""

    def score(rollout: Rollout, examples: Sequence[Example]) -> "Tensor":
        prompts = [problem.prompt(example) for example in examples]
        return _tensor(model.score(prompts, texts(rollout, tokenizer)), rollout)

    return score


def texts(rollout: Rollout, tokenizer: Any) -> list[str]:
    """The responses as texts, without end token and other special tokens."""
    return [tokenizer.decode(tokens, skip_special_tokens=True) for tokens in rollout.response_tokens()]


def as_samples(
    rollout: Rollout, examples: Sequence[Example], tokenizer: Any, *, step: int = 0
) -> list[Example]:
    """The responses as rows: samples of the examples that their prompts were made from."""
    rows = zip(examples, texts(rollout, tokenizer), rollout.ended.tolist(), strict=True)
    return [make_sample(example, text, cut=not ended, step=step) for example, text, ended in rows]


def _tensor(rewards: Sequence[float], rollout: Rollout) -> "Tensor":
    import torch

    return torch.tensor(rewards, dtype=torch.float32, device=rollout.responses.device)
