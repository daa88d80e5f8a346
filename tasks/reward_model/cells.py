"""From the cells of a row to what a preference pair is made of: a conversation, and answers to it."""

import math
import re
from typing import Any

from tasks.core.generators.base import Message
from tasks.problems.dialogue import is_transcript, read_turns

_HALF_A_CHARACTER = re.compile("[\ud800-\udfff]")
_ROLES = ("system", "user", "assistant")


class NoPair(Exception):
    """A row that is no pair; its message says why."""


def prompt_of(cells: dict[str, Any], column: str) -> list[Message]:
    """The conversation in a cell (a text, a transcript or a list of messages), which ends with a user turn.

    A transcript may break off after `Assistant:`. Raises NoPair for anything else.
    """
    value = cells.get(column)
    turns = _messages(value, column) if isinstance(value, list) else read_turns(text(cells, column))
    if turns[-1] == {"role": "assistant", "content": ""}:
        turns = turns[:-1]
    if not turns or turns[-1]["role"] != "user" or not turns[-1]["content"].strip():
        raise NoPair(f"column {column!r} does not end with words of the user")
    return turns


def answer(cells: dict[str, Any], column: str, prompt: list[Message]) -> str:
    """The answer in a cell: a text, a message in a list, or a list of messages that repeats `prompt` before it."""
    value = cells.get(column)
    if not isinstance(value, list):
        return text(cells, column)
    before, last = _split(_messages(value, column), column)
    if before not in ([], prompt):
        raise NoPair(f"column {column!r} holds another dialogue than the prompt")
    return last


def dialogue(cells: dict[str, Any], column: str) -> tuple[list[Message], str]:
    """The conversation and the answer to it in a cell that holds both: a transcript or a list of messages."""
    value = cells.get(column)
    if isinstance(value, list):
        turns = _messages(value, column)
    else:
        written = text(cells, column)
        if not is_transcript(written):
            raise NoPair(
                f"there is no prompt, and column {column!r} is no transcript (Human: …, Assistant: …)"
            )
        turns = read_turns(written)
    before, last = _split(turns, column)
    if not before or before[-1]["role"] != "user":
        raise NoPair(f"column {column!r} has no turn of the user before its last one")
    return before, last


def text(cells: dict[str, Any], column: str) -> str:
    """A cell's text, a number as it is written. Raises NoPair for an empty cell and for what is no text."""
    value = cells.get(column)
    if isinstance(value, float) and math.isnan(value):
        value = None
    if isinstance(value, int | float):
        return str(value)
    if value is not None and not isinstance(value, str):
        raise NoPair(f"column {column!r} is no text")
    if not value or not value.strip():
        raise NoPair(f"column {column!r} is empty")
    if _HALF_A_CHARACTER.search(value):
        raise NoPair(f"column {column!r} holds half a character (a lone surrogate)")
    return value


def number(cells: dict[str, Any], column: str) -> float:
    """A cell's number. Raises NoPair for what is none, and for NaN and infinity."""
    value = cells.get(column)
    try:
        found = float(value) if isinstance(value, int | float | str) else math.nan
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise NoPair(f"column {column!r} is no finite number")
    return found


def _split(turns: list[Message], column: str) -> tuple[list[Message], str]:
    *before, last = turns
    if last["role"] != "assistant":
        raise NoPair(f"column {column!r} ends with a turn of the {last['role']}, not with an answer")
    if not last["content"].strip():
        raise NoPair(f"the answer in column {column!r} is empty")
    return before, last["content"]


def _messages(value: list[Any], column: str) -> list[Message]:
    turns: list[Message] = []
    for message in value:
        role = message.get("role") if isinstance(message, dict) else None
        if role not in _ROLES or not isinstance(message.get("content"), str):
            raise NoPair(f"column {column!r} is no list of messages, each with role and content")
        if _HALF_A_CHARACTER.search(message["content"]):
            raise NoPair(f"column {column!r} holds half a character (a lone surrogate)")
        turns.append({"role": role, "content": message["content"]})
    if not turns:
        raise NoPair(f"column {column!r} is empty")
    return turns
