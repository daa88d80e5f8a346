"""A problem owns its examples: how one becomes a prompt, what its target is, how a completion is scored,
and how a teacher is shown one and asked for more."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, Field

from tasks.core.config import Config
from tasks.core.examples import Example
from tasks.core.generators.base import Message


class ProblemConfig(Config):
    """Which problem, and what it needs to know of the data."""

    name: str = "classification"
    """`classification`, `numeric`, `multiple_choice`, `exact_match`, `gym`, `dialogue`, or your own as
    `module:Class`."""
    instruction: str = ""
    """What the student is told before every input; empty takes the problem's own."""
    labels: tuple[str, ...] = ()
    """The labels of a classification, filled in from the training data when empty."""
    code: str = ""
    """Digest of your own problem's source, filled in by the program: a change in it makes a new result."""


class Score(BaseModel):
    """How good a completion is: `value` in [0, 1] (1 is right), and the answer that was read from it."""

    value: float
    answer: str | None
    failure: Literal["", "timed_out", "crashed", "invalid"] = ""
    """What became of a scorer that came to no end, ended itself, or gave no number; the completion is worth 0."""
    reason: str = ""
    """Of the failure."""


class Draft(BaseModel):
    """A row as a teacher wrote it, not yet checked."""

    input: str
    target: str
    choices: list[str] = Field(default_factory=list)


class Problem(ABC):
    """Subclass it, name it `module:Class` in the configuration, and every method works on it."""

    instruction: str = ""
    """The default instruction (system message) of a prompt."""
    max_new_tokens: int = 64
    """Longest answer a student needs."""
    choices: tuple[str, ...] = ()
    """The answers there are, when they are the same for every example; empty where answers are free."""

    turns_system = "Write a new example of the kind that the user names. Every one is different."
    """The system message of `turns`, unless the configuration has one."""

    def __init__(self, config: ProblemConfig) -> None:
        self.config = config

    def prompt(self, example: Example) -> list[Message]:
        """The conversation whose continuation is the answer."""
        system = self.config.instruction or self.instruction
        user: Message = {"role": "user", "content": self.question(example)}
        return [{"role": "system", "content": system}, user] if system else [user]

    def question(self, example: Example) -> str:
        """The user turn of the prompt; the input as it stands unless a problem says otherwise."""
        return example.input

    def target(self, example: Example) -> str:
        """The text a student is trained to answer with."""
        return example.target

    @abstractmethod
    def score(self, example: Example, completion: str) -> Score:
        """How right `completion` is for `example`."""

    def adapt(self, example: Example) -> Example:
        """The example made of the user's columns, in the form this problem works on (a transcript split into
        dialogue and last reply, say); the same unless a problem says otherwise."""
        return example

    def fault(self, example: Example) -> str | None:
        """Why this example cannot be used ("the answer holds no number"), or None when it can."""
        return "the input is empty" if not example.input.strip() else None

    @abstractmethod
    def show(self, example: Example) -> str:
        """The example as a teacher sees it, in the very form in which it is asked to write new ones."""

    @abstractmethod
    def read(self, text: str, parent: Example) -> list[Draft]:
        """The rows in a teacher's answer, written from `parent`; text that fits no row is left out.

        An answer cut at its token limit may end in half a row: only the caller knows, and drops the last one.
        """

    @abstractmethod
    def request(
        self, parent: Example, shown: Sequence[Example], count: int, avoid: Sequence[str]
    ) -> list[Message]:
        """The conversation that asks a teacher for `count` new rows like `parent`.

        `shown` are further examples of the same kind (may be empty), `avoid` inputs it has written already
        and must differ from (may be empty).
        """

    def stays(self, example: Example) -> str:
        """What a teacher that rewrites `example` into a harder one is told of the new row's answer."""
        return "Give it its own, correct answer."

    def cue(self, example: Example) -> str:
        """What a user turn says to get one more row like `example`, where rows are asked for one by one."""
        return "Another one."

    def read_one(self, text: str, parent: Example) -> list[Draft]:
        """The row in an answer to a cue: one, or none."""
        return self.read(text, parent)[:1]

    def turns(self, parent: Example, shown: Sequence[Example], system: str) -> list[Message]:
        """A chat in which every row shown is a finished exchange, ending with the cue for a row like `parent`.

        A small model continues such a chat far better than it follows a request in words.
        """
        messages: list[Message] = [{"role": "system", "content": system or self.turns_system}]
        for example in [*shown, parent]:
            messages += [
                {"role": "user", "content": self.cue(example)},
                {"role": "assistant", "content": self.show(example)},
            ]
        return [*messages, {"role": "user", "content": self.cue(parent)}]
