"""What a generator is: prompts in, completions out, in the same order, with its tokens counted."""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal, Protocol, TypedDict

from pydantic import BaseModel, ConfigDict, Field

from tasks.core.config import Config


class Message(TypedDict):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


Prompt = Sequence[Message]
"""A conversation that the generator continues with one assistant turn."""

Progress = Callable[[int, int], None]
"""Called with (prompts done, prompts in all) while a generator works."""


class Sampling(Config):
    """How completions are drawn."""

    max_new_tokens: int = Field(256, ge=1, le=32768)
    """Longest completion, in tokens."""
    temperature: float = Field(0.0, ge=0.0, le=5.0)
    """0 is greedy; 1 samples from the model's own distribution."""
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    """Sample from the smallest set of tokens whose probabilities sum to this."""
    top_k: int = Field(0, ge=0)
    """Sample from the k likeliest tokens; 0 is all of them."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """A completion ends before the first of these texts."""
    choices: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """A completion is one of these texts, drawn token by token among what can still become one; empty leaves it
    free. A server behind HTTP is not told, for the protocol has no common word for it."""
    seed: int = Field(0, ge=0)
    """Seed of the sampling; prompt i of a call draws from its own stream, whatever batch it falls into."""


class Completion(BaseModel):
    """One answer. `finish` is "stop" (ended by itself), "length" (cut) or "error" (`error` says why, text empty)."""

    model_config = ConfigDict(extra="forbid")

    text: str
    finish: Literal["stop", "length", "error"] = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str = ""


class Usage(BaseModel):
    """What a generator has consumed so far."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    retries: int = 0
    errors: int = 0


class Generator(Protocol):
    """A model that answers prompts: in this process, on vLLM, or behind an OpenAI-compatible server."""

    usage: Usage

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, progress: Progress | None = None
    ) -> list[Completion]:
        """One completion per prompt, in the prompts' order."""
        ...
