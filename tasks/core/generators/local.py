"""A transformers model in this process as a generator, and the likelihood it gives to texts."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from tasks.core.generators.base import Completion, Progress, Prompt, Sampling, Usage, no_room, streams_of
from tasks.core.generators.choices import ChoiceTree
from tasks.core.generators.decoding import Finish, Limits, choose_tokens, decode, evaluating, plan_batches
from tasks.core.generators.prefix import compute_prefix, prefill
from tasks.core.models import end_of_turn

if TYPE_CHECKING:
    from numpy.random import Generator
    from torch import Tensor

LOGIT_COST = 16
"""Tokens of a batch that weigh as much as one position whose logits over the vocabulary are kept."""


class TransformersGenerator:
    """Answers prompts with a causal language model of transformers (or peft), on the device it lies on.

    `encode` renders a prompt to token ids, up to where the answer begins. A batch holds at most `batch_size`
    rows and, padded, `max_batch_tokens` tokens of prompt and completion together. What comes out does not
    depend on how prompts fall into batches, up to the rounding of the model's arithmetic.
    """

    def __init__(
        self,
        model: Any,
        encode: Callable[[Prompt], list[int]],
        tokenizer: Any,
        *,
        batch_size: int = 32,
        max_batch_tokens: int = 32768,
    ) -> None:
        self.usage = Usage()
        self._model, self._encode, self._tokenizer = model, encode, tokenizer
        self._batch_size, self._max_batch_tokens = batch_size, max_batch_tokens
        configured = model.generation_config.eos_token_id
        self._eos = {tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])}
        text_config = model.config.get_text_config(decoder=True)
        self._context: int | None = getattr(text_config, "max_position_embeddings", None)

    def generate(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        progress: Progress | None = None,
        *,
        streams: Sequence[int] | None = None,
    ) -> list[Completion]:
        """One completion per prompt, in the prompts' order; token counts include the end-of-sequence token.

        A prompt that leaves no room for `sampling.max_new_tokens` in the model's context gives a completion
        that is an error.
        """
        from numpy.random import default_rng

        encoded = self._encode_all(prompts)
        faults = [no_room(len(ids), sampling.max_new_tokens, self._context) for ids in encoded]
        completions = {
            index: Completion(text="", finish="error", prompt_tokens=len(encoded[index]), error=fault)
            for index, fault in enumerate(faults)
            if fault is not None
        }
        fitting = [index for index, fault in enumerate(faults) if fault is None]
        self.usage.calls += len(prompts)
        self.usage.errors += len(completions)
        if progress and completions:
            progress(len(completions), len(prompts))

        with evaluating(self._model):
            prefix = compute_prefix(self._model, [encoded[index] for index in fitting])
            choices = self._choices(sampling)
            limits = Limits(self._batch_size, self._max_batch_tokens, sampling.max_new_tokens)
            draws = [default_rng([sampling.seed, stream]) for stream in streams_of(prompts, streams)]
            choose = partial(_choose, sampling, choices, [draws[index] for index in fitting])
            finish = partial(self._finish, sampling=sampling)
            rows = [encoded[index] for index in fitting]
            for row, tokens, why in decode(self._model, rows, prefix, choose, finish, limits):
                completions[fitting[row]] = self._complete(len(rows[row]), tokens, why, sampling.stop)
                if progress:
                    progress(len(completions), len(prompts))
        return [completions[index] for index in range(len(prompts))]

    def log_likelihood(
        self, prompts: Sequence[Prompt], targets: Sequence[str]
    ) -> list[tuple[float, int] | None]:
        """For each prompt and its target: the natural log-probability of the target's tokens and the
        end-of-sequence token after the prompt, summed, and how many tokens these are; None where both together exceed
        the model's context.

        Raises UserError when the tokenizer has no end-of-sequence token.
        """
        import torch

        end = end_of_turn(self._tokenizer)
        answers = [[*self._tokenizer(text, add_special_tokens=False)["input_ids"], end] for text in targets]
        encoded = self._encode_all(prompts)
        rows = [ids + answer for ids, answer in zip(encoded, answers, strict=True)]
        sizes = zip(encoded, answers, strict=True)
        fitting = [
            index
            for index, (ids, answer) in enumerate(sizes)
            if no_room(len(ids), len(answer), self._context) is None
        ]
        results: list[tuple[float, int] | None] = [None] * len(rows)
        with evaluating(self._model):
            prefix = compute_prefix(self._model, [encoded[index] for index in fitting])
            costs = [
                (max(len(rows[index]), LOGIT_COST * len(answers[index])), len(rows[index]))
                for index in fitting
            ]
            for places in plan_batches(costs, self._batch_size, self._max_batch_tokens):
                batch = [fitting[place] for place in places]
                longest = max(len(answers[index]) for index in batch)
                # The last token predicts nothing and is not read: the last positions predict the answers.
                logits, _ = prefill(self._model, [rows[index][:-1] for index in batch], prefix, longest)
                for index, row in zip(batch, logits, strict=True):
                    answer = torch.tensor(answers[index], device=row.device)
                    scores = row[-len(answer) :].float().log_softmax(dim=-1).gather(1, answer[:, None])
                    results[index] = (scores.double().sum().item(), len(answer))
        return results

    def _encode_all(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """The token ids of each prompt; equal prompts are encoded once."""
        known: dict[tuple[tuple[str, str], ...], list[int]] = {}
        encoded = []
        for prompt in prompts:
            key = tuple((message["role"], message["content"]) for message in prompt)
            if key not in known:
                known[key] = self._encode(prompt)
            encoded.append(known[key])
        return encoded

    def _choices(self, sampling: Sampling) -> ChoiceTree | None:
        if not sampling.choices:
            return None
        texts = [
            self._tokenizer(text, add_special_tokens=False)["input_ids"][: sampling.max_new_tokens]
            for text in sampling.choices
        ]
        return ChoiceTree(texts, end=end_of_turn(self._tokenizer))

    def _finish(self, tokens: list[int], sampling: Sampling) -> Finish | None:
        if tokens[-1] in self._eos:
            return "stop"
        if sampling.stop:
            # A token holds at least one byte: a stop text that has just appeared lies within so many tokens.
            reach = max(len(text.encode()) for text in sampling.stop) + 1
            tail = self._tokenizer.decode(tokens[-reach:], skip_special_tokens=True)
            if any(text in tail for text in sampling.stop):
                return "stop"
        return "length" if len(tokens) == sampling.max_new_tokens else None

    def _complete(
        self, prompt_tokens: int, tokens: list[int], finish: Finish, stop: Sequence[str]
    ) -> Completion:
        text = self._tokenizer.decode(tokens, skip_special_tokens=True)
        end = min((at for at in map(text.find, stop) if at >= 0), default=None)
        self.usage.prompt_tokens += prompt_tokens
        self.usage.completion_tokens += len(tokens)
        return Completion(
            text=text[:end],
            finish="stop" if end is not None else finish,
            prompt_tokens=prompt_tokens,
            completion_tokens=len(tokens),
        )


def _choose(
    sampling: Sampling,
    choices: ChoiceTree | None,
    draws: "Sequence[Generator]",
    logits: "Tensor",
    rows: list[int],
    written: list[list[int]],
) -> "Tensor":
    """The next token of each of `rows`, every one drawn from its own stream."""
    if choices:
        logits = choices.restrict(logits, written)
    return choose_tokens(logits, sampling, [draws[row].random() for row in rows])
