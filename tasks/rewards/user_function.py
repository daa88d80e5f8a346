"""The user's reward function, looked at where it may hang, crash and end the process: in one of its own."""

import importlib.util
import inspect
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError
from tasks.core.user_code import user_code_digest
from tasks.problems.load import import_module

FIELD = "reward.function"
_SIGNATURE = "f(prompt: str, completion: str, example: dict) -> float"
IMPORT_S = 120.0


def check_function(name: str) -> None:
    """Raise UserError for a function `module:function` that is missing, or cannot be called as it will be. Its module
    is imported in a process of its own, which has two minutes, and no limit of memory: beside the module it holds what
    looks at it."""
    from tasks.rewards.sandboxed import Sandbox

    _parts(name)
    with Sandbox(f"{__name__}:fault_of") as sandbox:
        outcome = sandbox.call(name, time_limit_s=IMPORT_S)
    if outcome.failure or not isinstance(outcome.value, list):
        raise UserError(
            f"the module of {name} cannot be imported: {outcome.reason or 'it ended the process'}",
            field=FIELD,
            mend="keep work that takes long, and sys.exit, out of its top level",
        )
    if outcome.value:
        fault, mend = outcome.value
        raise UserError(fault, field=FIELD, mend=mend)


def fault_of(name: str) -> list[str]:
    """What is wrong with a function, and how to mend it, as the process that imports it finds out; nothing for none."""
    try:
        _check_arguments(name, _load(name))
    except UserError as error:
        return [error.fault, error.mend]
    return []


def source_digest(name: str) -> str:
    """SHA-256 of the source of the function's module and of what it imports from beside it; "" for one that has none.
    The module is not imported."""
    module_name, _ = _parts(name)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last, so that a file of the user's never hides an installed package
    importlib.invalidate_caches()
    spec = importlib.util.find_spec(module_name)
    source = spec.origin if spec and spec.has_location else None
    return user_code_digest(module_name, Path(source)) if source else ""


def _parts(name: str) -> tuple[str, str]:
    module_name, _, function_name = name.partition(":")
    if not (module_name and function_name):
        raise UserError(
            f"{name!r} names no function" if name else "no function is named",
            field=FIELD,
            mend=f"give module:function; it is called as {_SIGNATURE}",
        )
    return module_name, function_name


def _load(name: str) -> Callable[..., Any]:
    module_name, function_name = _parts(name)
    module = import_module(module_name, FIELD)
    found = getattr(module, function_name, None)
    if callable(found):
        return found
    there = [key for key, value in vars(module).items() if inspect.isfunction(value)]
    close = get_close_matches(function_name, there, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UserError(
        f"the module {module_name} has no {function_name!r}" if found is None else f"{name} cannot be called",
        field=FIELD,
        mend=f"{hint}functions there: {', '.join(there) or 'none'}",
    )


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
            field=FIELD,
            mend=f"it is called as {_SIGNATURE}, with the three in this order",
        ) from error
