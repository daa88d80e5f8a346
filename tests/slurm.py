"""A Slurm cluster of Debian's packages on this machine: two nodes with a GPU each, as far as Slurm knows."""

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.free_port import free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel")

CONFIGURATION = """
ClusterName=here
SlurmctldHost=localhost
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldPort={ports[0]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
MpiDefault=none
ReturnToService=2
GresTypes=gpu
NodeName=one NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=1000 Gres=gpu:1
NodeName=two NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=1000 Gres=gpu:1
PartitionName=all Nodes=one,two Default=YES MaxTime=INFINITE State=UP
"""

GPUS = "NodeName=one Name=gpu File=/dev/null\nNodeName=two Name=gpu File=/dev/zero\n"


class Cluster:
    """Two nodes, there within a `with` block; `environment` is what Slurm's commands need."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        self._processes: list[subprocess.Popen[bytes]] = []

    @staticmethod
    def present() -> bool:
        """Whether the packages are installed and this is root, whom the daemons want."""
        return os.geteuid() == 0 and all(shutil.which(program) for program in PROGRAMS)

    def __enter__(self) -> Self:
        (self.folder / "state").mkdir(parents=True)
        self.folder.chmod(0o700)
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(64))
        key.chmod(0o400)
        ports = [free_port() for _ in range(3)]
        (self.folder / "slurm.conf").write_text(CONFIGURATION.format(folder=self.folder, ports=ports))
        (self.folder / "gres.conf").write_text(GPUS)
        socket = self.folder / "munge.socket"
        files = [f"--{name}-file={self.folder / f'munge.{name}'}" for name in ("key", "pid", "log", "seed")]
        self._start("munged", "--foreground", "--force", f"--socket={socket}", *files)
        self._wait(socket.exists)
        self._start("slurmctld", "-D")
        for node in ("one", "two"):
            self._start("slurmd", "-D", "-N", node)
        self._wait(lambda: self.run("sinfo", "--noheader", "--format=%T").split() == ["idle"])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        subprocess.run(["scancel", "--user=root"], env=os.environ | self.environment, capture_output=True)
        for process in reversed(self._processes):
            process.terminate()
            process.wait(timeout=60)

    def said(self) -> str:
        """What all daemons said so far."""
        return "\n".join(file.read_text(errors="replace") for file in self.folder.glob("*.txt"))

    def run(self, *command: str, **variables: str) -> str:
        """What one of Slurm's commands prints."""
        environment = os.environ | self.environment | variables
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def _start(self, *command: str) -> None:
        with (self.folder / f"{command[0]}-{len(self._processes)}.txt").open("wb") as log:
            self._processes.append(
                subprocess.Popen(
                    command, env=os.environ | self.environment, stdout=log, stderr=subprocess.STDOUT
                )
            )

    def _wait(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not true():
            assert all(process.poll() is None for process in self._processes), self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.2)
