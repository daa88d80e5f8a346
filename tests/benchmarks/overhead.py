"""What orchestration costs: the demo as a flow, against the same stages called as plain functions in one script.

    python -m tests.benchmarks.overhead

Both sides compute everything from nothing, in processes of their own, and have to end with the same figures. Then the
flow is run once more: nothing may be trained or generated again.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CONFIG = "deployments/configs/demo.yaml"
TARGET = 1.02
ALLOWED_S = 20.0


class PlainRun:
    """Runs stages as what they are: functions called one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.iteration, self.calls = folder, 0, 0
        self.figures: list[dict[str, float]] = []

    def stage(self, stage: Any, config: Any, inputs: Any, *, label: str = "", training: bool = False) -> Any:
        self.calls += 1
        out = self.folder / f"{self.calls:02}-{stage.name}" / "out"
        out.mkdir(parents=True)
        return stage.run(config, inputs, out, lambda event: None)

    @contextmanager
    def iterate(self, number: int) -> Iterator[dict[str, float]]:
        self.iteration = number
        figures: dict[str, float] = {}
        yield figures
        self.figures.append(figures)

    def dataset(self, ref: Any, context: str) -> None:
        pass


def plain(folder: Path) -> None:
    """The whole demo in this process, the report included."""
    from flows.llm2llm import CONFIG as MODEL
    from flows.llm2llm import loop, planned
    from tasks.core.command_line import read_config
    from tasks.report.stage import STAGE, ReportConfig, ReportInputs

    run = PlainRun(folder)
    record = loop(run, planned(read_config(MODEL, "plain", ["--config", CONFIG])))
    run.stage(
        STAGE, ReportConfig(), ReportInputs(iterations=record.iterations, comparisons=record.comparisons)
    )
    print(json.dumps({"iterations": run.figures}))


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, dict[str, Any]]:
    """Seconds of a command, and the JSON object of its last line."""
    begun = time.perf_counter()
    done = subprocess.run(
        command, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return time.perf_counter() - begun, json.loads(done.stdout.splitlines()[-1])


def stages_computed(home: Path) -> set[str]:
    """The stages with a result in the store."""
    return {"/".join(path.parts[-3:-1]) for path in (home / "store").glob("*/*/manifest.json")}


def main() -> None:
    """Measure both sides and print the table and the JSON line."""
    folder = Path(tempfile.mkdtemp(prefix="loopwright-overhead-"))
    home = folder / "home"
    flow = [sys.executable, "-m", "flows", "llm2llm", "--config", CONFIG]
    environment = {"LOOPWRIGHT_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    try:
        plain_s, plain_result = timed(
            [sys.executable, "-m", __spec__.name, "plain", str(folder / "plain")], environment
        )
        flow_s, flow_result = timed(flow, environment)
        before = stages_computed(home)
        rerun_s, rerun_result = timed(flow, environment)
        repeated = sorted(stages_computed(home) - before)
    finally:
        shutil.rmtree(folder)
    equal = plain_result["iterations"] == flow_result["iterations"] == rerun_result["iterations"]
    allowed_s = plain_s * TARGET + ALLOWED_S
    print(f"plain functions  {plain_s:8.1f} s")
    print(f"flow             {flow_s:8.1f} s   allowed: {allowed_s:.1f} s (2 % and {ALLOWED_S:.0f} s)")
    print(f"rerun            {rerun_s:8.1f} s   stages computed again: {repeated or 'none'}")
    print(f"same figures on both sides: {equal}")
    figures = {
        "name": "overhead",
        "ratio": flow_s / plain_s,
        "target": allowed_s / plain_s,
        "plain_s": plain_s,
        "flow_s": flow_s,
        "rerun_s": rerun_s,
        "repeated_stages": repeated,
        "identical": equal,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    if sys.argv[1:2] == ["plain"]:
        plain(Path(sys.argv[2]))
    else:
        main()
