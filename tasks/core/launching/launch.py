"""Run a heavy stage in processes of its own.

Its memory is free again when it ends, a crash is a result with the tail of its log, and a time-out or a
cancel ends every process that it started.
"""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field

from tasks.core.config import Config
from tasks.core.errors import StageFailed, UserError
from tasks.core.launching.distributed import (
    HOSTS,
    Spawned,
    accelerate_command,
    stage_environment,
    torchrun_command,
)
from tasks.core.launching.endings import conclude, log_tail
from tasks.core.launching.forking import fork_server
from tasks.core.launching.fsdp import asks_for_fsdp, names_machines
from tasks.core.launching.job import (
    LEFT_BY_AN_ATTEMPT,
    METRICS,
    REQUEST,
    RUNNING,
    Event,
    EventReader,
    exclusive,
    wait_until_idle,
    write_json,
)
from tasks.core.launching.nodes import Announced

_POLL_S = 0.2
_DEATH_S = 30.0
"""How long killed processes may take to vanish; an orphan kills itself within a second."""


class LaunchConfig(Config):
    """Where and how long a stage's processes run."""

    processes: int = Field(1, ge=1, le=1024)
    """Processes per machine, usually one per GPU."""
    nodes: int = Field(1, ge=1, le=1024)
    """Machines; more than one need a Slurm allocation, or the pods of infra/kubernetes/train."""
    launcher: Literal["auto", "fork", "torchrun", "accelerate"] = "auto"
    """auto forks a single process from one that has the libraries loaded, and takes torchrun for several."""
    config_file: str = ""
    """An accelerate configuration file (DeepSpeed, FSDP, hosts), for launcher accelerate only. One for FSDP is
    followed on several machines too: torchrun reaches them, as it does without a file."""
    timeout_s: float = Field(0.0, ge=0.0)
    """End the stage, as failed, when it has run for this many seconds; 0 is no limit."""
    grace_s: float = Field(25.0, ge=0.0, le=600.0)
    """Seconds that a stage has after SIGTERM before it is killed: a training writes a checkpoint of the step it is in,
    all else ends at once."""
    mirror_checkpoints: bool = True
    """With a remote store, copy the checkpoints of a training there as they are written; on another machine it goes on
    from them."""
    check_memory: bool = True
    """Refuse a training whose weights, gradients and optimizer alone are more than a device has."""

    @property
    def total(self) -> int:
        """Processes on all machines together."""
        return self.processes * self.nodes


class _Running(Protocol):
    def wait(self, timeout_s: float) -> int | None: ...
    def signal(self, number: int) -> None: ...


def launch(
    function: str,
    config: dict[str, Any],
    inputs: dict[str, Any],
    job: Path,
    *,
    stage: str,
    settings: LaunchConfig,
    on_event: Callable[[Event], None] | None = None,
) -> dict[str, Any]:
    """Call `function` ("module:callable") in its own process group and return the JSON object it returns.

    It is called as `function(config, inputs, out=job / "out", report=report)`; every event it reports reaches
    `on_event` while it runs. Of an earlier attempt in the same folder only log, metrics and result are
    removed. A second launch in the folder waits for the first.

    Raises the UserError or DamagedArtifact that the function raised; StageFailed for a crash, for want of
    memory, for a time-out or an ending without a result. An exception that interrupts the wait, such as
    KeyboardInterrupt, is raised again when the stage has been ended.
    """
    job = job.absolute()
    command = _command(settings, job)
    (job / "out").mkdir(parents=True, exist_ok=True)
    with exclusive(job):
        if not wait_until_idle(job, _DEATH_S):
            mend = f"`fuser -v {job / RUNNING}` names it: end it, and start again."
            raise StageFailed(stage, f"a process of an earlier attempt still runs in {job}", mend=mend)
        for name in LEFT_BY_AN_ATTEMPT:
            (job / name).unlink(missing_ok=True)
        call = {"function": function, "config": config, "inputs": inputs}
        write_json(job / REQUEST, {"stage": stage, "processes": settings.total, **call})
        events = EventReader(job / METRICS)
        deliver = on_event or _ignore
        running = _start(command, job, settings)
        try:
            status = _wait(running, events, deliver, settings.timeout_s)
        finally:
            _end(running, job, settings.grace_s)
        events.deliver(deliver)
        if status is None:
            reason = f"it ran longer than launch.timeout_s allows ({settings.timeout_s:g} s)"
            mend = "Raise launch.timeout_s (0 is no limit), or give the stage less to do."
            raise StageFailed(stage, reason, log_tail=log_tail(job), mend=mend)
        return conclude(job, stage, status)


