"""One training in one process and in two, plainly, by ZeRO-2, ZeRO-3 and FSDP; and what the planner says of memory.

    python -m tests.benchmarks scale [--steps 6] [--model smollm2-135m]

SmolLM2-135M learns sums that are written here: adapters by fine-tuning (8 rows of 128 tokens a step), a reward model
(4 pairs), and PPO on a verifier's reward (8 responses of 24 tokens), all in float32. The launcher is torchrun with
gloo, as it is for users. Compared are the losses of every step with those of one process, rows per second, and, of the
first process, the memory at its fullest less what it held before a model was loaded, with the planner's forecast. The
planner counts living tensors, so memory is measured in trainings of two steps of its own, whose allocator gives back to
the system what is freed (glibc, told so by two variables); `as usual` is what the others held, which also have what
their allocator keeps for later. Every training is kept beneath build/bench, so that an interrupted benchmark goes on.

Two processes on one machine share its cores and its memory bus: what they gain in speed says nothing of two machines.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from tasks import base_model
from tasks.base_model import BaseModelResult, ModelConfig
from tasks.core.examples import make_example, write_rows
from tasks.core.launching.launch import LaunchConfig, launch
from tasks.core.progress import Progress
from tasks.core.references import DatasetRef, ModelRef
from tasks.core.settings import set_environment
from tasks.core.stage import Stage, compute
from tasks.core.store import Store
from tasks.plan import sharing
from tasks.plan.known_models import architecture_of
from tasks.plan.memory import CPU, GB, Memory
from tasks.plan.policy_training import Reward, policy_training
from tasks.plan.trainers import fine_tuning, reward_training
from tasks.ppo import stage as ppo
from tasks.ppo.config import PPOConfig
from tasks.ppo.roles_config import RolesConfig
from tasks.ppo.stage import PolicyTrainingInputs
from tasks.ppo.training_config import PolicyTrainingConfig
from tasks.problems.base import ProblemConfig
from tasks.reward_model import stage as reward
from tasks.reward_model.config import RewardTrainingConfig
from tasks.reward_model.pairs import make_preference
from tasks.reward_model.stage import RewardTrainingInputs
from tasks.rewards.config import RewardConfig
from tasks.sft import stage as sft
from tasks.sft.config import TrainingConfig
from tasks.sft.stage import TrainingInputs
from tests.fsdp_on_cpus import write_fsdp_config

HOME = Path(__file__).parents[2] / "build" / "bench" / "scale"
FSDP = "two, FSDP"
LAYOUTS = {
    "one process": (1, ""),
    "two": (2, ""),
    "two, ZeRO-2": (2, "zero2"),
    "two, ZeRO-3": (2, "zero3"),
    FSDP: (2, ""),
}
STAGES: dict[str, Stage[Any, Any, Any]] = {
    "fine-tune": sft.STAGE,
    "reward model": reward.STAGE,
    "ppo": ppo.STAGE,
}
LENGTH, ROWS, PAIRS, RESPONSES, NEW = 128, 8, 4, 8, 24
PROBLEM = ProblemConfig(name="exact_match")
GIVING_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
MEMORY_STEPS = 2
TARGET = 0.15
"""What a forecast may be off by."""


def measured(
    config: dict[str, Any], inputs: dict[str, Any], out: Path, report: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """The stage named in `inputs`, in this process, with the memory that it takes beyond the libraries'. Of several
    processes the first alone hears of steps, and its result is what counts."""
    import deepspeed  # noqa: F401 - part of what is there before a model is
    import psutil
    import torch  # noqa: F401
    from trl import RewardTrainer, SFTTrainer  # noqa: F401

    process, peak, ended = psutil.Process(), 0, threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.01):
            peak = max(peak, process.memory_info().rss)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    stage = STAGES[inputs.pop("stage")]
    steps: list[dict[str, float]] = []

    def hear(event: dict[str, Any]) -> None:
        report(event)
        if "step" in event:
            # What follows, saving and testing, is no part of the forecast.
            steps.append({"time": time.monotonic(), "peak": peak} | event)

    stage(config, inputs, out, hear)
    ended.set()
    return {"before": before, "peak": max((int(step["peak"]) for step in steps), default=0), "steps": steps}


def rows_of(count: int) -> tuple[DatasetRef, DatasetRef]:
    """Sums for fine-tuning and PPO, and pairs of a right and a wrong answer; all as long as a row may be."""
    asked = [f"{number} + {3 * number} = ? " + "Think. " * 60 for number in range(count)]
    rows = [make_example(text, str(4 * number)) for number, text in enumerate(asked)]
    pairs = [
        make_preference([{"role": "user", "content": text}], str(4 * number), str(4 * number + 1))
        for number, text in enumerate(asked)
    ]
    HOME.mkdir(parents=True, exist_ok=True)
    return write_rows(HOME / "rows.jsonl", rows), write_rows(HOME / "pairs.jsonl", pairs)


def training(kind: str, model: ModelRef, steps: int, deepspeed: str) -> tuple[Any, Any]:
    """Configuration and inputs of a training."""
    rows, pairs = rows_of(steps * ROWS)
    shared = {"max_steps": steps, "max_length": LENGTH, "precision": "float32", "deepspeed": deepspeed}
    if kind == "fine-tune":
        return TrainingConfig(batch_size=ROWS, **shared), TrainingInputs(
            model=model, train=rows, problem=PROBLEM
        )
    if kind == "reward model":
        return RewardTrainingConfig(batch_size=PAIRS, **shared), RewardTrainingInputs(
            model=model, train=pairs
        )
    optimisation = PPOConfig(
        steps=steps,
        batch_size=RESPONSES,
        minibatch_size=RESPONSES,
        micro_batch_size=RESPONSES // 2,
        epochs=1,
        max_new_tokens=NEW,
        target_kl=0.0,
        deepspeed=deepspeed,
    )
    config = PolicyTrainingConfig(
        ppo=optimisation, roles=RolesConfig(precision="float32"), reward=RewardConfig(by="problem")
    )
    return config, PolicyTrainingInputs(model=model, prompts=rows, problem=PROBLEM)


def layouts_of(kind: str) -> list[str]:
    """The layouts that a kind of training has: PPO is not shared by FSDP."""
    return [layout for layout in LAYOUTS if layout != FSDP or kind != "ppo"]


def launched(layout: str) -> LaunchConfig:
    """How the processes of a layout are started."""
    processes, _ = LAYOUTS[layout]
    if layout != FSDP:
        return LaunchConfig(processes=processes)
    file = write_fsdp_config(HOME / "fsdp.yaml")
    return LaunchConfig(processes=processes, launcher="accelerate", config_file=file)


def forecast(kind: str, config: Any, launch: LaunchConfig, model: str) -> Memory:
    """The planner's word on one process."""
    machine = sharing.launched(CPU, launch)
    shape = architecture_of(ModelConfig(model=model), field="model")
    if kind == "fine-tune":
        return fine_tuning(shape, config, machine)
    if kind == "reward model":
        return reward_training(shape, config, machine)
    return policy_training(shape, config.ppo, config.roles, Reward("verifier"), machine, prompt=LENGTH)


