"""A test set evaluated whole in one process, and in shards on two Ray workers: the time, and the same answers.

    make bench NAME=fanout
    python -m tests.benchmarks.fanout [--rows 2000] [--shard 125]

SmolLM2-135M-Instruct labels SNIPS's rows, which lie beneath LOOPWRIGHT_SHARED_DATA (generated ones stand in where they
are absent). Four sides, each a flow run with a store of its own, timed from the evaluation's beginning to its end and
with one thread for arithmetic in every process: whole; in shards one after another, which shows what a shard costs; in
shards on two Ray workers, Ray's own start included; and the same with a worker that is killed (SIGKILL) when the first
shard is done. `ratio` is the time of the whole by that of the two workers.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
DATA = (
    Path(os.environ.get("LOOPWRIGHT_SHARED_DATA", ROOT.parent / "shared" / "data")) / "snips" / "train.jsonl"
)
HOME = ROOT / "build" / "bench" / "fanout"
TARGET = 1.6
SIDES: dict[str, dict[str, Any]] = {
    "whole": {},
    "one by one": {"at_once": 1},
    "ray": {"runner": "ray", "at_once": 2},
    "killed": {"runner": "ray", "at_once": 2},
}


def read_rows(count: int) -> tuple[list[tuple[str, str]], str]:
    """So many texts with their labels, and where they come from."""
    if DATA.is_file():
        lines = DATA.read_text(encoding="utf-8").splitlines()
        chosen = lines[:: max(1, len(lines) // count)][:count]  # the file lists one label after the other
        return [(row["text"], row["label"]) for row in map(json.loads, chosen)], "SNIPS"
    things = ("song", "album", "restaurant", "book", "film", "city")
    verbs = ("play", "find", "rate", "book me", "show me", "tell me about")
    texts = [
        (f"{verbs[n // 6 % 6]} the {things[n % 6]} number {n}{' please' * (n % 4)}", verbs[n // 6 % 6])
        for n in range(count)
    ]
    return texts, "generated"


def side(name: str, rows: int, shard: int) -> None:
    """One side, in this process; prints its figures."""
    from tasks.core.settings import set_environment

    set_environment()
    from prefect import flow

    from tasks import base_model, evaluate
    from tasks.base_model import ModelConfig
    from tasks.core.examples import make_example, write_rows
    from tasks.core.fan_out import FanOutConfig
    from tasks.core.flow_run import FlowConfig, check_run, open_run
    from tasks.core.tracking import TrackingConfig
    from tasks.evaluate import EvaluationConfig, EvaluationInputs
    from tasks.problems.base import ProblemConfig

    folder = HOME / name.replace(" ", "-")
    texts, _ = read_rows(rows)
    test = write_rows(folder / "test.jsonl", [make_example(text, label) for text, label in texts])
    problem = ProblemConfig(labels=tuple(sorted({label for _, label in texts})))
    placed = SIDES[name] | ({} if name == "whole" else {"rows_per_shard": shard})
    config = FlowConfig(
        store=str(folder / "store"),
        tracking=TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db"),
        fan_out=FanOutConfig(**placed),
    )

    @flow(name="fanout")
    def run() -> None:
        check_run(config)
        with open_run("fanout", config) as run:
            student = ModelConfig()
            model = run.stage(base_model.STAGE, student, base_model.locate(student, "student.model")).model
            inputs = EvaluationInputs(model=model, splits={"test": test}, problem=problem)
            begun = time.monotonic()
            result = run.stage(evaluate.STAGE, EvaluationConfig(), inputs).splits["test"]
            seconds = time.monotonic() - begun
        figures = {"seconds": seconds, "digest": result.predictions.digest, "accuracy": result.accuracy}
        print(json.dumps(figures), flush=True)

    run()


def kill_worker(process: "subprocess.Popen[str]", store: Path) -> int:
    """Kill a Ray worker that works on a shard, when the first shard is done; returns how many were done by then."""
    while len(done := list(store.glob("evaluate/*/manifest.json"))) < 1:
        if process.poll() is not None:
            return 0
        time.sleep(0.05)
    for child in psutil.Process(process.pid).children(recursive=True):
        if child.name().startswith("ray::evaluate"):
            child.kill()
            return len(done)
    return 0


def measure(name: str, rows: int, shard: int) -> dict[str, Any]:
    """One side in a process of its own."""
    folder = HOME / name.replace(" ", "-")
    shutil.rmtree(folder, ignore_errors=True)
    environment = os.environ | {
        "LOOPWRIGHT_HOME": str(folder),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-m", "tests.benchmarks.fanout", "--side", name]
    command += [f"--rows={rows}", f"--shard={shard}"]
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    killed_at = kill_worker(process, folder / "store") if name == "killed" else 0
    printed, _ = process.communicate()
    if process.returncode:
        sys.exit(f"the side {name!r} failed")
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    begun = len(list((folder / "store").glob("evaluate/*/manifest.json"))) - 1
    print(f"{name:12}{found['seconds']:8.1f} s   accuracy {found['accuracy']:.3f}", flush=True)
    return found | {"shards": begun, "killed_at": killed_at}


def main() -> None:
    """Measure all sides, print a row each and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--shard", type=int, default=125)
    parser.add_argument("--side", choices=list(SIDES), help="only this side, in this process")
    asked = parser.parse_args()
    if asked.side:
        side(asked.side, asked.rows, asked.shard)
        return
    if not (find_spec("ray") and find_spec("prefect_ray")):
        sys.exit("Ray is not installed: pip install --constraint constraints.txt 'loopwright[ray]'")
    print(f"{asked.rows} rows ({read_rows(1)[1]}) in shards of {asked.shard}")
    sides = {name: measure(name, asked.rows, asked.shard) for name in SIDES}
    whole, ray = sides["whole"], sides["ray"]
    overhead = (sides["one by one"]["seconds"] - whole["seconds"]) / ray["shards"]
    equal = {name: found["digest"] == whole["digest"] for name, found in sides.items()}
    print(f"a shard costs {overhead:.1f} s more; the same predictions as whole: {equal}")
    figures = {
        "name": "fanout",
        "ratio": round(whole["seconds"] / ray["seconds"], 2),
        "target": TARGET,
        "rows": asked.rows,
        "data": read_rows(1)[1],
        "shards": ray["shards"],
        "identical": all(equal.values()),
        "overhead_per_shard_s": round(overhead, 2),
        "killed_after_shards": sides["killed"]["killed_at"],
    }
    figures |= {f"{name.replace(' ', '_')}_s": round(found["seconds"], 1) for name, found in sides.items()}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
