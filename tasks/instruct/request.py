"""What every strategy asks a teacher for: a new instruction, with where it comes from."""

from dataclasses import dataclass
from typing import Literal

from tasks.core.generators.base import Message

Strategy = Literal["self_instruct", "evol", "backtranslation", "paraphrase"]


@dataclass(frozen=True)
class Request:
    """A question to the teacher whose answer holds one or more new instructions.

    `operation` names what was done ("evol/deepen"), `parents` the rows it was done to, `response` the answer that the
    instruction is for where that is there beforehand (backtranslation).
    """

    strategy: Strategy
    operation: str
    parents: list[str]
    prompt: list[Message]
    response: str | None = None


@dataclass(frozen=True)
class Draft:
    """An instruction as the teacher wrote it, not yet answered nor checked."""

    instruction: str
    request: Request
