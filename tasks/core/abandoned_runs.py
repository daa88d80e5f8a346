"""Runs in MLflow whose process was killed before it could end them: a later flow run on the same machine does.

A run is only ended here when it is certain that its process is gone. On a server that many share, other machines and
other containers (which share a host's boot but not its process ids) are never judged.
"""

import os
import socket
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from tasks.core.tracking import Tracking

HOST, BOOT, NAMESPACE, PROCESS = "process.host", "process.boot", "process.namespace", "process.id"
"""Tags that name a run's process: the machine, its boot, the process ids' namespace, the id with its start."""

KILLED = "its process was killed; a later run found it gone"

_ROOT_NAMESPACE = "pid:[4026531836]"
"""The kernel's fixed number: not inside a container."""


def process_tags() -> dict[str, str]:
    """The tags that name the calling process."""
    pid = os.getpid()
    return {**_machine(), PROCESS: f"{pid} {_start(pid)}"}


def end_abandoned(tracking: "Tracking") -> list[str]:
    """End, as KILLED, the experiment's runs that are RUNNING in processes of this machine which are gone.

    Returns their ids. Runs of other machines, of other containers, of living processes and of other experiments are
    left alone; so is a run without these tags.
    """
    running = f"attributes.status = 'RUNNING' and tags.`{HOST}` = '{_machine()[HOST]}'"
    ended = []
    for run in tracking.search(running):
        if _gone(run.data.tags, one_machine=tracking.local):
            tracking.tag(run.info.run_id, "failure", KILLED)
            tracking.finish(run.info.run_id, "KILLED")
            ended.append(run.info.run_id)
    return ended


def _gone(tags: dict[str, str], *, one_machine: bool) -> bool:
    """`one_machine`: no other machine of the same name can have written the run."""
    here, there = _machine(), {name: tags.get(name, "") for name in (HOST, BOOT, NAMESPACE)}
    if there == here:
        pid, _, start = tags[PROCESS].partition(" ")
        return not _lives(int(pid), start)
    outside = here[NAMESPACE] == there[NAMESPACE] == _ROOT_NAMESPACE
    return (
        one_machine and outside and here[HOST] == there[HOST]
    )  # and the machine has been started again since


@cache
def _machine() -> dict[str, str]:
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    return {
        HOST: socket.gethostname(),
        BOOT: boot.read_text().strip() if boot.exists() else str(int(psutil.boot_time())),
        NAMESPACE: os.readlink(namespace) if namespace.is_symlink() else "",
    }


def _lives(pid: int, start: str) -> bool:
    """Whether the process that began at `start` is alive; True where that cannot be known."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return _start(pid) in (start, "")


def _start(pid: int) -> str:
    """When a process began, in a form that no change of the clock touches; "dead" for one that only waits to be
    collected by its parent, empty where it cannot be read."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        # The name in brackets may hold anything. After it: the state, and 19 fields on the ticks since boot.
        fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return "" if Path("/proc/self/stat").exists() else _start_by_clock(pid)
    return "dead" if fields[0] in "ZX" else fields[19]


def _start_by_clock(pid: int) -> str:
    try:
        return str(psutil.Process(pid).create_time())
    except psutil.Error:
        return ""
