"""TRL's RLOO and GRPO trainers on our prompts, sampler and reward."""

from typing import TYPE_CHECKING, Any

from tasks.ppo.group_episodes import GroupEpisodes
from tasks.ppo.reward_signal import kl_k1, kl_k3

if TYPE_CHECKING:
    from torch import Tensor


def on_episodes(trainer: type[Any], episodes: GroupEpisodes, seed: int) -> type[Any]:
    """The trainer (TRL's RLOOTrainer or GRPOTrainer) whose data set names prompts by their places in the column
    `prompt`, whose responses `episodes` samples, and which logs the KL from the reference per response.

    Prompts are then the very tokens that every other stage asks with, a prompt that is asked several times is read
    once, and what is sampled hangs on the step alone: a resumed training samples the same. Checkpoints have to lie
    between two batches, for a trainer that is resumed within one samples it again with the policy that it has by then.
    """
    import torch
    from trl import GRPOTrainer

    with_log_probabilities = issubclass(trainer, GRPOTrainer)

    class OnEpisodes(trainer):
        _log_probabilities: "Tensor"
        """What `_get_per_token_logps_and_entropies` found last, without gradients: [B, R]."""

        def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
            return episodes.tokens(prompts), None, {}

        def _generate_single_turn(self, prompt_ids: list[list[int]], *_: Any, **__: Any) -> Any:
            tokens = episodes.sample(prompt_ids, self.state.global_step // self.num_iterations)
            return (tokens, None) if with_log_probabilities else tokens

        def _get_per_token_logps_and_entropies(self, *arguments: Any, **keywords: Any) -> Any:
            found = super()._get_per_token_logps_and_entropies(*arguments, **keywords)
            self._log_probabilities = found[0].detach()
            return found

        def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
            # The responses are shuffled by the global generator before they are cut into micro batches.
            torch.manual_seed(seed * 1_000_003 + self.state.global_step)
            batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
            if self.beta:  # the reference came last; RLOO does not keep it
                batch.setdefault("ref_per_token_logps", self._log_probabilities)
            return batch

        def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
            loss = super()._compute_loss(model, inputs)
            passes = self.args.steps_per_generation
            if self.beta and self._step % (passes * self.num_iterations) < passes:  # while it is who sampled
                self._log_kl(inputs["ref_per_token_logps"], inputs["completion_mask"].bool())
            return loss

        def _log_kl(self, reference: "Tensor", mask: "Tensor") -> None:
            policy, responses = self._log_probabilities, mask.any(dim=1).sum()
            sums = [kl(policy, reference, mask).sum() for kl in (kl_k1, kl_k3)]
            sums = self.accelerator.reduce(torch.stack([*sums, responses.to(sums[0])]), reduction="sum")
            for name, number in zip(("objective/kl", "objective/kl_k3"), sums, strict=False):
                self._metrics["train"][name].append(float(number / sums[2].clamp(min=1)))

    return OnEpisodes
