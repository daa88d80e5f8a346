"""What a training costs: the time of a step, and the most memory the process held."""

import time
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import TrainerCallback


class StepClock:
    """Times the optimizer steps of a trainer."""

    def __init__(self) -> None:
        self._seconds: list[float] = []

    def callback(self) -> "TrainerCallback":
        """What the trainer calls."""
        from transformers import TrainerCallback

        seconds = self._seconds

        class Timing(TrainerCallback):
            begun = 0.0

            def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                self.begun = time.perf_counter()

            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                seconds.append(time.perf_counter() - self.begun)

        return Timing()

    @property
    def step_s(self) -> float:
        """Median seconds of the steps taken in this process; 0 when there was none (all came from a checkpoint)."""
        return median(self._seconds) if self._seconds else 0.0


def peak_memory_gb() -> float:
    """The most memory this process has held so far, in GB (10^9 bytes): the GPU's where there is one."""
    import resource

    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated()) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
