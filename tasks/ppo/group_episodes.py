"""One batch of groups: several responses to each of some prompts, and what they are worth."""

from collections.abc import Callable, Sequence
from typing import Any

from tasks.core.errors import UserError
from tasks.ppo.config import PPOConfig
from tasks.ppo.masked import masked_moments, process_count, sum_over_processes
from tasks.ppo.processes import process_number
from tasks.ppo.reward_signal import shape_scores
from tasks.ppo.rollout import Rollout
from tasks.ppo.sampling import PolicySampler
from tasks.ppo.scores import Failures, Score
from tasks.ppo.training import Prompt
from tasks.ppo.warning_signs import one_token


class GroupEpisodes:
    """Samples and rewards the groups of a batch, of which every process has its share. `rollout` is that of the last
    batch."""

    rollout: Rollout

    def __init__(
        self,
        config: PPOConfig,
        responses: int,
        sampler: PolicySampler,
        score: Score,
        prompts: Sequence[Prompt],
        failures: Failures | None = None,
    ) -> None:
        self._config, self._responses = config, responses
        self._sampler, self._score, self._prompts = sampler, score, prompts
        self._failures = failures or Failures()

    def tokens(self, places: Sequence[str]) -> list[list[int]]:
        """The token ids of prompts, which are named by their places among all prompts."""
        return [self._prompts[int(place)].tokens for place in places]

    def sample(self, prompts: Sequence[list[int]], step: int) -> list[list[int]]:
        """The tokens of one response to each of this process's prompts; a prompt stands there once for each response.

        Streams are numbered over the whole batch: its responses do not hang on the number of processes.
        """
        first = process_number() * len(prompts)
        streams = range(first, first + len(prompts))
        self.rollout = self._sampler.sample(prompts, step=step, streams=streams)
        return self.rollout.response_tokens()

    def scores(
        self, prompts: Sequence[str], log_metric: Callable[[str, float], None], **_: Any
    ) -> list[float]:
        """What the responses of the last `sample` are worth, less `missing_eos_penalty` where they were cut: a reward
        function of TRL's trainers, which leaves the batch's figures with `log_metric`.

        Raises UserError for a reward that is not finite.
        """
        import torch

        rollout, config = self.rollout, self._config
        raw = self._score(rollout, [self._prompts[int(place)].example for place in prompts]).float()
        faulty = int(sum_over_processes((~raw.isfinite()).sum()))
        if faulty:
            raise UserError(
                f"{faulty} of the batch's rewards are not finite",
                field="reward",
                mend="look at what the reward does with these responses",
            )
        shaped = shape_scores(
            raw, rollout.ended, missing_eos_penalty=config.missing_eos_penalty, clip=config.score_clip
        )
        per_response = {
            "objective/scores": shaped,
            "reward/mean": raw,
            "val/response_tokens": rollout.mask.sum(dim=1),
            "val/num_eos_tokens": rollout.ended,
            "val/one_token_share": one_token(rollout),
        }
        sums = sum_over_processes(torch.stack([numbers.double().sum() for numbers in per_response.values()]))
        episodes = len(rollout) * process_count()
        figures = dict(zip(per_response, (sums / episodes).tolist(), strict=True))
        figures["val/num_eos_tokens"] *= episodes
        every = torch.ones_like(rollout.mask[:, :1])
        figures["reward/std"] = float(masked_moments(raw[:, None], every)[1] ** 0.5)
        figures["reward/frac_zero_std"] = self._without_spread(shaped)
        figures["reward/failed"] = float(self._failures.count)
        figures["val/episodes"] = float(episodes)
        for name, figure in figures.items():
            log_metric(name, figure)
        return [float(score) for score in shaped]

    def _without_spread(self, scores: Any) -> float:
        """The share of the groups, which may lie across processes, whose scores are all the same."""
        first = process_number() * len(scores)
        all_scores = scores.new_zeros(len(scores) * process_count())
        all_scores[first : first + len(scores)] = scores
        groups = sum_over_processes(all_scores).view(-1, self._responses)
        return float((groups.amax(dim=1) == groups.amin(dim=1)).float().mean())
