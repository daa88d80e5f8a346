"""Stands in for Slurm's srun: the same command on "two machines", which are this one twice."""

import os
import stat
import sys
from pathlib import Path

import pytest

SCRIPT = f"""#!{sys.executable}
import subprocess, sys
assert sys.argv[1:3] == ['--nodes=2', '--ntasks=2'], sys.argv
command = sys.argv[1:]
while command[0].startswith('--'): command.pop(0)
nodes = [subprocess.Popen(command) for _ in range(2)]
sys.exit(max(node.wait() for node in nodes))
"""


def allocate_two_machines(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on this process is inside an allocation of Slurm's."""
    srun = folder / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text(SCRIPT)
    srun.chmod(srun.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{srun.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
