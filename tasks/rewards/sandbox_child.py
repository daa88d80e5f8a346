"""The inside of a sandbox: one process calls the function, another ends both when the caller is gone.

Run as `python -m tasks.rewards.sandbox_child REQUESTS REPLIES LIFELINE`, three inherited pipe ends. The first request
is `{"function", "memory_mb"}`, each further one `{"arguments"}`, a JSON line each; replies are `{"ready"}`, `{"value"}`
or `{"error"}`, and `{"ended"}` when the calling process died. Standard output and error belong to the function.
"""

import importlib
import json
import os
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

_LONGEST_REASON = 300


def main(requests: int, replies: int, lifeline: int) -> NoReturn:
    """Start the calling process and outlive it, but not the process at the other end of `lifeline`.

    The function may hold the interpreter for ever (a regular expression, C code), so that no thread beside it could
    watch the lifeline; a process that runs nothing of the user's can.
    """
    for descriptor in (requests, replies, lifeline):
        os.set_inheritable(descriptor, False)
    worker = os.fork()
    if worker == 0:
        os.close(lifeline)
        _work(requests, replies)
    os.close(requests)
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    _, status = os.waitpid(worker, 0)
    _reply(replies, {"ended": os.waitstatus_to_exitcode(status)})
    _kill_group()


def _end_with(lifeline: int) -> None:
    os.read(lifeline, 1)  # nobody writes to it: it returns when the other end is closed
    _kill_group()


def _kill_group() -> NoReturn:
    os.killpg(0, signal.SIGKILL)
    raise AssertionError("unreachable: SIGKILL was sent to the calling process")


def _work(requests: int, replies: int) -> NoReturn:
    own = os.getpid()
    with os.fdopen(requests, "rb") as lines:
        try:
            setup = json.loads(lines.readline())
            _limit(setup["memory_mb"])
            function = _load(setup["function"])
        except BaseException as error:  # noqa: BLE001 - an import runs code of the user's: it may raise anything
            _reply(replies, {"error": describe(error)})
            os._exit(1)
        _reply(replies, {"ready": True})
        for line in lines:
            reply = _call(function, json.loads(line)["arguments"])
            # A fork that the function made and did not end must not answer as well.
            if os.getpid() != own:
                os._exit(0)
            _send(replies, reply)
    os._exit(0)


def _call(function: Callable[..., Any], arguments: list[Any]) -> bytes:
    """The reply line: what the function returned, as JSON, or what it raised."""
    try:
        return json.dumps({"value": function(*arguments)}, default=_plain).encode() + b"\n"
    except BaseException as error:  # noqa: BLE001 - whatever it raises, sys.exit included, is its answer
        return json.dumps({"error": describe(error)}).encode() + b"\n"


def _plain(value: Any) -> float | str:
    """Numbers of other libraries (numpy, torch) as a float, anything else as the name of its type."""
    return float(value) if hasattr(value, "__float__") else f"<{type(value).__name__}>"


def _load(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last, as where it was checked
    found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return found


def _limit(memory_mb: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_mb:
        resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))


def describe(error: BaseException) -> str:
    """The last line of a traceback, of bounded length, with the file and line it comes from."""
    words = traceback.format_exception_only(error)[-1].strip()
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return words[:_LONGEST_REASON] + place


def _reply(replies: int, message: dict[str, Any]) -> None:
    _send(replies, json.dumps(message).encode() + b"\n")


def _send(replies: int, line: bytes) -> None:
    try:
        while line:
            line = line[os.write(replies, line) :]
    except BrokenPipeError:  # the caller is gone
        _kill_group()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