def run(kind: str, layout: str, model: ModelRef, name: str, steps: int, memory: bool) -> dict[str, Any]:
    """One training, or what it came to when it was run before."""
    settings = launched(layout)
    config, inputs = training(kind, model, steps, LAYOUTS[layout][1])
    folder = HOME / f"{kind}, {layout}, {name}, {steps}{', memory' * memory}".replace(" ", "-")
    kept = folder / "found.json"
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    progress = Progress(f"{kind}, {layout}")
    found = launch(
        f"{__name__ if __name__ != '__main__' else 'tests.benchmarks.scale'}:measured",
        config.model_dump(mode="json"),
        inputs.model_dump(mode="json") | {"stage": kind},
        folder,
        stage=kind,
        settings=settings,
        on_event=progress,
    )
    progress.close()
    times = [step["time"] for step in found["steps"]]
    loss = {"fine-tune": "train/loss", "reward model": "train/loss", "ppo": "policy/loss"}[kind]
    result = {
        "losses": [step[loss] for step in found["steps"] if loss in step],
        "step_s": median(later - earlier for earlier, later in pairwise(times)),
        "held_gb": (found["peak"] - found["before"]) / GB,
        "forecast_gb": forecast(kind, config, settings, name).total / GB,
    }
    kept.write_text(json.dumps(result))
    return result


