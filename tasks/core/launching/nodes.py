"""Several machines without a scheduler that starts processes on them, such as the pods of a Kubernetes job.

The first machine runs the flow. For a stage on several it leaves an announcement in a folder that all of them share,
and every other machine, which runs `python -m tasks.core.launching.nodes`, starts its part: the same torchrun, which
meets the others at the first one's address.
"""

import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from types import FrameType
from uuid import uuid4

from tasks.core.errors import UserError
from tasks.core.launching.distributed import FOLDER, HOSTS, MEETS, Spawned, stage_environment
from tasks.core.launching.job import write_json

_POLL_S = 0.5
_FAILED = ".failed"


class Announced(Spawned):
    """A launcher program on this machine, announced to the others for as long as it runs."""

    def __init__(
        self, command: list[str], job: Path, environment: dict[str, str], processes: int, grace_s: float
    ) -> None:
        folder = Path(os.environ[FOLDER])
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / f"{uuid4().hex}.json"
        words = [MEETS if word == HOSTS else word for word in command[1:]]  # each machine has its own Python
        asked = {"command": words, "job": str(job), "processes": processes, "grace_s": grace_s}
        write_json(self._file, asked)
        try:
            super().__init__(command, job, environment, processes, grace_s)
        except BaseException:
            self._file.unlink()
            raise

    def wait(self, timeout_s: float) -> int | None:
        """As in `Spawned`; the part of another machine that failed ends this one's, which would wait for it."""
        status = super().wait(timeout_s)
        if status is None and self._file.with_suffix(_FAILED).exists():
            self.signal(signal.SIGTERM)
        return status

    def signal(self, number: int) -> None:
        """As in `Spawned`; the other machines end their parts by themselves when the announcement is gone."""
        self._file.unlink(missing_ok=True)
        super().signal(number)


def follow(folder: Path, stopped: threading.Event) -> None:
    """Take part in every stage that is announced in `folder`, until `stopped` is set."""
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[Path, _Part] = {}
    try:
        while not stopped.wait(_POLL_S):
            announced = set(folder.glob("*.json"))
            for file in announced - parts.keys():
                if part := _begin(file):
                    parts[file] = part
            for file in parts.keys() - announced:
                parts.pop(file).end()
            for file, part in parts.items():
                if part.failed:
                    file.with_suffix(_FAILED).touch()
    finally:
        for part in parts.values():
            part.end()


class _Part:
    """This machine's processes of one stage."""

    def __init__(self, words: list[str], job: Path, processes: int, grace_s: float) -> None:
        log = f"launcher-{socket.gethostname()}.txt"
        self._grace_s = grace_s
        command = [sys.executable, *words]
        self._spawned = Spawned(command, job, stage_environment(), processes, grace_s, log=log)

    @property
    def failed(self) -> bool:
        return bool(self._spawned.wait(0))

    def end(self) -> None:
        if self._spawned.wait(0) is None:
            self._spawned.signal(signal.SIGTERM)
            self._spawned.wait(self._grace_s)
        self._spawned.signal(signal.SIGKILL)


def _begin(file: Path) -> _Part | None:
    """The part that `file` asks for; None when the stage has ended already."""
    try:
        asked = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    print(f"joins {asked['job']}", flush=True)
    return _Part(asked["command"], Path(asked["job"]), asked["processes"], asked["grace_s"])


def main() -> int:
    """Follow until SIGTERM or SIGINT, which is how a scheduler ends the machines that are left over; the exit code."""
    if FOLDER not in os.environ:
        raise UserError(
            "no folder of announcements is named", field=FOLDER, mend="see infra/kubernetes/train"
        )
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    follow(Path(os.environ[FOLDER]), stopped)
    return 0


if __name__ == "__main__":
    sys.exit(main())
