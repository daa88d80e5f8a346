"""Whether a service answers, and what its log says when it does not."""

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import httpx

from deployments.service.processes import Record, log_file

_POLL_S = 0.2
_TAIL_LINES = 20


class ServiceFailed(Exception):
    """A service that did not come up; shows the end of its log."""

    def __init__(self, name: str, reason: str, log: Path) -> None:
        self.name = name
        super().__init__(f"{name} {reason}; the end of {log}:\n" + log_tail(log))


def wait_until_healthy(
    record: Record, healthy: Callable[[], bool], *, state: Path, patience_s: float
) -> None:
    """Return as soon as `healthy()`; raises ServiceFailed when the process ends before or the time is over."""
    deadline = time.monotonic() + patience_s
    while not healthy():
        if not record.alive:
            raise ServiceFailed(record.name, "ended", log_file(state, record.name))
        if time.monotonic() > deadline:
            raise ServiceFailed(
                record.name, f"did not answer in {patience_s:.0f} s", log_file(state, record.name)
            )
        time.sleep(_POLL_S)


def answers(url: str) -> bool:
    """Whether a GET is answered with success."""
    try:
        return client().get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False


@cache
def client() -> httpx.Client:
    """One for all requests: making one reads every certificate of the system, which takes longer than most answers."""
    return httpx.Client()


def log_tail(log: Path) -> str:
    """The last lines of a log, indented."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return "\n".join(f"    {line}" for line in lines[-_TAIL_LINES:])
