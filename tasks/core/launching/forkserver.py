"""A process that imports the heavy libraries once and forks a stage's process from itself in milliseconds.

Importing torch, transformers, peft and trl takes five seconds or more, a loop has a dozen stages. The server
reads JSON lines from standard input, `{"id", "job", "environment", "directory"}` to fork and
`{"id", "signal"}` to signal that child's process group, and answers with `{"id", "pid"}` and
`{"id", "status"}`. At the end of its input, which is also what a killed parent leaves behind, it kills every
child's group and exits.

It has to stay fork-safe, or the children hang: no parallel region, no CUDA context, and no threads but the
idle pools of OpenBLAS and Arrow, which make themselves new ones after a fork.
"""

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from tasks.core.launching.child import resolve, run_and_exit


class _Server:
    def __init__(self, replies: int) -> None:
        self._replies = replies
        self._pids: dict[int, int] = {}
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = socket.socketpair()

    def serve(self) -> None:
        self._wake.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(0, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        pending = b""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._woken:
                    self._woken.recv(4096)
                    self._reap()
                    continue
                data = os.read(0, 65536)
                if not data:
                    self._kill_all()
                    return
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    self._obey(json.loads(line))

    def _obey(self, request: dict[str, Any]) -> None:
        if "signal" not in request:
            self._fork(request)
        elif pid := self._pids.get(request["id"]):
            os.killpg(pid, request["signal"])

    def _fork(self, request: dict[str, Any]) -> None:
        pid = os.fork()
        if pid == 0:
            self._become_child(request)
        # Set on both sides, so that the group exists for whichever of the two goes on first.
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpgid(pid, pid)
        self._pids[request["id"]] = pid
        self._reply({"id": request["id"], "pid": pid})

    def _become_child(self, request: dict[str, Any]) -> NoReturn:
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._selector.close()
        self._woken.close()
        self._wake.close()
        os.close(self._replies)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["directory"])
        sys.path[:] = os.environ["PYTHONPATH"].split(os.pathsep)
        run_and_exit(Path(request["job"]))

    def _reap(self) -> None:
        for identity, pid in list(self._pids.items()):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                continue
            # Before the child is reaped, its number cannot have passed to a stranger's group.
            os.killpg(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            del self._pids[identity]
            self._reply({"id": identity, "status": os.waitstatus_to_exitcode(status)})

    def _kill_all(self) -> None:
        for pid in self._pids.values():
            os.killpg(pid, signal.SIGKILL)

    def _reply(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # the parent is gone: the end of the input follows
            os.write(self._replies, json.dumps(message).encode() + b"\n")


def main(preload: Sequence[str]) -> None:
    """Import `preload` ("module" or "module:attribute"), then serve until the end of standard input."""
    replies = os.dup(1)
    os.dup2(2, 1)  # what an import prints must not fall among the replies
    for name in preload:
        resolve(name)
    warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)  # see above
    sys.stdout.flush()  # or every child would print it again
    # Keeps the collector from writing into, and so copying, the pages that parent and children share.
    gc.freeze()
    _Server(replies).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
