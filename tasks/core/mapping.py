"""Several calls of one stage at once, on whatever the flow's task runner has: threads, processes, or a cluster."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from tasks.core.stage_task import StageCall
from tasks.core.task_runners import lost_worker


def completed(
    calls: Sequence[StageCall[Any, Any, Any]], records: Any, retries: int, at_once: int
) -> Iterator[tuple[int, float | None]]:
    """Submit the calls, never more than `at_once` unfinished ones, and yield each when it has ended: its number from 0
    and the seconds that it computed, None where its result existed.

    A call that fails raises what it raised, and no further one is submitted then.
    """
    from prefect.futures import PrefectFuture, as_completed

    waiting = iter(enumerate(calls))
    under_way: dict[PrefectFuture[Any], int] = {}
    for _ in calls:
        for number, call in islice(waiting, at_once - len(under_way)):
            under_way[call.as_task(records, retries).submit()] = number
        future = next(as_completed(list(under_way)))
        try:
            record = future.result()
        except Exception as error:
            if failure := lost_worker(error, calls[under_way[future]].stage.name):
                raise failure from error
            raise
        yield under_way.pop(future), None if future.state.name == "Cached" else record["seconds"]
