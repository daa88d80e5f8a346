"""Ctrl-C for work in other threads: a signal reaches the main thread alone, which passes it on.

A thread that waits for a stage's process ends that process when an exception interrupts the wait, so the exception has
to be raised there. Only CPython can do that from outside; Prefect's own task time-outs are made the same way.
"""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_at_work: dict[str, set[int]] = {}
"""The threads of each group that are inside `interruptible`, by their identifiers."""
_interrupted: set[str] = set()


@contextmanager
def interruptible(group: str) -> Iterator[None]:
    """Within the block `interrupt(group)` raises KeyboardInterrupt in this thread; after it, the block is not entered.

    The main thread, and a group without a name, are left alone. In another process than that which interrupts there is
    no effect.
    """
    thread = threading.get_ident()
    if not group or threading.current_thread() is threading.main_thread():
        yield
        return
    with _lock:
        if group in _interrupted:
            raise KeyboardInterrupt
        _at_work.setdefault(group, set()).add(thread)
    try:
        yield
    finally:
        with _lock:
            _at_work[group].discard(thread)


def interrupt(group: str) -> None:
    """Raise KeyboardInterrupt in every thread of the group, at its next Python instruction, and in those to come."""
    # Under the lock no thread can leave its block: the exception is never raised in what it does afterwards.
    with _lock:
        _interrupted.add(group)
        for thread in _at_work.get(group, ()):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread), ctypes.py_object(KeyboardInterrupt)
            )


@contextmanager
def interrupting(group: str) -> Iterator[None]:
    """Interrupt the group when the block ends with an exception, Ctrl-C among them."""
    try:
        yield
    except BaseException:
        interrupt(group)
        raise
