"""Several processes for one stage: the command that starts every rank, and a handle on all of them."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from math import ceil
from pathlib import Path
from typing import Protocol

import psutil

from tasks.core.errors import UserError
from tasks.core.launching.child import LAUNCHER, this_process
from tasks.core.launching.forking import python_path
from tasks.core.launching.job import GROUPS, LAUNCHER_LOG

FOLDER = "LOOPWRIGHT_NODES"
"""Variable that names the folder of announcements (see `tasks.core.launching.nodes`), on a file system that all
machines share. A job has it alone."""

ADDRESS = "MASTER_ADDR"
"""Variable that says under which name the other machines reach the first."""

HOSTS, MEETS = "--rdzv-conf=is_host=true", "--rdzv-conf=is_host=false"
"""What tells torchrun whether the rendezvous is held by its own machine."""

_PATIENCE = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
"""Seconds after which torchrun, which is asked to end as well, kills its ranks; 30 unless somebody says it. Inside
accelerate's launcher is a torchrun as well."""

_OF_A_RANK = {
    "RANK",
    "LOCAL_RANK",
    "GROUP_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
}
"""Set by some schedulers; a stage that inherited them would take itself for one of several ranks."""


class Processes(Protocol):
    """What `distributed_command` needs to know (see `tasks.core.launching.launch.LaunchConfig`)."""

    @property
    def processes(self) -> int: ...
    @property
    def nodes(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def config_file(self) -> str: ...


def stage_environment() -> dict[str, str]:
    """The environment of processes that this one launches."""
    inherited = {name: value for name, value in os.environ.items() if name not in _OF_A_RANK}
    return inherited | {LAUNCHER: this_process(), "PYTHONPATH": python_path()}


def torchrun_command(settings: Processes, job: Path) -> list[str]:
    """The command that runs `job` in `settings.processes` processes on each of `settings.nodes` machines.

    One machine rendezvouses with itself on a free port. Several are reached with Slurm's srun, from inside an
    allocation, or start their parts themselves (`tasks.core.launching.nodes`); the job folder must lie on a file system
    that they share, and so must an accelerate configuration file, which every process then follows. Raises UserError
    where there is neither.
    """
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={settings.processes}"]
    module = ["-m", "tasks.core.launching.child", str(job)]
    if settings.config_file:
        file = str(Path(settings.config_file).absolute())
        module = ["-m", "tasks.core.launching.accelerated", str(job), file]
    if settings.nodes == 1:
        return [*torchrun, "--standalone", *module]
    nodes = str(settings.nodes)
    if {FOLDER, ADDRESS} <= os.environ.keys():
        meeting = [f"--rdzv-endpoint={os.environ[ADDRESS]}:{_free_port()}", HOSTS]
        return [*torchrun, f"--nnodes={nodes}", "--rdzv-backend=c10d", *meeting, *module]
    if "SLURM_JOB_ID" not in os.environ:
        raise UserError(
            f"{settings.nodes} machines were asked for outside of a Slurm allocation",
            field="launch.nodes",
            mend="Start the flow inside one (infra/slurm), or as infra/kubernetes/train does.",
        )
    srun = ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]
    endpoint = f"--rdzv-endpoint={socket.gethostname()}:{_free_port()}"
    return [*srun, *torchrun, f"--nnodes={nodes}", "--rdzv-backend=c10d", endpoint, *module]


def accelerate_command(settings: Processes, job: Path) -> list[str]:
    """The command that runs `job` as an accelerate configuration file says, here or on the machines it names."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", f"--config_file={settings.config_file}"]
    size = [f"--num_processes={settings.total}", f"--num_machines={settings.nodes}"]
    port = ["--main_process_port=0"] if settings.nodes == 1 else []
    return [*launch, *size, *port, "-m", "tasks.core.launching.child", str(job)]


class Spawned:
    """A launcher program (torchrun, accelerate) with all of its ranks."""

    def __init__(
        self,
        command: list[str],
        job: Path,
        environment: dict[str, str],
        processes: int,
        grace_s: float,
        log: str = LAUNCHER_LOG,
    ) -> None:
        self._job = job
        environment = environment | {_PATIENCE: str(ceil(grace_s))}
        # DeepSpeed looks for ninja on PATH, and torchrun would give every rank a single thread.
        path = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
        threads = str(max(1, (os.cpu_count() or 1) // processes))
        with (job / log).open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={"OMP_NUM_THREADS": threads, **environment, "PATH": path},
                start_new_session=True,
            )

    def wait(self, timeout_s: float) -> int | None:
        """Wait for the end: the exit code, minus a signal's number, or None when `timeout_s` have passed."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def signal(self, number: int) -> None:
        """Send a signal to the launcher program's process group and to the group of every rank."""
        groups = {self._process.pid} | self._announced_groups()
        if number == signal.SIGKILL and self._process.poll() is None:
            # Stopped first, so that it cannot start another rank in the meantime.
            os.kill(self._process.pid, signal.SIGSTOP)
            groups |= self._descendant_groups()
        for group in groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, number)

    def _descendant_groups(self) -> set[int]:
        groups = set()
        for process in psutil.Process(self._process.pid).children(recursive=True):
            with contextlib.suppress(ProcessLookupError):
                groups.add(os.getpgid(process.pid))
        return groups

    def _announced_groups(self) -> set[int]:
        """The groups of the ranks on this machine; those on others end with their own launcher program."""
        file = self._job / GROUPS
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        return {int(group) for host, group in map(str.split, lines) if host == socket.gethostname()}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
