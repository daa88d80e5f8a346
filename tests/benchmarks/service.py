"""The service: from pressing Run to the first stage, twenty runs queued at once, and what the idle stack holds.

    make bench NAME=service

The other side is the same flow started from a terminal on the same server, to the same moment: the start of its first
stage. Pressing Run is the call that Prefect's page makes. All runs are of a model of some 40,000 parameters: what is
measured is the stack and not the training. The runs of the queue work four at a time and share one GPU slot.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from deployments.service.config import ROOT
from tasks.core.slots import GPU_SLOTS
from tests.asking_again import PREFECT_CLIENT
from tests.flows.test_service import Service, start, tiny
from tests.tiny_model import build_tiny_model

FOLDER = ROOT / "build" / "bench" / "service"
PRESSED, QUEUED, AT_ONCE = 5, 20, 4
TARGET = 2.0
"""A run from the page begins its first stage within twice the time that the command takes."""
PATIENCE_S = 1800.0
SETTLED_S = 20.0


class Bench:
    """A service that is up, and runs of llm2llm/demo on a tiny model, each with a seed of its own."""

    def __init__(self, service: Service, model: Path) -> None:
        self.service, self.model, self.seed = service, model, 0
        self.deployment = service.get("/deployments/name/llm2llm/demo")

    def config(self) -> dict[str, Any]:
        """As little work as a run can have; no stage of another run's does for it."""
        self.seed += 1
        config = tiny(self.deployment["parameters"]["config"], self.model)
        config["data"]["seed"] = config["training"]["seed"] = self.seed
        return config

    def press(self) -> str:
        """What the page's Run does; the run's id."""
        config = self.config()
        # SQLite may be locked for a moment: then Prefect's own clients ask again as well.
        while (answer := start(self.service.api, self.deployment, config)).status_code == 503:
            time.sleep(0.2)
        return str(answer.raise_for_status().json()["id"])

    def state(self, run: str) -> str:
        return str(self.service.get(f"/flow_runs/{run}")["state"]["type"])

    def first_stage(self, runs: dict[str, Any]) -> float:
        """When, of the clock, the first stage of the runs that this filter finds began."""
        body = {"flow_runs": runs, "sort": "EXPECTED_START_TIME_ASC"}
        deadline = time.monotonic() + PATIENCE_S
        while True:
            begun = [one["start_time"] for one in self.service.post("/task_runs/filter", body)]
            if any(begun):
                return min(datetime.fromisoformat(one).timestamp() for one in begun if one)
            assert time.monotonic() < deadline, "no stage began"
            time.sleep(0.2)

    def wait(self, runs: list[str]) -> int:
        """Wait until all have ended; the most slots that were taken meanwhile."""
        deadline, most, left = time.monotonic() + PATIENCE_S, 0, list(runs)
        while left:
            assert time.monotonic() < deadline, f"{len(left)} runs did not end"
            most = max(most, self.service.get(f"/v2/concurrency_limits/{GPU_SLOTS}")["active_slots"])
            left = [run for run in left if self.state(run) in ("SCHEDULED", "PENDING", "RUNNING")]
            time.sleep(0.5)
        return most


def pressed(bench: Bench) -> float:
    """Seconds from pressing Run to the first stage."""
    begun = time.time()
    run = bench.press()
    seconds = bench.first_stage({"id": {"any_": [run]}}) - begun
    bench.wait([run])
    return seconds


def typed(bench: Bench, folder: Path) -> float:
    """Seconds from the command in a terminal to its first stage, on the same servers."""
    file = folder / f"config-{bench.seed}.json"
    file.write_text(json.dumps(bench.config()))  # JSON is YAML
    service = bench.service
    environment = service.environment | {
        "PREFECT_API_URL": service.api,
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{service.mlflow}",
        "LOOPWRIGHT_STORE": str(service.home / "store"),
    }
    begun = time.time()
    command = [sys.executable, "-m", "flows", "llm2llm", "--config", str(file)]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    run = json.loads(done.stdout.splitlines()[-1])["flow_run_id"]
    return bench.first_stage({"id": {"any_": [run]}}) - begun


def queued(bench: Bench) -> dict[str, Any]:
    """Twenty runs at once: how many completed, how often each was started, and how long that took."""
    pool, queue = bench.deployment["work_pool_name"], bench.deployment["work_queue_name"]
    address = f"{bench.service.api}/work_pools/{pool}/queues/{queue}"
    PREFECT_CLIENT.patch(address, json={"concurrency_limit": AT_ONCE}).raise_for_status()
    begun = time.monotonic()
    runs = [bench.press() for _ in range(QUEUED)]
    most = bench.wait(runs)
    found = [bench.service.get(f"/flow_runs/{run}") for run in runs]
    return {
        "queued": QUEUED,
        "completed": sum(one["state"]["type"] == "COMPLETED" for one in found),
        "started_once": sum(one["run_count"] == 1 for one in found),
        "most_slots_taken": most,
        "queue_s": time.monotonic() - begun,
    }


def memory(service: Service) -> dict[str, Any]:
    """What the processes of the idle stack hold, in MB (10^6 bytes): resident, and with shared pages counted once."""
    processes = service.processes()
    resident = sum(process.memory_info().rss for process in processes) / 1e6
    try:
        proportional = sum(process.memory_full_info().pss for process in processes) / 1e6
    except (psutil.AccessDenied, AttributeError):  # another user's, or not Linux
        proportional = None
    return {"idle_processes": len(processes), "idle_rss_mb": resident, "idle_pss_mb": proportional}


def main() -> None:
    """Measure, and print the table and the JSON line."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    os.environ["HF_HUB_OFFLINE"] = "1"
    model, service = build_tiny_model(FOLDER / "model"), Service(FOLDER / "home")
    try:
        begun = time.monotonic()
        service.up()
        figures: dict[str, Any] = {"up_s": time.monotonic() - begun}
        time.sleep(SETTLED_S)
        figures |= memory(service)
        bench = Bench(service, model)
        sides = {"pressed_s": [], "typed_s": []}
        for _ in range(PRESSED):  # in turn, so that a busy machine is so for both
            sides["pressed_s"].append(pressed(bench))
            sides["typed_s"].append(typed(bench, FOLDER))
        figures |= sides | queued(bench)
    finally:
        service.command("down")
    medians = {name: statistics.median(seconds) for name, seconds in sides.items()}
    print(f"make up                       {figures['up_s']:8.1f} s")
    print(f"idle: {figures['idle_processes']} processes, resident  {figures['idle_rss_mb']:8.0f} MB")
    if figures["idle_pss_mb"] is not None:
        print(f"      shared pages once       {figures['idle_pss_mb']:8.0f} MB")
    print(
        f"Run pressed to first stage    {medians['pressed_s']:8.1f} s   (longest {max(sides['pressed_s']):.1f} s)"
    )
    print(
        f"command to first stage        {medians['typed_s']:8.1f} s   (longest {max(sides['typed_s']):.1f} s)"
    )
    print(
        f"{QUEUED} runs queued at once: {figures['completed']} completed, {figures['started_once']} of them in one go, "
        f"in {figures['queue_s']:.0f} s; GPU slots taken at most: {figures['most_slots_taken']} of 1"
    )
    ratio = medians["pressed_s"] / medians["typed_s"]
    print(json.dumps({"name": "service", "ratio": ratio, "target": TARGET} | figures))
    lost = figures["completed"] < QUEUED or figures["most_slots_taken"] > 1
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
