"""An end that is announced: schedulers send SIGTERM before they take a machine away, and a cancel does the same. A
training that heeds it writes a checkpoint first."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class EndedEarly(Exception):
    """A training has ended because it was asked to, behind a checkpoint."""


@contextmanager
def heeding_termination() -> Iterator[Callable[[], bool]]:
    """Within it SIGTERM does not end this process but makes the yielded function true, which says whether any of the
    processes that train together was asked to end; all of them have to call it equally often.

    Outside of the main thread, where no signal can be heard, it is always false.
    """
    asked = False

    def ask(number: int, frame: object) -> None:
        nonlocal asked
        asked = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield lambda: _any_process(asked)
    finally:
        signal.signal(signal.SIGTERM, before)


def _any_process(asked: bool) -> bool:
    import torch
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return asked
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    count = torch.tensor([float(asked)], device=device)
    dist.all_reduce(count)
    return bool(count.item())
