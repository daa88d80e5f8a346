"""Instruction backtranslation (arXiv 2308.06259): which instruction is this text the answer to, and is it a good one?
The wording is ours."""

import re

from tasks.core.examples import Example
from tasks.core.generators.base import Message
from tasks.instruct.request import Request

BEST = 5
"""The best mark (section 2.3)."""
_MARK = re.compile(r"\b([1-5])\b(?:\s*(?:/|out of|of)\s*5)?")


def backtranslate(text: Example) -> Request:
    """The request for the instruction to which a text of a person is the answer."""
    words = (
        "An assistant was given an instruction, and answered with the text below. Write that instruction, in one or "
        f"two sentences, and nothing else.\n\nText:\n{text.input}"
    )
    return Request(
        strategy="backtranslation",
        operation="backtranslation",
        parents=[text.id],
        prompt=[{"role": "user", "content": words}],
        response=text.input,
    )


def mark_prompt(instruction: str, response: str) -> list[Message]:
    """The request for a mark from 1 to 5 (self-curation, section 2.3)."""
    words = (
        "How good is this answer to this instruction, as that of an assistant that helps people? 5: complete, clear, "
        "to the point, as an expert writes. 4: good, with small faults. 3: helpful, but it lacks something. "
        "2: beside the point in part. 1: no answer to it. Say the mark first.\n\n"
        f"Instruction: {instruction}\n\nAnswer: {response}\n\nMark (1 to 5):"
    )
    return [{"role": "user", "content": words}]


def read_mark(text: str) -> int | None:
    """The first mark in an answer, or None."""
    found = _MARK.search(text)
    return int(found[1]) if found else None
