"""What an answer is worth, and who says so."""

import hashlib
import inspect
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from tasks.core.config import PLACEMENT, Config
from tasks.core.errors import UserError
from tasks.core.models import Precision
from tasks.problems.load import import_module
from tasks.rewards.endpoint_config import RewardEndpointConfig

_FIELD = "reward.function"
_SIGNATURE = "f(prompt: str, completion: str, example: dict) -> float"


class RewardConfig(Config):
    """What an answer is worth, from 0 to 1."""

    by: Literal["problem", "function", "model", "endpoint"] = "problem"
    """The problem's own score, a function of yours, a reward model, or a service over HTTP."""
    function: str = ""
    """Your function as `module:function`, from an installed module or one in the current folder: it takes the
    conversation as text, the answer, and the row as a dictionary, and returns a number from 0 to 1. It runs in a
    process of its own, which guards against hanging and crashing and is no security boundary."""
    time_limit_s: float = Field(10.0, gt=0.0, le=3600.0)
    """Seconds your function has for one answer; then it is stopped and the answer is worth 0."""
    memory_mb: int = Field(0, ge=0, le=1 << 20)
    """Address space your function may take, in MiB; 0 is no limit."""
    batch_size: int = Field(32, ge=1, le=4096, json_schema_extra=PLACEMENT)
    """Answers the reward model reads together. Lower it when memory runs out."""
    precision: Precision = "auto"
    """Number format of the reward model's weights; auto is bfloat16 on GPUs that have it, else float32."""
    endpoint: RewardEndpointConfig = RewardEndpointConfig()
    """The service."""


def check(config: RewardConfig) -> None:
    """Raise UserError for a function that is missing, not needed, or cannot be called as it will be, and for an
    endpoint that is not needed or does not score a first short answer."""
    if config.by == "function":
        _check_arguments(config.function, load_function(config.function))
    elif config.function:
        raise UserError(
            f"{config.function} is named, but rewards come by {config.by}",
            field=_FIELD,
            mend="set reward.by to function, or leave the name out",
        )
    if config.by == "endpoint":
        from tasks.rewards.endpoint import RewardEndpoint

        RewardEndpoint(config.endpoint).check()
    elif config.endpoint.url != RewardEndpointConfig().url:
        raise UserError(
            f"{config.endpoint.url} is named, but rewards come by {config.by}",
            field="reward.endpoint.url",
            mend="set reward.by to endpoint, or leave the url out",
        )


def load_function(name: str) -> Callable[..., Any]:
    """The user's function `module:function`. Raises UserError if there is none or it is not callable."""
    module_name, _, function_name = name.partition(":")
    if not (module_name and function_name):
        raise UserError(
            f"{name!r} names no function" if name else "no function is named",
            field=_FIELD,
            mend=f"give module:function; it is called as {_SIGNATURE}",
        )
    module = import_module(module_name, _FIELD)
    found = getattr(module, function_name, None)
    if callable(found):
        return found
    there = [key for key, value in vars(module).items() if inspect.isfunction(value)]
    close = get_close_matches(function_name, there, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UserError(
        f"the module {module_name} has no {function_name!r}" if found is None else f"{name} cannot be called",
        field=_FIELD,
        mend=f"{hint}functions there: {', '.join(there) or 'none'}",
    )


def function_code(config: RewardConfig) -> str:
    """SHA-256 of the source file of the user's function, for cache keys; empty when there is none."""
    if config.by != "function":
        return ""
    load_function(config.function)
    source = import_module(config.function.partition(":")[0], _FIELD).__file__
    return hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else ""


def _check_arguments(name: str, function: Callable[..., Any]) -> None:
    try:
        signature = inspect.signature(function)
    except ValueError:  # functions written in C may not tell
        return
    try:
        signature.bind("prompt", "completion", {})
    except TypeError as error:
        raise UserError(
            f"{name}{signature} cannot be called: {error}",
            field=_FIELD,
            mend=f"it is called as {_SIGNATURE}, with the three in this order",
        ) from error
