"""How long a training's steps take."""

import time
from statistics import median
from typing import Any

from tasks.core.stage import Report


class TimedReport:
    """A stage's report that also takes the time between one step's figures and the next's."""

    def __init__(self, report: Report) -> None:
        self._report, self._last = report, time.perf_counter()
        self._seconds: list[float] = []

    def __call__(self, event: dict[str, Any]) -> None:
        """Pass the event on."""
        if "step" in event:
            now = time.perf_counter()
            self._seconds.append(now - self._last)
            self._last = now
        self._report(event)

    @property
    def step_s(self) -> float:
        """Median seconds of the steps taken in this process; 0 when there was none (all came from a checkpoint)."""
        return median(self._seconds) if self._seconds else 0.0
