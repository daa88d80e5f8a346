"""Flows on two machines, which are this one twice, by the files of infra/: Slurm's templates and the Kubernetes job."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.containers import INFRA, ROOT
from tests.flows.loops import Loop
from tests.slurm import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

TRAIN, WORKER = INFRA / "slurm" / "train.sbatch", INFRA / "slurm" / "worker.sbatch"
SHORT = {"iterations": 1}

SRUN = """#!{python}
import subprocess, sys
command = sys.argv[1:]
assert command[:3] == ["--nodes=2", "--ntasks=2", "--ntasks-per-node=1"], command
while command[0].startswith("--"):
    command.pop(0)
nodes = [subprocess.Popen(command) for _ in range(2)]
open(sys.argv[0] + ".called", "a").write("x")
sys.exit(max(node.wait() for node in nodes))
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if not Cluster.present():
        pytest.skip("Slurm is not installed (apt-get install slurmctld slurmd slurm-client munge)")
    with Cluster(tmp_path_factory.mktemp("slurm") / "cluster") as cluster:
        yield cluster


def variables(loop: Loop) -> dict[str, str]:
    """What a user's environment file would say."""
    return {
        "LOOPWRIGHT_PROJECT": str(ROOT),
        "LOOPWRIGHT_PYTHON": sys.executable,
        "LOOPWRIGHT_HOME": str(loop.folder / "home"),
        "PREFECT_API_URL": loop.api,
        "OPENAI_API_KEY": "none",
    }


def check_trained(loop: Loop, result: dict[str, Any]) -> None:
    """A rank refuses to train when it is not one of launch.nodes times launch.processes."""
    assert (result["status"], len(result["iterations"])) == ("completed", 1)
    assert "sft" in loop.stages()


def test_slurm_starts_a_flow_that_trains_on_every_machine_of_the_allocation(
    loop: Loop, cluster: Cluster
) -> None:
    log = loop.folder / "job.log"
    options = ["--wait", "--cpus-per-task=1", f"--output={log}", f"--error={log}.error"]
    cluster.run(
        "sbatch",
        *options,
        "--gpus-per-node=1",
        str(TRAIN),
        loop.flow,
        *loop.flags(**SHORT),
        **variables(loop),
    )
    check_trained(loop, json.loads(log.read_text().splitlines()[-1]))
    steps = re.findall(r"launch task StepId=\d+\.(\d+) ", cluster.said())
    assert steps.count("0") == 2  # one on each node


def test_the_template_makes_the_flow_s_command_of_the_allocation(loop: Loop, tmp_path: Path) -> None:
    """Where there is no Slurm: a stand-in for srun, and what Slurm would have set."""
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text(SRUN.format(python=sys.executable))
    srun.chmod(srun.stat().st_mode | stat.S_IXUSR)
    slurm = {
        "SLURM_JOB_ID": "1",
        "SLURM_SUBMIT_DIR": "/nowhere",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "1",
    }
    environment = os.environ | variables(loop) | slurm | {"PATH": f"{srun.parent}:{os.environ['PATH']}"}
    command = ["bash", TRAIN, loop.flow, *loop.flags(**SHORT)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    check_trained(loop, json.loads(done.stdout.splitlines()[-1]))
    assert srun.with_name("srun.called").exists()


def test_a_worker_in_an_allocation_takes_runs_until_slurm_ends_it(
    cluster: Cluster, prefect_server: str, tmp_path: Path
) -> None:
    httpx.delete(f"{prefect_server}/work_pools/loopwright", timeout=60)  # another test's
    pool = {"name": "loopwright", "type": "process"}
    httpx.post(f"{prefect_server}/work_pools/", json=pool, timeout=60).raise_for_status()
    settings = tmp_path / "environment"
    settings.write_text(f"PREFECT_API_URL={prefect_server}\nLOOPWRIGHT_HOME={tmp_path / 'home'}\n")
    given = {"LOOPWRIGHT_ENVIRONMENT": str(settings), "LOOPWRIGHT_PROJECT": str(ROOT)}
    given["LOOPWRIGHT_PYTHON"] = sys.executable
    options = ["--parsable", "--cpus-per-task=1", f"--output={tmp_path / 'job.log'}"]
    job = cluster.run("sbatch", *options, str(WORKER), **given).strip()

    def workers() -> dict[str, str]:
        found = httpx.post(
            f"{prefect_server}/work_pools/loopwright/workers/filter", json={}, timeout=60
        ).json()
        return {one["name"]: one["status"] for one in found}

    deadline = time.monotonic() + 300
    while workers().get(f"slurm-{job}") != "ONLINE":
        assert time.monotonic() < deadline, (tmp_path / "job.log").read_text()
        time.sleep(0.5)
    cluster.run(
        "scancel", "--batch", "--signal=TERM", job
    )  # as --signal=B:TERM does when the time is nearly up
    while (
        cluster.run("squeue", "--noheader", f"--jobs={job}", "--states=all", "--format=%T").strip()
        == "RUNNING"
    ):
        assert time.monotonic() < deadline, (tmp_path / "job.log").read_text()
        time.sleep(0.5)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_the_kubernetes_job_trains_on_both_of_its_pods(loop: Loop, tmp_path: Path) -> None:
    """Its containers' command as two processes, each with the index that Kubernetes would have given it."""
    built = subprocess.run(
        ["kubectl", "kustomize", INFRA / "kubernetes" / "train"], capture_output=True, text=True, check=True
    )
    job = next(one for one in yaml.safe_load_all(built.stdout) if one["kind"] == "Job")
    container = job["spec"]["template"]["spec"]["containers"][0]
    given = {one["name"]: one["value"] for one in container["env"] if "value" in one}
    nodes = given["LOOPWRIGHT_NODES"].replace("/data", str(tmp_path)).replace("$(JOB_UID)", "one")
    sizes = [word for word in container["args"] if word.startswith("--launch.")]
    assert sizes == ["--launch.nodes=2", "--launch.processes=8"]
    arguments = [loop.flow, *loop.flags(**SHORT), "--launch.nodes=2", "--launch.processes=1"]
    environment = os.environ | variables(loop) | {"MASTER_ADDR": "localhost", "LOOPWRIGHT_NODES": nodes}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    started = [
        subprocess.Popen(
            [*container["command"], *arguments],
            env=environment | {"JOB_COMPLETION_INDEX": str(index)},
            cwd=ROOT,
            stdout=(tmp_path / f"{index}.txt").open("w"),
            stderr=(tmp_path / f"{index}.error.txt").open("w"),
        )
        for index in range(job["spec"]["completions"])
    ]
    assert started[0].wait(timeout=900) == 0, (tmp_path / "0.error.txt").read_text()
    assert started[1].poll() is None
    started[1].terminate()  # as Kubernetes does when the first has succeeded
    assert started[1].wait(timeout=60) == 0
    check_trained(loop, json.loads((tmp_path / "0.txt").read_text().splitlines()[-1]))
    assert (tmp_path / "1.txt").read_text().startswith("joins ")
