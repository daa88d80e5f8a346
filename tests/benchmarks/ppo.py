"""PPO with an adapter per role on one base against TRL 1.12.0's PPO, the last that there was, in one run.

    python -m tests.benchmarks.ppo [--steps N] [--micro N]

SmolLM2-135M in every role, float32, the policy a LoRA of rank 16 on all matrices, the same 8 prompts in every step, 24
new tokens each (no response ends earlier), 4 epochs of one minibatch. TRL holds full models for value and reward and
trains the value model whole, as it has to; ours has the value function as a head on the policy's trunk, and as an
adapter of its own. Every side is a process of its own, and they take turns: a step each, in as many rounds as there are
steps, the first of which does not count. TRL is installed into build/bench/ppo/trl, for its own process alone.

Before that both compute everything of one and the same rollout with the same weights. It takes about 6 minutes on 2
quiet cores; on busy ones the processor's seconds say more than the clock's.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

from tasks import base_model
from tasks.base_model import BaseModelResult, ModelConfig
from tasks.core.launching.launch import LaunchConfig
from tasks.core.progress import Progress
from tasks.core.stage import compute
from tasks.core.store import Store
from tests.benchmarks.ppo_sides.common import MICRO, QUESTIONS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "bench" / "ppo"
PEER = "trl==1.12.0"
TIME_TARGETS, MEMORY_TARGET, AGREEMENT = {"trunk": 0.5, "adapter": 0.75}, 0.45, 1e-4


class Side:
    """A process that makes a step whenever it is told to."""

    def __init__(self, module: str, *arguments: str) -> None:
        paths = [str(FOLDER / "trl")] * (module == "peer") + [os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"tests.benchmarks.ppo_sides.{module}", *arguments],
            cwd=ROOT,
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "TRL_EXPERIMENTAL_SILENCE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(FOLDER / f"{module}.log").open("a"),
            text=True,
        )
        self._name = module

    def read(self) -> dict[str, Any]:
        """The next thing it tells. Ends the benchmark when it has died."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            sys.exit(f"{self._name} has ended with code {code}: see {FOLDER / self._name}.log")
        told: dict[str, Any] = json.loads(line)
        return told

    def step(self) -> dict[str, Any]:
        """Let it make a step; what that took."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self.read()

    def finish(self) -> None:
        """Wait for its own end."""
        if code := self._process.wait():
            sys.exit(f"{self._name} has ended with code {code}: see {FOLDER / self._name}.log")

    def close(self) -> None:
        """End it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.kill()
        self._process.wait()


@contextmanager
def side(module: str, *arguments: str) -> Iterator[Side]:
    """A side, ended at the end."""
    started = Side(module, *arguments)
    try:
        yield started
    finally:
        started.close()


