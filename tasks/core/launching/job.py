"""The job folder: the files through which a launcher and the processes of one stage speak to each other.

`config.json` goes in; `result.json` (or `error.json`), `metrics.jsonl` and `log.txt` come out. `out/` and
`checkpoints/` outlive an attempt, so that the next one resumes.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REQUEST = "config.json"
RESULT = "result.json"
ERROR = "error.json"
METRICS = "metrics.jsonl"
LOG = "log.txt"
LAUNCHER_LOG = "launcher.txt"
GROUPS = "groups.txt"
LOCK = "lock"
RUNNING = "running"

LEFT_BY_AN_ATTEMPT = (RESULT, ERROR, METRICS, LOG, LAUNCHER_LOG, GROUPS)
"""Removed before the next attempt; everything else stays."""

Event = dict[str, Any]
"""One line of metrics.jsonl: figures with their step, or `{"progress": [done, total], "text": …}`."""

_POLL_S = 0.1


def write_json(path: Path, value: object) -> None:
    """Write `value` so that the file either holds all of it or is not there, whenever the machine stops."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


@contextmanager
def exclusive(job: Path) -> Iterator[None]:
    """Hold the job folder for one launch, waiting for whoever holds it.

    A kernel lock and not a file that says "taken": it is gone the moment its holder dies.
    """
    with (job / LOCK).open("ab") as file:
        # Polled, because a blocking wait outside the main thread could not be cancelled.
        while not _try_lock(file.fileno()):
            time.sleep(_POLL_S)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def mark_running(job: Path) -> None:
    """Mark the folder as in use until this process, and every process forked from it, is dead."""
    fcntl.flock(os.open(job / RUNNING, os.O_RDWR | os.O_CREAT, 0o644), fcntl.LOCK_SH)


def wait_until_idle(job: Path, patience_s: float) -> bool:
    """Wait until no process that called `mark_running` lives; False when one does after `patience_s`."""
    deadline = time.monotonic() + patience_s
    with (job / RUNNING).open("ab") as file:
        while not _try_lock(file.fileno()):
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
    return True


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class EventWriter:
    """Appends events to a metrics file, each with the time it happened at (seconds since 1970)."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def __call__(self, event: Event) -> None:
        self._file.write(json.dumps({**event, "time": time.time()}).encode() + b"\n")


class EventReader:
    """Reads a metrics file while it grows; delivers a line once, and only when its end has been written."""

    def __init__(self, path: Path) -> None:
        self._path, self._position = path, 0

    def deliver(self, on_event: Callable[[Event], None]) -> None:
        """Call `on_event` with every event that was completed since the last call."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._position += len(line)
                on_event(json.loads(line))
