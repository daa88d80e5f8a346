"""The policy's responses to prompts, as the very tokens that were drawn, through the key-value cache."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from tasks.core.errors import UserError
from tasks.core.generators.base import Sampling
from tasks.core.generators.decoding import Finish, Limits, choose_tokens, decode, evaluating
from tasks.core.generators.prefix import compute_prefix
from tasks.core.models import end_of_turn
from tasks.ppo.roles import LanguageModelRoles
from tasks.ppo.rollout import Rollout, make_rollout

if TYPE_CHECKING:
    from numpy.random import Generator
    from torch import Tensor

MAX_BATCH_TOKENS = 32768


class SamplingEnded(Exception):
    """What samples beside the training has ended, and left no responses."""


class Sampler(Protocol):
    """What draws a policy's responses."""

    def sample(self, prompts: Sequence[list[int]], *, step: int, streams: Sequence[int]) -> Rollout:
        """One response to each prompt, a list of token ids that ends where the answer begins (`render`)."""
        ...

    def close(self) -> None:
        """Give back the memory that is held beside the policy."""
        ...


class SampledPrompts:
    """What every sampler asks of prompts."""

    def __init__(self, roles: LanguageModelRoles, max_new_tokens: int) -> None:
        self.roles, self.max_new_tokens = roles, max_new_tokens
        text_config = roles.model.config.get_text_config(decoder=True)
        self._context: int | None = getattr(text_config, "max_position_embeddings", None)

    def fits(self, prompt_tokens: int) -> bool:
        """Whether the context holds a prompt of so many tokens and the longest response to it."""
        return self._context is None or prompt_tokens + self.max_new_tokens <= self._context

    def close(self) -> None:
        """Nothing is held beside the policy."""

    def check(self, prompts: Sequence[list[int]], step: int) -> None:
        """Raise UserError for an empty prompt and for one that leaves no room."""
        for number, prompt in enumerate(prompts):
            if not prompt:
                raise UserError(f"prompt {number} of step {step} has no tokens", field="data.prompts")
            if not self.fits(len(prompt)):
                raise UserError(
                    f"a prompt has {len(prompt)} tokens and {self.max_new_tokens} more are asked for, "
                    f"but the model's context holds {self._context}",
                    field="ppo.max_new_tokens",
                    mend="lower it, or leave long prompts out",
                )


class PolicySampler(SampledPrompts):
    """Draws responses from the policy's own distribution at `roles.temperature`, which is what `roles.policy` gives
    the log-probabilities of: no top-k, no nucleus.

    What is drawn depends on the policy, the prompt, `seed`, the step and the prompt's stream; not on the batch, up to
    the rounding of the model's arithmetic.
    """

    def __init__(
        self,
        roles: LanguageModelRoles,
        tokenizer: Any,
        *,
        max_new_tokens: int,
        seed: int,
        batch_size: int = 32,
    ) -> None:
        super().__init__(roles, max_new_tokens)
        self._seed, self._batch_size = seed, batch_size
        self._sampling = Sampling(max_new_tokens=max_new_tokens, temperature=roles.temperature)
        self._ends = end_tokens(roles.model, tokenizer)
        self._padding = tokenizer.pad_token_id

    def sample(self, prompts: Sequence[list[int]], *, step: int, streams: Sequence[int]) -> Rollout:
        """One response to each prompt, a list of token ids that ends where the answer begins (`render`).

        `streams` names the random stream of each prompt by a number (its row's place in the data, say): a prompt that
        stands twice in a batch needs two. Raises UserError for an empty prompt and for one that leaves no room.
        """
        from numpy.random import default_rng

        self.check(prompts, step)
        draws = [default_rng([self._seed, step, stream]) for stream in streams]
        if len(draws) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts have {len(draws)} streams")
        model = self.roles.model
        limits = Limits(self._batch_size, MAX_BATCH_TOKENS, self._sampling.max_new_tokens)
        found: dict[int, tuple[list[int], Finish]] = {}
        with evaluating(model), self.roles.sampling:
            prefix = compute_prefix(model, prompts)
            choose = partial(_choose, self._sampling, draws)
            for row, tokens, why in decode(model, prompts, prefix, choose, self._finish, limits):
                found[row] = (tokens, why)
        responses = [found[row] for row in range(len(prompts))]
        return make_rollout(
            prompts,
            [tokens for tokens, _ in responses],
            [why == "stop" for _, why in responses],
            padding=self._padding,
            device=model.device,
        )

    def _finish(self, tokens: list[int]) -> Finish | None:
        if tokens[-1] in self._ends:
            return "stop"
        return "length" if len(tokens) == self._sampling.max_new_tokens else None


def end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """The tokens that end a response."""
    configured = model.generation_config.eos_token_id
    several = configured if isinstance(configured, list) else [configured]
    return {end_of_turn(tokenizer), *(token for token in several if token is not None)}


def _choose(
    sampling: Sampling,
    draws: "Sequence[Generator]",
    logits: "Tensor",
    rows: list[int],
    written: list[list[int]],
) -> "Tensor":
    return choose_tokens(logits, sampling, [draws[row].random() for row in rows])
