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
    """Seed of the sampling; every prompt of a call draws from a stream of its own, whatever batch it falls into."""


class Completion(BaseModel):
    """One answer. `finish` is "stop" (ended by itself), "length" (cut) or "error" (`error` says why, text empty;
    `passing`: the same prompt may be answered another time)."""

    model_config = ConfigDict(extra="forbid")

    text: str
    finish: Literal["stop", "length", "error"] = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str = ""
    passing: bool = False


class Usage(BaseModel):
    """What a generator has consumed so far."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    retries: int = 0
    errors: int = 0
    saved_tokens: int = 0
    """Tokens that a compressor took away from the prompts, as its encoder counts them."""


class Generator(Protocol):
    """A model that answers prompts: in this process, on vLLM, or behind an OpenAI-compatible server."""

    usage: Usage

    def generate(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        progress: Progress | None = None,
        *,
        streams: Sequence[int] | None = None,
    ) -> list[Completion]:
        """One completion per prompt, in the prompts' order.

        `streams` names the random stream of each prompt by a number from 0 to 2**63 - 1; by default prompt i has
        stream i. What is drawn for a prompt depends on prompt, `sampling` and stream, not on the rest of the call.
        """
        ...


def streams_of(prompts: Sequence[Prompt], streams: Sequence[int] | None) -> Sequence[int]:
    """The stream of each prompt. Raises ValueError when there is not one each."""
    if streams is None:
        return range(len(prompts))
    if len(streams) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts have {len(streams)} streams")
    return streams


def request_seed(sampling: Sampling, stream: int) -> int:
    """The seed of a stream for an engine that takes one per request; 31 bits, which every one of them holds."""
    return (sampling.seed + stream) % 2**31


def no_room(prompt_tokens: int, new_tokens: int, context: int | None) -> str | None:
    """Why a prompt cannot be answered by a model whose context holds so many tokens, or None when it can."""
    if not prompt_tokens:
        return "the prompt has no tokens"
    if context is not None and prompt_tokens + new_tokens > context:
        return (
            f"the prompt has {prompt_tokens} tokens and {new_tokens} more are asked for, "
            f"but the model's context holds {context}"
        )
    return None