def check_launch(settings: LaunchConfig) -> None:
    """Raise UserError for settings that contradict each other, and for a configuration file that is missing."""
    if settings.config_file and settings.launcher != "accelerate":
        raise UserError(
            f"only launcher accelerate reads it, and the launcher is {settings.launcher}",
            field="launch.config_file",
            mend="Set launch.launcher to accelerate, or leave the file out.",
        )
    if settings.launcher == "accelerate" and not Path(settings.config_file).is_file():
        raise UserError(
            f"no file {settings.config_file!r}"
            if settings.config_file
            else "launcher accelerate needs a file",
            field="launch.config_file",
            mend="Name a file that `accelerate config` has written.",
        )
    over_machines = settings.launcher == "accelerate" and settings.nodes > 1
    if over_machines and not (_follows_file(settings) or names_machines(settings.config_file)):
        raise UserError(
            "accelerate's launcher starts processes on this machine alone, and the file is not one for FSDP",
            field="launch.nodes",
            mend="Set launch.launcher to auto and leave the file out; for ZeRO set `deepspeed` of the training.",
        )
    if settings.launcher == "fork" and settings.total > 1:
        raise UserError(
            f"launcher fork starts one process, {settings.total} were asked for",
            field="launch.launcher",
            mend="Set it to auto or torchrun.",
        )


def _command(settings: LaunchConfig, job: Path) -> list[str] | None:
    """The launcher program's command line; None to fork."""
    check_launch(settings)
    if settings.launcher == "accelerate" and not _follows_file(settings):
        return accelerate_command(settings, job)
    if settings.launcher == "torchrun" or settings.total > 1:
        return torchrun_command(settings, job)
    return None


def _follows_file(settings: LaunchConfig) -> bool:
    """Whether torchrun starts processes that follow accelerate's file by themselves."""
    return settings.nodes > 1 and asks_for_fsdp(settings.launcher, settings.config_file)


def _start(command: list[str] | None, job: Path, settings: LaunchConfig) -> _Running:
    environment = stage_environment()
    if command is None:
        return fork_server().fork(job, environment)
    if HOSTS in command:
        return Announced(command, job, environment, settings.processes, settings.grace_s)
    return Spawned(command, job, environment, settings.processes, settings.grace_s)


def _wait(
    running: _Running, events: EventReader, deliver: Callable[[Event], None], timeout_s: float
) -> int | None:
    """The exit code, or None when the time is up."""
    deadline = time.monotonic() + timeout_s if timeout_s else float("inf")
    while (status := running.wait(_POLL_S)) is None and time.monotonic() < deadline:
        events.deliver(deliver)
    return status


def _end(running: _Running, job: Path, grace_s: float) -> None:
    """Leave no process behind: neither a stage that still runs, nor one that it started and left."""
    try:
        if running.wait(0) is None:
            running.signal(signal.SIGTERM)
            running.wait(grace_s)
    finally:
        running.signal(signal.SIGKILL)
        running.wait(_DEATH_S)
        wait_until_idle(job, _DEATH_S)


def _ignore(event: Event) -> None:
    """What becomes of events that nobody asked for."""
