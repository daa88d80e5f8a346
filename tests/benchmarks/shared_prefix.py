"""Rows behind their shared prefix (`training.batching=shared_prefix`) against padded ones: seconds of a step.

    python -m tests.benchmarks.shared_prefix [--steps 6]

SmolLM2-135M in float32 with an adapter, batches of 16, two kinds of rows: `sums` as deployments/configs/
rest-arithmetic.yaml trains on (a short instruction), and `library` as the demo has them (an instruction that names the
labels). The other sides are `length`, which pads little, and `random`, which has the very batches of `shared_prefix`:
how far the losses of these two are apart is shown beside the seconds. Sides take turns, forth and back; the ratio is
over the quicker of both.
"""

import argparse
import json
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from tasks import base_model
from tasks.base_model import ModelConfig
from tasks.core.examples import Example, make_example, write_rows
from tasks.core.references import DatasetRef, ModelRef
from tasks.data.gym import read_gym
from tasks.problems.base import ProblemConfig
from tasks.sft import stage
from tasks.sft.config import TrainingConfig
from tasks.sft.stage import TrainingInputs
from tests.benchmarks.reward import result_of

BATCH, TARGET = 16, 1.5
SIDES = ("length", "random", "shared_prefix")
LIBRARY = Path(__file__).parents[2] / "deployments" / "data" / "library-train.jsonl"
SUMS = "gym:chain_sum?seed=0&min_terms=2&max_terms=2&min_digits=2&max_digits=2"


def rows_of(name: str, count: int) -> tuple[ProblemConfig, list[Example]]:
    """A problem and so many rows of it."""
    if name == "sums":
        return ProblemConfig(name="gym"), [row for _, row in read_gym(f"{SUMS}&size={count}", "rows")]
    records = [json.loads(line) for line in LIBRARY.read_text(encoding="utf-8").splitlines()]
    rows = [make_example(record["text"], record["label"]) for record in records]
    labels = tuple(sorted({row.target for row in rows}))
    return ProblemConfig(name="classification", labels=labels), (rows * (count // len(rows) + 1))[:count]


def train(
    model: ModelRef, problem: ProblemConfig, rows: DatasetRef, batching: str, steps: int, folder: Path
) -> tuple[list[float], list[float]]:
    """Seconds of every step but the first, and the losses."""
    config = TrainingConfig(batching=batching, max_steps=steps + 1, batch_size=BATCH, checkpoint_steps=1000)
    events: list[tuple[float, float]] = []

    def report(event: dict[str, Any]) -> None:
        if "train/loss" in event:
            events.append((time.perf_counter(), event["train/loss"]))

    stage.run(config, TrainingInputs(model=model, train=rows, problem=problem), folder / "out", report)
    times = [at for at, _ in events]
    return [after - before for before, after in pairwise(times)], [loss for _, loss in events]


def main() -> None:
    """Measure both kinds of rows, print a row each, and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6)
    steps = parser.parse_args().steps
    config = ModelConfig()
    model = result_of(base_model.STAGE, config, base_model.locate(config), "base model").model
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("sums", "library"):
            problem, examples = rows_of(name, BATCH * (steps + 1))
            rows = write_rows(Path(scratch) / f"{name}.jsonl", examples)
            seconds: dict[str, list[float]] = {side: [] for side in SIDES}
            losses: dict[str, list[float]] = {}
            for turn, side in enumerate((*SIDES, *reversed(SIDES))):
                taken, losses[side] = train(
                    model, problem, rows, side, steps, Path(scratch) / f"{name}-{turn}"
                )
                seconds[side] += taken
            taken_by = {side: median(seconds[side]) for side in SIDES}
            ratio = min(taken_by["length"], taken_by["random"]) / taken_by["shared_prefix"]
            pairs = zip(losses["random"], losses["shared_prefix"], strict=True)
            apart = max(abs(one - other) for one, other in pairs)
            figures |= {f"{name}_ratio": ratio, f"{name}_loss_apart": apart}
            figures |= {f"{name}_{side}_seconds": value for side, value in taken_by.items()}
            told = ", ".join(f"{side} {value:.2f} s" for side, value in taken_by.items())
            print(f"{name:8} {told}: {ratio:.1f} times as fast; losses at most {apart:.4f} apart", flush=True)
    print(json.dumps({"name": "shared-prefix", "ratio": figures["sums_ratio"], "target": TARGET} | figures))


if __name__ == "__main__":
    main()
