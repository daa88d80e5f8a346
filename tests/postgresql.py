"""A PostgreSQL server of Debian's package, in a folder of its own."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from tests.free_port import free_port

BINARIES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/nowhere"))
PASSWORD = "pa55-never-shown"


class Database:
    """An empty database, there within a `with` block."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.data = folder / "data"
        self.url = f"postgresql://ann:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    @staticmethod
    def present() -> bool:
        """Whether the package is installed."""
        return (BINARIES / "initdb").exists()

    def __enter__(self) -> Self:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        password = self.folder / "password"
        password.write_text(PASSWORD)
        for path in (self.folder, password):
            path.chmod(0o700)
            if os.geteuid() == 0:
                shutil.chown(path, "postgres")
        self._run("initdb", "-D", self.data, "-U", "ann", "--auth=scram-sha-256", f"--pwfile={password}")
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run("pg_ctl", "-D", self.data, "-m", "fast", "-w", "stop")
        shutil.rmtree(self.folder)

    def start(self) -> None:
        """Start the server; after a kill it recovers what was written."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run("pg_ctl", "-D", self.data, "-o", options, "-l", self.folder / "log", "-w", "start")

    def kill(self) -> None:
        """kill -9 of the server; its other processes end by themselves, and none may be left when it starts again."""
        server = psutil.Process(int((self.data / "postmaster.pid").read_text().split()[0]))
        everything = [server, *server.children(recursive=True)]
        server.kill()
        psutil.wait_procs(everything, timeout=60)

    def _run(self, program: str, *words: str | Path) -> None:
        """PostgreSQL refuses to run as root: then it is Debian's user that does."""
        user: Sequence[str] = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        command = [*user, str(BINARIES / program), *map(str, words)]
        subprocess.run(command, check=True, capture_output=True, cwd="/")
