"""Start what does not run, and leave what does alone."""

import os
import subprocess
import sys

from deployments.service.automations import OWN_FILE, automate
from deployments.service.config import POOL, ROOT, ServiceConfig
from deployments.service.databases import prepare_database
from deployments.service.deploying import is_deployed
from deployments.service.health import ServiceFailed, wait_until_healthy
from deployments.service.interrupted import lost, other_workers, put_back, under_way
from deployments.service.ports import check_free
from deployments.service.processes import Record, find, left_over, start, stop
from deployments.service.slots import prepare_slots
from deployments.service.stack import WORKER, Service, call, environment, services
from tasks.core.errors import UserError
from tasks.core.launching.job import exclusive

_PATIENCE_WITH_RUNNING_S = 15.0


def up(config: ServiceConfig) -> dict[str, str]:
    """Bring the whole service up, every flow deployed; returns what was done with each service, by its name.

    Raises UserError for a port that is taken and for settings that differ from those of a running service, and
    ServiceFailed, with the end of the log, for a service that does not come up.
    """
    with exclusive(config.state):
        *servers, worker = services(config, os.environ)
        for service in (*servers, worker):
            _check_settings(config, service)
        prepare_database(config)
        kept = {service.name: _running(config, service) for service in servers}
        for service in servers:  # before the first is started, so that a taken port leaves nothing behind
            if kept[service.name] is None:
                _clear(config, service)
        begun = {one.name: kept[one.name] or _start(config, one) for one in servers}
        for service in servers:
            _wait(config, service, begun[service.name])
        _make_pool(config)
        deploying = None if is_deployed(config) else _deploy(config)
        running = _running(config, worker)
        if running is None:
            _reclaim(config)
        prepare_slots(config)
        automate(config, OWN_FILE)
        worked = running or _start(config, worker)
        kept[WORKER] = running
        if deploying and deploying.wait() != 0:
            raise UserError("the flows could not be deployed", mend="see above")
        _wait(config, worker, worked)
    return {name: "started" if record is None else "runs" for name, record in kept.items()}


def _check_settings(config: ServiceConfig, service: Service) -> None:
    record = find(config.state, service.name)
    if record is not None and record.alive and record.settings != service.settings:
        raise UserError(
            f"{service.name} runs with other settings (ports, database, folder of the store or telemetry)",
            mend="`make down` first, or give the settings it was started with",
        )


def _running(config: ServiceConfig, service: Service) -> Record | None:
    """The record of a service that is well; one that lives and does not answer for a while is not."""
    record = find(config.state, service.name)
    if record is None or not record.alive:
        return None
    try:
        wait_until_healthy(
            record, lambda: service.healthy(record), state=config.state, patience_s=_PATIENCE_WITH_RUNNING_S
        )
    except ServiceFailed:
        return None
    return record


def _clear(config: ServiceConfig, service: Service) -> None:
    """Make room for a service: end what is left of it, and make sure that nobody else has its port."""
    if service.replaces and left_over(config.state, service.name):
        stop(config.state, service.name, grace_s=service.grace_s)
    if service.port:
        check_free(service.host, service.port, field=service.port_field)


def _start(config: ServiceConfig, service: Service) -> Record:
    return start(
        service.name,
        service.command,
        state=config.state,
        environment=service.environment,
        cwd=ROOT,
        settings=service.settings,
    )


def _wait(config: ServiceConfig, service: Service, record: Record) -> None:
    wait_until_healthy(
        record, lambda: service.healthy(record), state=config.state, patience_s=service.patience_s
    )


def _make_pool(config: ServiceConfig) -> None:
    answer = call(config, "POST", "/work_pools/", {"name": POOL, "type": "process"})
    if answer.status_code != 409:  # it is there
        answer.raise_for_status()


def _reclaim(config: ServiceConfig) -> None:
    """Put back the runs that a killed worker left: those that Prefect has found without a process, and those under way
    where it is certain that nobody works on them."""
    if left_over(config.state, WORKER):
        return
    left = lost(config) if other_workers(config) else [*under_way(config), *lost(config)]
    for name in put_back(config, left, "its worker was killed"):
        print(f"run {name} had lost its process; it is started again", file=sys.stderr)


def _deploy(config: ServiceConfig) -> "subprocess.Popen[bytes]":
    """In a process of its own: importing the flows takes seconds, in which the worker can start."""
    command = [sys.executable, "-m", "deployments.service.deploying"]
    return subprocess.Popen(command, cwd=ROOT, env=environment(config, os.environ))
