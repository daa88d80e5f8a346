"""The OpenAI chat completions protocol: the body of a request, and what can be read from an answer."""

import json
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from tasks.core.generators.base import Completion, Prompt, Sampling, request_seed

_LONGEST_REASON = 300


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _ChatCompletion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


class _Model(BaseModel):
    id: str
    aliases: list[str] = Field(default_factory=list)


class _Models(BaseModel):
    data: list[_Model]


def request_body(model: str, prompt: Prompt, sampling: Sampling, stream: int) -> dict[str, Any]:
    """The body of a request for one completion, drawn from the random stream of that number."""
    body: dict[str, Any] = {
        "model": model,
        "messages": list(prompt),
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": request_seed(sampling, stream),
    }
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.top_k > 0:  # not in OpenAI's own API, which refuses fields it does not know
        body["top_k"] = sampling.top_k
    return body


def read_completion(content: bytes) -> Completion:
    """The completion in the body of a successful response.

    No text at all (`null`, as opposed to an empty one) and text withheld by a filter are errors of the
    prompt. Raises ValueError when the body is not a chat completion.
    """
    try:
        answer = _ChatCompletion.model_validate_json(content)
    except ValidationError as error:
        raise ValueError(f"the body is not a chat completion: {_excerpt(content)}") from error
    choice, usage = answer.choices[0], answer.usage or _Usage()
    finish: Literal["stop", "length", "error"] = "length" if choice.finish_reason == "length" else "stop"
    reason = ""
    if choice.finish_reason == "content_filter":
        finish, reason = "error", "the server's content filter withheld the answer"
    elif choice.message.content is None and finish == "stop":
        finish, reason = "error", choice.message.refusal or f"no text (finish_reason {choice.finish_reason})"
    return Completion(
        text="" if finish == "error" else choice.message.content or "",
        finish=finish,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        error=reason,
    )


def read_models(content: bytes) -> list[tuple[str, ...]]:
    """The models a server lists, each with all the names it goes by, the first of them its own.

    Raises ValueError when the body is not a list of models.
    """
    try:
        models = _Models.model_validate_json(content)
    except ValidationError as error:
        raise ValueError(f"the body is not a list of models: {_excerpt(content)}") from error
    return [(model.id, *model.aliases) for model in models.data]


def read_error(content: bytes) -> tuple[str, str]:
    """Code and message in the body of a refused request: no code, and the raw body, when it has neither."""
    try:
        error = json.loads(content)["error"]
        return str(error.get("code", "")), str(error["message"])[:_LONGEST_REASON]
    except (ValueError, KeyError, TypeError, AttributeError):
        return "", _excerpt(content)


def _excerpt(content: bytes) -> str:
    return content.decode(errors="replace").strip()[:_LONGEST_REASON] or "(empty)"