def prepare() -> str:
    """Install the peer, convert the model, write the weights both begin with; the model's folder."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for log in FOLDER.glob("*.log"):
        log.unlink()
    if not (FOLDER / "trl").is_dir():
        torn = FOLDER / "trl.torn"
        shutil.rmtree(torn, ignore_errors=True)
        install = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            str(torn),
            PEER,
        ]
        subprocess.run(install, check=True)
        torn.rename(FOLDER / "trl")
    config, progress = ModelConfig(), Progress("base model")
    store = Store(str(FOLDER))
    found = compute(base_model.STAGE, config, base_model.locate(config), store, LaunchConfig(), progress)
    progress.close()
    base = BaseModelResult.model_validate(found.result).model.uri
    if not (FOLDER / "weights").is_dir():
        torn = FOLDER / "weights.torn"
        module = "tests.benchmarks.ppo_sides.weights"
        subprocess.run([sys.executable, "-m", module, base, str(torn)], cwd=ROOT, check=True)
        torn.rename(FOLDER / "weights")
    return base


def agree(base: str) -> tuple[float, float]:
    """Print by how much ours and TRL's numbers differ on one rollout; the largest difference, and the entropies' own.

    Their weight in the loss is 0. TRL takes them as log-sum-exp less a mean of logits, of which float32 loses more: on
    this rollout its formula was 1.6e-4 away from double precision and ours 5e-7.
    """
    moved = str(FOLDER / "weights" / "moved")
    with side("peer", base, "1", str(len(QUESTIONS)), moved) as peer:
        for _ in ("imported", "loaded"):
            peer.read()
        peer.step()
        peer.finish()
    print(f"{'of one rollout':16}{'figures':>9}{'largest':>12}{'difference':>12}")
    differences: dict[str, float] = {}
    with side("agreement", base, moved) as ours:
        while "gradient" not in differences:
            row = ours.read()
            differences[row["what"]] = row["difference"]
            print(f"{row['what']:16}{row['figures']:>9}{row['largest']:>12.4g}{row['difference']:>12.2e}")
    entropy = differences.pop("entropy")
    return max(differences.values()), entropy


def measure(base: str, steps: int, micro: int) -> dict[str, dict[str, float]]:
    """Let the sides take turns; of each the means over all steps but the first, and its memory."""
    reward, size = str(FOLDER / "weights" / "reward"), str(micro)
    print(f"{'':9}{'step':>5}{'seconds':>9}{'cpu s':>8}{'peak GB':>9}", flush=True)
    told: dict[str, list[dict[str, Any]]] = {}
    memory: dict[str, dict[str, float]] = {}
    with ExitStack() as opened:
        sides = {
            name: opened.enter_context(side(*command))
            for name, command in {
                "trl": ("peer", base, str(steps), size),
                "trunk": ("ours", base, reward, "trunk", str(steps), size),
                "adapter": ("ours", base, reward, "adapter", str(steps), size),
            }.items()
        }
        for name, one in sides.items():
            memory[name], told[name] = one.read() | one.read(), []
        for step in range(steps):
            for name, one in sides.items():
                told[name].append(one.step())
                row = told[name][-1]
                print(
                    f"{name:9}{step + 1:>5}{row['seconds']:>9.1f}{row['cpu_s']:>8.1f}{row['peak_gb']:>9.2f}",
                    flush=True,
                )
    return {
        name: memory[name]
        | {key: fmean(row[key] for row in rows[1:]) for key in ("seconds", "cpu_s")}
        | {"peak_gb": rows[-1]["peak_gb"]}
        for name, rows in told.items()
    }


def main() -> None:
    """Compare, measure, print tables and the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=4, help="rounds, the first of which does not count")
    parser.add_argument(
        "--micro", type=int, default=MICRO, help="responses per pass with gradients, on every side"
    )
    chosen = parser.parse_args()
    if chosen.steps < 2 or not 0 < chosen.micro <= len(QUESTIONS) or len(QUESTIONS) % chosen.micro:
        parser.error(f"--steps is at least 2, --micro a divisor of {len(QUESTIONS)}")
    base = prepare()
    difference, entropy = agree(base)
    found = measure(base, chosen.steps, chosen.micro)
    peer = found["trl"]
    print(
        f"{'':9}{'s/step':>8}{'cpu s':>8}{'ratio':>7}{'target':>8}{'peak GB':>9}{'imports':>9}{'ratio':>7}{'target':>8}"
    )
    for name, row in found.items():
        time, memory = row["seconds"] / peer["seconds"], row["peak_gb"] / peer["peak_gb"]
        targets = (TIME_TARGETS.get(name, 1.0), 1.0 if name == "trl" else MEMORY_TARGET)
        print(
            f"{name:9}{row['seconds']:>8.1f}{row['cpu_s']:>8.1f}{time:>7.2f}{targets[0]:>8.2f}"
            f"{row['peak_gb']:>9.2f}{row['imported_gb']:>9.2f}{memory:>7.2f}{targets[1]:>8.2f}"
        )
    figures: dict[str, Any] = {"name": "ppo"}
    for name in TIME_TARGETS:
        figures |= {
            f"{name}_time_ratio": found[name]["seconds"] / peer["seconds"],
            f"{name}_cpu_ratio": found[name]["cpu_s"] / peer["cpu_s"],
            f"{name}_memory_ratio": found[name]["peak_gb"] / peer["peak_gb"],
        }
    figures |= {
        "ratio": figures["trunk_time_ratio"],
        "target": TIME_TARGETS["trunk"],
        "time_ratio": figures["trunk_time_ratio"],
        "adapter_time_target": TIME_TARGETS["adapter"],
        "memory_ratio": max(figures[f"{name}_memory_ratio"] for name in TIME_TARGETS),
        "memory_target": MEMORY_TARGET,
        "largest_difference": difference,
        "entropy_difference": entropy,
        "agrees": difference <= AGREEMENT,
        "micro_batch": chosen.micro,
        "steps": chosen.steps - 1,
    }
    figures |= {f"{name}_{key}": value for name, row in found.items() for key, value in row.items()}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
