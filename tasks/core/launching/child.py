"""The inside of a stage's own process: call the stage's function, leave its result in the job folder.

Run as `python -m tasks.core.launching.child JOB` by torchrun and accelerate, or forked by the fork server.
"""

import faulthandler
import importlib
import io
import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

import psutil

from tasks.core.errors import DamagedArtifact, UserError
from tasks.core.launching.job import (
    ERROR,
    GROUPS,
    LOG,
    METRICS,
    REQUEST,
    RESULT,
    Event,
    EventWriter,
    mark_running,
    write_json,
)

LAUNCHER = "LOOPWRIGHT_LAUNCHER"
"""Environment variable that names the launching process: host, process id, time of creation."""

_WATCH_S = 0.5


def this_process() -> str:
    """The value of `LAUNCHER` that names the calling process."""
    process = psutil.Process()
    return f"{socket.gethostname()} {process.pid} {process.create_time()}"


def resolve(name: str) -> Any:
    """The object called `module:attribute`, or the module itself when no attribute is named."""
    module, _, attribute = name.partition(":")
    found: Any = importlib.import_module(module)
    return getattr(found, attribute) if attribute else found


def run_and_exit(job: Path) -> NoReturn:
    """Run the job and end this process: 0 with a result, 2 after a mendable error, 1 after a crash."""
    status = 1
    try:
        status = run(job)
    finally:
        if sys.exc_info()[0] is not None:
            sys.excepthook(*sys.exc_info())
        sys.stdout.flush()
        sys.stderr.flush()
        # Not sys.exit: a thread or an exit handler that a library left behind must not hold the stage up.
        os._exit(status)


def run(job: Path) -> int:
    """Call the function that `config.json` in `job` names and write what it returns; the exit code."""
    _log_to(job / LOG)
    _die_with_launcher()
    mark_running(job)
    _announce_group(job / GROUPS)
    request = json.loads((job / REQUEST).read_text(encoding="utf-8"))
    rank = int(os.environ.get("RANK", "0"))
    try:
        if rank == 0:
            _check_world_size(request["processes"])
        if request["processes"] > 1:
            _choose_deepspeed_device()
        function = resolve(request["function"])
        report = EventWriter(job / METRICS) if rank == 0 else _ignore
        result = function(request["config"], request["inputs"], out=job / "out", report=report)
    except UserError as error:
        print(error, file=sys.stderr)
        mendable = {"kind": "user", "fault": error.fault, "field": error.field, "mend": error.mend}
        write_json(job / ERROR, mendable)
        return 2
    except DamagedArtifact as error:
        print(error, file=sys.stderr)
        write_json(
            job / ERROR, {"kind": "damaged", "uri": error.uri, "file": error.file, "reason": error.reason}
        )
        return 2
    if rank == 0:
        write_json(job / RESULT, result)
    return 0


def _log_to(path: Path) -> None:
    """Send what this process and its children print to the job's log."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    assert isinstance(sys.stdout, io.TextIOWrapper)
    # A process that is killed cannot flush: what it printed must be in the log already.
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    faulthandler.enable()


def _die_with_launcher() -> None:
    """Kill this process group as soon as the process that launched it, or its own parent, is gone."""
    host, pid, created = os.environ[LAUNCHER].split()
    launcher = None
    if host == socket.gethostname():  # on the other machines of a job only the parent can be watched
        try:
            launcher = psutil.Process(int(pid))
        except psutil.NoSuchProcess:
            _kill_own_group()
        # Compared once only: a creation time is derived from the clock, which may be set while a stage runs.
        if abs(launcher.create_time() - float(created)) > 2:
            _kill_own_group()
    watch = threading.Thread(target=_watch, args=(launcher, os.getppid()), daemon=True, name="launcher-watch")
    watch.start()


def _watch(launcher: psutil.Process | None, parent: int) -> None:
    while os.getppid() == parent and (launcher is None or _lives(launcher)):
        time.sleep(_WATCH_S)
    _kill_own_group()


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _kill_own_group() -> NoReturn:
    os.killpg(0, signal.SIGKILL)
    raise AssertionError("unreachable: SIGKILL was sent to the calling process")


def _announce_group(path: Path) -> None:
    """torchrun gives each rank a group of its own: the launcher learns from this file which ones to end."""
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{socket.gethostname()} {os.getpgid(0)}\n")


def _check_world_size(wanted: int) -> None:
    """Some launchers start one process without a word when they cannot start several."""
    running = int(os.environ.get("WORLD_SIZE", "1"))
    if running != wanted:
        raise UserError(
            f"{wanted} processes were asked for, {running} came up",
            field="launch.processes",
            mend="Set launch.launcher to torchrun, or make num_processes in launch.config_file agree.",
        )


def _choose_deepspeed_device() -> None:
    """Without an accelerator DeepSpeed must be told to use the CPU before it is imported."""
    import torch

    if not torch.accelerator.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def _ignore(event: Event) -> None:
    """The report of every rank but the first."""


if __name__ == "__main__":
    run_and_exit(Path(sys.argv[1]))
