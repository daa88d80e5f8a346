"""Rewards from a trained reward model."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from tasks.core.errors import UserError
from tasks.core.generators.base import Progress, Prompt
from tasks.core.generators.decoding import evaluating, plan_batches
from tasks.core.models import Precision, load_tokenizer, render
from tasks.core.references import ModelRef
from tasks.core.store import fetch
from tasks.reward_model.classifier import HEAD, load_classifier
from tasks.reward_model.normalisation import read_normalisation
from tasks.reward_model.tokens import answer_tokens, fitted, padding_token

MAX_BATCH_TOKENS = 16384
"""Tokens of a padded batch: what comes out does not depend on it, up to rounding."""


class RewardModel:
    """Says what answers are worth.

    `normalise` maps a raw reward to [0, 1]; `name` is how messages call the model.
    """

    def __init__(
        self, model: Any, tokenizer: Any, normalise: Callable[[float], float], *, name: str, batch_size: int
    ) -> None:
        self._model, self._tokenizer, self._normalise = model, tokenizer, normalise
        self._name, self._batch_size = name, batch_size
        self._padding = padding_token(tokenizer)
        self._context: int | None = getattr(
            model.config.get_text_config(decoder=True), "max_position_embeddings", None
        )

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], progress: Progress | None = None
    ) -> list[float]:
        """The reward of each completion of its prompt, in [0, 1] and in order. See `raw`."""
        return [self._normalise(reward) for reward in self.raw(prompts, completions, progress)]

    def raw(
        self, prompts: Sequence[Prompt], completions: Sequence[str], progress: Progress | None = None
    ) -> list[float]:
        """The unnormalised rewards, in order; equal pairs are computed once.

        A pair that is longer than the model's context loses the beginning of its prompt. Raises UserError, naming
        the model, when a reward is not finite.
        """
        rendered: dict[str, list[int]] = {}
        rows = []
        for prompt, completion in zip(prompts, completions, strict=True):
            key = repr(prompt)
            if key not in rendered:
                rendered[key] = render(self._tokenizer, prompt)
            answer = answer_tokens(self._tokenizer, completion)
            length = self._context or len(rendered[key]) + len(answer)
            rows.append(tuple(fitted(rendered[key], answer, length)))
        wanted, rewards, done = Counter(rows), {}, 0
        distinct = list(wanted)
        with evaluating(self._model):
            for batch in plan_batches(
                [(len(row), row) for row in distinct], self._batch_size, MAX_BATCH_TOKENS
            ):
                members = [distinct[index] for index in batch]
                for row, reward in zip(members, self._forward(members), strict=True):
                    rewards[row] = reward
                    done += wanted[row]
                if progress:
                    progress(done, len(rows))
        if broken := [reward for reward in rewards.values() if not math.isfinite(reward)]:
            raise UserError(
                f"the reward model {self._name} gives {broken[0]} for {len(broken)} of {len(rewards)} answers",
                mend="train it again with a lower learning rate; with float16 weights, take bfloat16 or float32",
            )
        return [rewards[row] for row in rows]

    def _forward(self, rows: Sequence[tuple[int, ...]]) -> list[float]:
        """The head's output at the last token of each row, in one batch that is padded on the right."""
        import torch

        width = max(map(len, rows))
        device = self._model.device
        ids = torch.tensor([[*row, *[self._padding] * (width - len(row))] for row in rows], device=device)
        ends = torch.tensor([len(row) - 1 for row in rows], device=device)
        mask = (torch.arange(width, device=device) <= ends[:, None]).long()
        body = self._model.base_model
        hidden = body(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        last = hidden[torch.arange(len(rows), device=device), ends]
        rewards: list[float] = getattr(self._model, HEAD)(last.float()).squeeze(-1).tolist()
        return rewards


def load_reward_model(ref: ModelRef, *, precision: Precision = "auto", batch_size: int = 32) -> RewardModel:
    """The reward model of a reference, ready to score; an adapter is merged into its base.

    Raises UserError when the reference is no reward model.
    """
    normalise = read_normalisation(fetch(ref))
    return load_scorer(ref, normalise, precision=precision, batch_size=batch_size)


def load_scorer(
    ref: ModelRef, normalise: Callable[[float], float], *, precision: Precision, batch_size: int
) -> RewardModel:
    """As `load_reward_model`, with a normalisation that need not lie beside the weights yet."""
    import torch

    tokenizer = load_tokenizer(ref)
    model: Any = load_classifier(ref.base or ref, precision=precision, padding=padding_token(tokenizer))
    if ref.base is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, fetch(ref)).merge_and_unload()
    # The body may compute in 16 bits; 8 bits of mantissa would make equals of different rewards.
    getattr(model, HEAD).float()
    if torch.cuda.is_available():
        model = model.to("cuda")
    return RewardModel(model, tokenizer, normalise, name=ref.uri, batch_size=batch_size)
