"""Examples as token ids whose loss is on the answer alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.core.errors import UserError
from tasks.core.examples import Example
from tasks.core.models import end_of_turn, render
from tasks.problems.base import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def tokenize(
    problem: Problem, tokenizer: "PreTrainedTokenizerBase", examples: Sequence[Example], max_length: int
) -> list[dict[str, list[int]]]:
    """`input_ids` and `labels` of each example: the prompt's labels are -100, so that the loss sees answers only.

    A row longer than `max_length` loses tokens at the start of its prompt. Raises UserError when an answer alone
    does not fit.
    """
    rows = []
    for example in examples:
        prompt = render(tokenizer, problem.prompt(example))
        text = problem.target(example) if example.completion is None else example.completion
        answer = tokenizer(text, add_special_tokens=False)["input_ids"] + [end_of_turn(tokenizer)]
        if len(answer) >= max_length:
            raise UserError(
                f"the answer of row {example.id} has {len(answer)} tokens",
                field="training.max_length",
                mend=f"raise it above {len(answer)} or leave the row out (now {max_length})",
            )
        prompt = prompt[-(max_length - len(answer)) :]
        rows.append({"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer})
    return rows
