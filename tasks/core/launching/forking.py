"""The launcher's side of the fork server: one per process, started early, shared by concurrent launches."""

import atexit
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PRELOAD = (
    "torch",
    "transformers:AutoModelForCausalLM",
    "transformers:AutoTokenizer",
    "peft",
    "trl:SFTTrainer",
)
"""What nearly every stage needs; transformers and trl import their parts only when these are asked for."""

GPU_DEVICES = "/dev/nvidiactl", "/dev/kfd", "/dev/dxg"
"""Without any of these there is no GPU, which spares loading torch to ask."""

_CLOSE_S = 0.2


class Forked:
    """A stage's process that the fork server made."""

    def __init__(self, server: "ForkServer", identity: int) -> None:
        self._server, self._identity = server, identity
        self._ended = threading.Event()
        self._status: int | None = None
        self.pid: int | None = None
        """Process id, which is also the id of its group; None until the server has forked."""

    def wait(self, timeout_s: float) -> int | None:
        """Wait for the end: the exit code, minus a signal's number, or None when `timeout_s` have passed."""
        self._ended.wait(timeout_s)
        return self._status

    def signal(self, number: int) -> None:
        """Send a signal to the whole process group, or, before the fork, right after it."""
        self._server.send({"id": self._identity, "signal": number})

    def end(self, status: int) -> None:
        """Set the exit code that `wait` returns."""
        self._status = status
        self._ended.set()


class ForkServer:
    """A running `python -m tasks.core.launching.forkserver`; safe to use from several threads."""

    def __init__(self, preload: Sequence[str] = PRELOAD) -> None:
        self.preload = tuple(preload)
        for_trainings = _for_trainings() if self.preload == PRELOAD else ()
        self._identities = itertools.count()
        self._forked: dict[int, Forked] = {}
        self._status: int | None = None
        self._lock = threading.Lock()
        # A check through NVML: the ordinary one, made by many libraries on import, breaks CUDA after a fork.
        environment = {**os.environ, "PYTHONPATH": python_path(), "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
        if for_trainings:
            environment["DS_ACCELERATOR"] = "cpu"  # it says so in the terminal otherwise
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tasks.core.launching.forkserver", *self.preload, *for_trainings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C is the launcher's to handle
        )
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, daemon=True, name="forkserver-replies")
        self._reader.start()
        atexit.register(self.close)

    def alive(self) -> bool:
        """Whether the server can take another job."""
        return self._process.poll() is None

    def fork(self, job: Path, environment: dict[str, str]) -> Forked:
        """Start the job in a process of its own; returns at once, also while the server still imports."""
        identity = next(self._identities)
        forked = Forked(self, identity)
        with self._lock:
            if self._status is not None:
                forked.end(self._status)
                return forked
            self._forked[identity] = forked
        self.send({"id": identity, "job": str(job), "environment": environment, "directory": os.getcwd()})
        return forked

    def send(self, request: dict[str, Any]) -> None:
        """Hand the server a line; after its death a no-op, since its children die with it."""
        assert self._process.stdin is not None
        with self._lock, contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()

    def close(self) -> None:
        """End the server and every process it has forked."""
        atexit.unregister(self.close)
        assert self._process.stdin is not None
        with self._lock, contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:  # still importing: nothing is lost
            self._process.kill()
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as replies:
            for line in replies:
                reply = json.loads(line)
                if "pid" in reply:
                    self._forked[reply["id"]].pid = reply["pid"]
                else:
                    self._forked.pop(reply["id"]).end(reply["status"])
        # The server has ended, and whatever it had forked ends with it.
        status = self._process.wait() or -signal.SIGKILL
        with self._lock:
            self._status = status
        for forked in self._forked.values():
            forked.end(status)


_servers: dict[int, ForkServer] = {}
_servers_lock = threading.Lock()


def fork_server(preload: Sequence[str] = PRELOAD) -> ForkServer:
    """This process's server; started when there is none, and again (with its own preload) when it died."""
    with _servers_lock:
        # Looked up by process id: a forked copy of this process must not speak into its parent's pipe.
        server = _servers.get(os.getpid())
        if server is None or not server.alive():
            server = _servers[os.getpid()] = ForkServer(server.preload if server else preload)
        return server


def warm_up(preload: Sequence[str] = PRELOAD) -> None:
    """Let the fork server begin its imports while the caller does something else; takes milliseconds.

    Stages get the environment of their launch, but what a library reads when it is imported (HF_HUB_OFFLINE,
    OMP_NUM_THREADS) must be set by now.
    """
    fork_server(preload)


def _for_trainings() -> tuple[str, ...]:
    """What accelerate imports in every training where it is installed, two seconds each. It looks for GPUs as it is
    imported: where there may be any it is left to the stage's process, as a fork must not inherit their state."""
    gpu = any(os.path.exists(device) for device in GPU_DEVICES)
    return () if gpu or find_spec("deepspeed") is None else ("deepspeed",)


def python_path() -> str:
    """This process's import path, so that whatever is importable here is importable in a stage's process."""
    return os.pathsep.join(entry or os.getcwd() for entry in sys.path)
