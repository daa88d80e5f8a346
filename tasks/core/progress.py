"""Progress of long work: a bar in a terminal, a line now and then elsewhere."""

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

_EVERY_S = 5.0  # how often a log line is written and Prefect's artifact updated


class _Line:
    """The terminal's last line: of stages that run side by side, the one that began to draw there first draws on until
    it ends, and the others show only that they ended."""

    def __init__(self) -> None:
        self._owner: Progress | None = None
        self._lock = threading.Lock()

    def draw(self, progress: "Progress", bar: str) -> None:
        with self._lock:
            self._owner = self._owner or progress
            if self._owner is progress:
                print(f"\r\033[K{bar}", end="", file=sys.stderr, flush=True)

    def end(self, progress: "Progress", words: str, *, terminal: bool) -> None:
        with self._lock:
            if self._owner is progress:
                self._owner = None
            clear = "\r\033[K" if terminal else ""
            print(f"{clear}{words}", file=sys.stderr, flush=True)


_LINE = _Line()


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

    def say(self, words: str) -> None:
        """Tell, at once, why nothing moves."""
        if self._terminal:
            _LINE.draw(self, f"{self.label}: {words}")
        else:
            print(f"{self.label}: {words}", file=sys.stderr, flush=True)
        if self._publish:
            self._publish(0.0)  # so that the page shows the stage before its first step

    def close(self, words: str = "done") -> None:
        """Say that the stage ended."""
        seconds = time.monotonic() - self._begun
        _LINE.end(self, f"{self.label}: {words} ({seconds:.1f} s)", terminal=self._terminal)

    def _bar(self, done: int, total: int) -> None:
        width = 28
        filled = width * done // max(total, 1)
        bar = "━" * filled + " " * (width - filled)
        _LINE.draw(self, f"{self.label} {bar} {done}/{total} {self._text}")
