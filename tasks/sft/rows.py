"""Examples as token ids whose loss is on the answer alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.core.errors import UserError
from tasks.core.examples import Example
from tasks.core.models import beginning, end_of_turn, render
from tasks.problems.base import Problem
from tasks.reversal.reversals import reverse_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def tokenize(
    problem: Problem, tokenizer: "PreTrainedTokenizerBase", examples: Sequence[Example], max_length: int
) -> list[dict[str, list[int]]]:
    """`input_ids` and `labels` of each example: the prompt's labels are -100, so that the loss sees answers only.
    A row without input is plain text, whose loss is on all of it.

    A row longer than `max_length` loses tokens at the start of its prompt. Raises UserError when an answer alone
    does not fit.
    """
    rows = []
    for example in examples:
        prompt = render(tokenizer, problem.prompt(example)) if example.input else beginning(tokenizer)
        answer = _answer(problem, tokenizer, example)
        if len(answer) >= max_length:
            raise UserError(
                f"the answer of row {example.id} has {len(answer)} tokens",
                field="training.max_length",
                mend=f"raise it above {len(answer)} (now {max_length}), or leave such rows out with "
                "--training.too_long=drop",
            )
        prompt = prompt[-(max_length - len(answer)) :]
        rows.append({"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer})
    return rows


def fitting(
    problem: Problem, tokenizer: "PreTrainedTokenizerBase", examples: Sequence[Example], max_length: int
) -> list[Example]:
    """The examples whose answer fits. Raises UserError when none does."""
    kept = [example for example in examples if fits(problem, tokenizer, example, max_length)]
    if not kept:
        raise UserError(
            f"no row has an answer that fits into {max_length} tokens",
            field="training.max_length",
            mend="raise it",
        )
    return kept


def fits(problem: Problem, tokenizer: "PreTrainedTokenizerBase", example: Example, max_length: int) -> bool:
    """Whether the answer leaves room for a token of its prompt."""
    return len(_answer(problem, tokenizer, example)) < max_length


def _answer(problem: Problem, tokenizer: "PreTrainedTokenizerBase", example: Example) -> list[int]:
    target = problem.target(example) if example.input else example.target
    text = target if example.completion is None else example.completion
    tokens: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [*(reverse_tokens(tokens) if example.tokens_reversed else tokens), end_of_turn(tokenizer)]
