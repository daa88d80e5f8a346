"""Processes that outlive the command that started them: their records, and an end to exactly these.

A record names a process by its id and its birth, so that an id the kernel gave to somebody else is never mistaken for
ours. All that a process starts inherits a mark in its environment, by which it is found when its parent is gone.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

import psutil

from tasks.core.launching.job import write_json

MARK = "LOOPWRIGHT_SERVICE"
"""The environment variable that names the service, and the folder's own token, of all processes of a service."""

_POLL_S = 0.05


@dataclass(frozen=True)
class Record:
    """A process that was started: who it is, since when (seconds of the clock), and what it was told, as a digest."""

    name: str
    pid: int
    birth: str
    since: float
    settings: str

    @property
    def alive(self) -> bool:
        """Whether this very process runs; one that only waits to be collected by its parent does not."""
        return birth(self.pid) == self.birth


def start(
    name: str,
    command: Sequence[str],
    *,
    state: Path,
    environment: Mapping[str, str],
    cwd: Path,
    settings: str,
) -> Record:
    """Start a process in a session of its own, its output appended to `state`/NAME.log, and record it."""
    begun = time.time()
    with log_file(state, name).open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={**environment, MARK: _mark(state, name)},
            start_new_session=True,
        )
    process.returncode = 0  # it is to outlive this process: nobody waits for it, and Python need not warn
    record = Record(name, process.pid, birth(process.pid), begun, settings)
    write_json(_record_file(state, name), asdict(record))
    return record


def find(state: Path, name: str) -> Record | None:
    """The record of the process that was started last, whether or not it lives."""
    file = _record_file(state, name)
    return Record(**json.loads(file.read_text(encoding="utf-8"))) if file.exists() else None


def left_over(state: Path, name: str) -> list[psutil.Process]:
    """All living processes of a service, wherever in the tree: the recorded one and whatever it started."""
    mark, record = _mark(state, name), find(state, name)
    found = []
    for process in psutil.process_iter():
        try:
            ours = process.environ().get(MARK) == mark and process.pid != os.getpid()
        except psutil.Error:  # gone by now, or another user's
            continue
        leader = record is not None and process.pid == record.pid and record.alive
        if (ours or leader) and _lives(process):
            found.append(process)
    return found


def stop(state: Path, name: str, *, grace_s: float) -> int:
    """Ask all processes of a service to end, and end what has not after `grace_s` seconds; returns how many there were.

    The recorded process ends those beneath it in its own way; where it is gone, each is asked.
    """
    record, remaining = find(state, name), left_over(state, name)
    count = len(remaining)
    if record is not None and record.alive:
        _signal_group(record.pid, signal.SIGTERM)
    else:
        for process in remaining:
            _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while remaining and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        remaining = left_over(state, name)
    while remaining:
        for process in remaining:
            _signal(process, signal.SIGKILL)
        time.sleep(_POLL_S)
        remaining = left_over(state, name)
    _record_file(state, name).unlink(missing_ok=True)
    return count


def birth(pid: int) -> str:
    """What tells a process from every other of its id, before or after: the machine's boot and the tick it began in.

    Empty when there is none that runs.
    """
    stat = Path(f"/proc/{pid}/stat")
    if not Path("/proc/self/stat").exists():
        return _birth_by_clock(pid)
    try:
        # The name in brackets may hold anything. After it: the state, and 19 fields on the ticks since boot.
        fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return "" if fields[0] in "ZX" else f"{boot} {fields[19]}"


def log_file(state: Path, name: str) -> Path:
    """Where a service's output goes."""
    return state / f"{name}.log"


def _birth_by_clock(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else str(process.create_time())
    except psutil.Error:
        return ""


def _record_file(state: Path, name: str) -> Path:
    return state / f"{name}.json"


def _mark(state: Path, name: str) -> str:
    """The mark of a service in this folder: a token that no other folder has, and the service's name."""
    file = state / "token"
    if not file.exists():
        temporary = file.with_name(f"token.{os.getpid()}")
        temporary.write_text(uuid4().hex)
        temporary.replace(file)
    return f"{file.read_text()}:{name}"


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD))
    except psutil.NoSuchProcess:
        return False


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)  # psutil makes sure that the id is still that process's
    except psutil.NoSuchProcess:
        return


def _signal_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return
