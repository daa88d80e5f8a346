"""GPU slots: stages that load a model take turns, whatever run they belong to.

A slot is one of a global concurrency limit on Prefect's server, which `make up` makes. Where there is no such limit
nothing is taken, and nothing by a flow on a temporary server: that one may read the database of a server that was
stopped, but frees no slot of it when its lease is over.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

GPU_SLOTS = "loopwright-gpu"
"""The limit's name; its number is how many stages load a model at once."""

NEXT_IN_LINE = "loopwright-gpu-next"
"""A limit of one, held while a stage waits for a slot. A run that gives its slot back has to come past it to take
another: it cannot keep the slot from stage to stage while a second run waits."""

_LEASE_S = 120.0
"""How long a slot stays taken after its run was killed. A living run renews its lease every 90 seconds."""
_POLL_S = 2.0
_SAY_AGAIN_S = 60.0
_LOCKED = 423

Say = Callable[[str], None]
"""Takes a sentence for the log."""


@contextmanager
def gpu_slot(say: Say) -> Iterator[None]:
    """Hold a GPU slot within the block, where the server has such a limit; `say` is told when it has to wait.

    What a run has begun it ends: a lease that cannot be renewed, and a slot that cannot be given back, are logged, and
    the server frees the slot when the lease is over.
    """
    slots = _slots()
    if slots is None:
        yield
        return
    with ExitStack() as held:
        with ExitStack() as place, _refusals_unlogged():
            _wait(place, NEXT_IN_LINE, slots, say)
            _wait(held, GPU_SLOTS, slots, say)
        yield


@contextmanager
def _refusals_unlogged() -> Iterator[None]:
    """Keep out of the log that a slot is taken: Prefect writes an error each time it is asked, and we say it once a
    minute. What else goes wrong is raised."""

    def by_others(record: logging.LogRecord) -> bool:
        return "ConcurrencySlotAcquisition" not in record.getMessage()

    logger = logging.getLogger("prefect._internal.concurrency")
    logger.addFilter(by_others)
    try:
        yield
    finally:
        logger.removeFilter(by_others)


def _slots() -> int | None:
    """How many slots there are; None where there is no limit, or only a temporary server."""
    from prefect.client.base import ServerType, determine_server_type
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    if determine_server_type() == ServerType.EPHEMERAL:
        return None
    with get_client(sync_client=True) as client:
        try:
            return int(client.read_global_concurrency_limit_by_name(GPU_SLOTS).limit)
        except ObjectNotFound:
            return None


def _wait(stack: ExitStack, limit: str, slots: int, say: Say) -> None:
    """Enter the limit on `stack`, however long that takes."""
    begun = time.monotonic()
    said = float("-inf")
    while not _enter(stack, limit, say):
        now = time.monotonic()
        if now - said >= _SAY_AGAIN_S:
            say(f"waits for a GPU slot, of {slots} ({now - begun:.0f} s so far)")
            said = now
        time.sleep(_POLL_S)


def _enter(stack: ExitStack, limit: str, say: Say) -> bool:
    """Enter the limit on `stack` if that is possible at once."""
    from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
    from prefect.concurrency.sync import concurrency

    # Asked once each time: Prefect's own waiting says nothing and may sleep for a minute beside a free slot.
    # Without raise_on_lease_renewal_failure=False a server that is away for a moment would kill the stage.
    slot = concurrency(
        limit, strict=True, max_retries=0, lease_duration=_LEASE_S, raise_on_lease_renewal_failure=False
    )
    try:
        stack.enter_context(_given_back(slot, say))
    except ConcurrencySlotAcquisitionError as error:
        if getattr(getattr(error.__cause__, "response", None), "status_code", None) == _LOCKED:
            return False
        raise
    return True


@contextmanager
def _given_back(slot: AbstractContextManager[None], say: Say) -> Iterator[None]:
    """Hold `slot` within the block; that it cannot be given back is no reason to lose what was done with it."""
    import httpx

    slot.__enter__()
    try:
        yield
    finally:
        try:
            slot.__exit__(None, None, None)
        except httpx.HTTPError as error:
            say(f"its GPU slot could not be given back ({error}); it is free in {_LEASE_S:.0f} s")
