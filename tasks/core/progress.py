"""Progress of long work: a bar in a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable
from typing import Any

_EVERY_S = 5.0  # how often a log line is written and Prefect's artifact updated


class Progress:
    """Shows the events of one stage; call it with each event, and `close` it in the end."""

    def __init__(self, label: str, publish: Callable[[float], None] | None = None) -> None:
        """`publish` takes the per cent done, now and then."""
        self.label = label
        self._publish = publish
        self._last = 0.0
        self._begun = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._text = ""

    def __call__(self, event: dict[str, Any]) -> None:
        """Take an event: {"progress": [done, total], "text": …}; other events are not for showing."""
        if "progress" not in event:
            return
        done, total = event["progress"]
        self._text = event.get("text", self._text)
        finished, now = done >= total, time.monotonic()
        if self._terminal:
            self._bar(done, total)
        if now - self._last < _EVERY_S and not finished:
            return
        self._last = now
        if not self._terminal:
            print(f"{self.label}: {done}/{total} {self._text}".rstrip(), file=sys.stderr, flush=True)
        if self._publish:
            self._publish(100.0 * done / max(total, 1))

    def close(self, words: str = "done") -> None:
        """Say that the stage ended."""
        seconds = time.monotonic() - self._begun
        end = "\r\033[K" if self._terminal else ""
        print(f"{end}{self.label}: {words} ({seconds:.1f} s)", file=sys.stderr, flush=True)

    def _bar(self, done: int, total: int) -> None:
        width = 28
        filled = width * done // max(total, 1)
        bar = "━" * filled + " " * (width - filled)
        print(f"\r\033[K{self.label} {bar} {done}/{total} {self._text}", end="", file=sys.stderr, flush=True)