def main() -> None:
    """Run what is missing, print a row per training, and the JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--kinds", nargs="+", default=list(STAGES), choices=list(STAGES))
    parser.add_argument("--memory", action="store_true", help="only the memory, and no JSON line")
    asked = parser.parse_args()
    set_environment()
    if not (asked.memory and os.environ.items() >= GIVING_BACK.items()):
        # Before anything else, in a process that the allocator's variables were there for.
        command = [sys.executable, "-m", "tests.benchmarks.scale", "--memory", "--model", asked.model]
        subprocess.run([*command, "--kinds", *asked.kinds], env=os.environ | GIVING_BACK, check=True)
        if asked.memory:
            return
    wanted = ModelConfig(model=asked.model)
    store = Store(str(HOME / "store"))
    manifest = compute(
        base_model.STAGE,
        wanted,
        base_model.locate(wanted),
        store,
        LaunchConfig(),
        lambda event: None,
    )
    model = BaseModelResult.model_validate(manifest.result).model
    if asked.memory:
        print(f"{'':30}{'held GB':>9}{'forecast':>10}{'ratio':>7}")
        for kind in asked.kinds:
            for layout in layouts_of(kind):
                one = run(kind, layout, model, asked.model, MEMORY_STEPS, memory=True)
                ratio = one["forecast_gb"] / one["held_gb"]
                print(
                    f"{f'{kind}, {layout}':30}{one['held_gb']:>9.2f}{one['forecast_gb']:>10.2f}{ratio:>7.2f}",
                    flush=True,
                )
        return
    print(
        f"{'':30}{'s/step':>8}{'speed':>8}{'loss off by':>13}{'held GB':>9}{'as usual':>10}{'forecast':>10}{'ratio':>7}"
    )
    found: dict[str, dict[str, Any]] = {}
    for kind in asked.kinds:
        alone = None
        for layout in layouts_of(kind):
            one = run(kind, layout, model, asked.model, asked.steps, memory=False)
            one["usual_gb"] = one["held_gb"]
            one["held_gb"] = run(kind, layout, model, asked.model, MEMORY_STEPS, memory=True)["held_gb"]
            alone = alone or one
            off = max(abs(ours - theirs) for ours, theirs in zip(one["losses"], alone["losses"], strict=True))
            one |= {"speed": alone["step_s"] / one["step_s"], "loss_off_by": off}
            one["forecast_ratio"] = one["forecast_gb"] / one["held_gb"]
            found[f"{kind}, {layout}"] = one
            print(
                f"{kind + ', ' + layout:30}{one['step_s']:>8.2f}{one['speed']:>8.2f}{off:>13.1e}"
                f"{one['held_gb']:>9.2f}{one['usual_gb']:>10.2f}{one['forecast_gb']:>10.2f}"
                f"{one['forecast_ratio']:>7.2f}",
                flush=True,
            )
    worst = max(abs(one["forecast_ratio"] - 1) for one in found.values())
    figures = {"name": "scale", "ratio": worst, "target": TARGET, "trainings": found}
    figures["loss_off_by"] = max(one["loss_off_by"] for one in found.values())
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
