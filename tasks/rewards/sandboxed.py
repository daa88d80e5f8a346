"""A function in a process of its own, where it may hang, crash and print without harm to the caller.

A guard of time and stability, no security boundary: the function runs with the user's rights and environment.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any, Literal, Self

from tasks.core.launching.forking import python_path
from tasks.rewards import sandbox_child

_START_S = 120.0
_LOOK_S = 0.5
_TAIL_BYTES = 2000
_LONGEST_WORDS = 200


class CannotStart(Exception):
    """The function cannot be imported in a process of its own; the message says why."""


@dataclass(frozen=True)
class Outcome:
    """What came of a call: `value`, a JSON value, or the kind of failure and its reason."""

    value: Any = None
    failure: Literal["", "timed_out", "crashed"] = ""
    reason: str = ""


class Sandbox:
    """Calls of `function` ("module:function") in a child process, which is started at the first one.

    It serves call after call. One that hangs is killed with every process it started (unless that made itself a session
    of its own), one that dies is replaced, and the next call finds a fresh process. `memory_mb` bounds the address
    space; 0 does not. A set is iterated in the same order in every run. The child ends with the caller, however that
    ends. Not for several threads at once.
    """

    def __init__(self, function: str, *, memory_mb: int = 0) -> None:
        self._setup = {"function": function, "memory_mb": memory_mb}
        self._child: _Child | None = None

    def call(self, *arguments: Any, time_limit_s: float) -> Outcome:
        """Call with JSON values. Numbers of numpy and torch return as floats; other objects as their type's name.

        Raises CannotStart when the function's module cannot be imported within two minutes.
        """
        if self._child is not None and self._child.ended_unasked():
            self.close()
        if self._child is None:
            self._child = _Child(self._setup)
        outcome = self._child.ask({"arguments": arguments}, time_limit_s)
        if outcome is None:
            outcome = Outcome(failure="timed_out", reason=f"no answer within {time_limit_s:g} s")
            self.close()
        elif not self._child.lives:
            self.close()
        return outcome

    def close(self) -> None:
        """End the child and what it started."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Child:
    """One process that serves calls; `lives` until it has ended of itself."""

    def __init__(self, setup: dict[str, Any]) -> None:
        requests, self._requests = os.pipe()
        self._replies, replies = os.pipe()
        lifeline, self._lifeline = os.pipe()
        theirs = (requests, replies, lifeline)
        try:
            self._process = subprocess.Popen(
                # -P: a file of the user's in the current folder never hides an installed package.
                [sys.executable, "-P", "-m", sandbox_child.__name__, *map(str, theirs)],
                pass_fds=theirs,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": python_path(), "PYTHONHASHSEED": "0"},
                start_new_session=True,
            )
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        os.set_blocking(self._requests, False)
        self._pending = bytearray()
        self._tail = b""
        self._reader = threading.Thread(target=self._drain, daemon=True, name="sandbox-output")
        self._reader.start()
        self.lives = True
        started = self.ask(setup, _START_S)
        if started is None or started.failure:
            self.kill()
            raise CannotStart(started.reason if started else f"its import takes longer than {_START_S:g} s")

    def ask(self, request: dict[str, Any], time_limit_s: float) -> Outcome | None:
        """Send a request and wait for its outcome; None when the time is up."""
        deadline = time.monotonic() + time_limit_s
        if not self._send(json.dumps(request).encode() + b"\n", deadline):
            return None
        reply = self._receive(deadline)
        if reply is None:
            return None
        if "ended" in reply:
            self.lives = False
            return Outcome(failure="crashed", reason=self._death(reply["ended"]))
        if "error" in reply:
            return Outcome(failure="crashed", reason=reply["error"])
        return Outcome(value=reply.get("value"))

    def ended_unasked(self) -> bool:
        """Whether the process died between two calls, which is the fault of neither."""
        return _ready(self._replies, select.POLLIN, 0) or self._gone()

    def kill(self) -> None:
        """Kill the whole group and forget it."""
        # Its number is still its own, even if it has ended, as it was not waited for yet.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for descriptor in (self._requests, self._replies, self._lifeline):
            os.close(descriptor)

    def _send(self, data: bytes, deadline: float) -> bool:
        view = memoryview(data)
        while view:
            if not _ready(self._requests, select.POLLOUT, deadline - time.monotonic()):
                return False
            try:
                view = view[os.write(self._requests, view) :]
            except BrokenPipeError:  # it has died: the reply says so
                return True
        return True

    def _receive(self, deadline: float) -> dict[str, Any] | None:
        while b"\n" not in self._pending:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            if _ready(self._replies, select.POLLIN, min(left, _LOOK_S)):
                data = os.read(self._replies, 1 << 20)
                if not data:
                    return {"ended": None}
                self._pending += data
            elif self._gone():
                return {"ended": None}
        line, _, rest = self._pending.partition(b"\n")
        self._pending = rest
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _gone(self) -> bool:
        # Not reaped here: until `kill` has waited for it, its number cannot pass to a stranger's group.
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _drain(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            while data := output.read1(1 << 16):  # type: ignore[attr-defined]
                self._tail = (self._tail + data)[-_TAIL_BYTES:]

    def _death(self, status: int | None) -> str:
        if status is None:
            how = "its process was ended from outside or killed its own group"
        else:
            how = f"exit code {status}" if status >= 0 else signal.Signals(-status).name
        self._reader.join(_LOOK_S)
        words = self._tail.decode("utf-8", errors="replace").strip().rpartition("\n")[2]
        return f"its process ended ({how})" + (f": {words[-_LONGEST_WORDS:]}" if words else "")


def _ready(descriptor: int, event: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(max(0.0, timeout_s) * 1000))
