"""Stop what `up` started, and nothing else."""

import os
from collections.abc import Iterator

import httpx

from deployments.service.config import ServiceConfig
from deployments.service.interrupted import other_workers, put_back, under_way
from deployments.service.processes import find, left_over, stop
from deployments.service.stack import WORKER, services
from tasks.core.launching.job import exclusive


def down(config: ServiceConfig) -> Iterator[str]:
    """End the worker, then the servers; says what it did, a line each.

    Runs under way are put back into the queue: the next `up` goes on with them. Where other machines work for the pool
    too none is, for it may be theirs and go on: Prefect says which are lost, when they send no heartbeats any more.
    """
    with exclusive(config.state):
        for service in reversed(services(config, os.environ)):
            there = left_over(config.state, service.name)
            if not there and find(config.state, service.name) is None:
                continue
            try:
                ours = service.name == WORKER and there and not other_workers(config)
                runs = under_way(config) if ours else []
            except httpx.HTTPError:  # the server is gone: the next `up` finds what it was about
                runs = []
            count = stop(config.state, service.name, grace_s=service.grace_s)
            if runs:
                for name in put_back(config, runs, "make down"):
                    yield f"run {name} was interrupted; the next `make up` goes on with it"
            yield f"{service.name}: {f'stopped ({count} processes)' if count else 'had ended by itself'}"
