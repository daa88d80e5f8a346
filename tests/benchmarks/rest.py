"""ReST-EM and ReST on sums against the same policy trained longer, over seeds.

    python -m tests.benchmarks.rest [ReST-EM | ReST] [SEED ...]

SmolLM2-135M learns from 300 generated sums (the warm start), then samples 4 answers to each of 2,000 others, of which
it keeps what a verifier finds right. Both methods run 3 iterations from deployments/configs/rest-arithmetic.yaml, where
the Improve steps of either start from the policy before (ReST-EM's published start, the base model, knows no sums), and
are tested on 500 held-out sums; beside them the warm start itself, the best of its 8 samples on the same 500, and the
300 sums alone trained for as many optimizer steps as the last policy had. Seeds are 0, 1 and 2, methods both, unless
given.
Every arm is a flow run with cached stages beneath build/bench, so that an interrupted benchmark goes on; two run side
by side, a core each, and write a log each to build/bench/rest.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import IO, Any

ROOT = Path(__file__).parents[2]
HOME = ROOT / "build" / "bench" / "rest"
CONFIG = "deployments/configs/rest-arithmetic.yaml"
TARGET = 15.0  # points over the warm start
AT_ONCE = 2  # flows side by side, one core each
ARMS = {
    "ReST-EM": {},
    "ReST": {"method": "rest", "improve.levels": "[0.5,0.99]", "improve.start": "previous"},
}


def precision() -> str:
    """bfloat16 where the processor multiplies in it (twice as fast here), else float32."""
    import torch

    fast = (
        torch.cuda.is_available()
        or torch.cpu._is_avx512_bf16_supported()
        or torch.cpu._is_amx_tile_supported()
    )
    return "bfloat16" if fast else "float32"


def flow(name: str, seed: int) -> dict[str, Any]:
    """One flow run; its JSON line."""
    settings = {f"{part}.seed": str(seed) for part in ("training", "grow", "improve")} | ARMS[name]
    settings |= {"training.precision": precision(), "grow.best_of": "8"}
    flags = [f"--{field}={value}" for field, value in settings.items()]
    log = HOME / f"{name}-{seed}.log"
    with log.open("a") as said:
        done = _run(flags, said)
    if done.returncode:
        raise SystemExit(f"{name}, seed {seed}, ended with {done.returncode}; its log is {log}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _run(flags: list[str], said: IO[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "flows", "rest", "--config", CONFIG, *flags],
        env=os.environ | {"LOOPWRIGHT_HOME": str(HOME), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=said,
        text=True,
    )


def interval(figures: dict[str, float]) -> str:
    """An accuracy with its interval."""
    low, middle, high = (figures[f"eval/accuracy{end}"] for end in ("_low", "", "_high"))
    return f"{middle:.1%} ({low:.1%} to {high:.1%})"


def main(words: list[str]) -> None:
    """Run what is missing, print a row per arm and seed, and the JSON line."""
    arms = [word for word in words if word in ARMS] or list(ARMS)
    seeds = [int(word) for word in words if word not in ARMS] or [0, 1, 2]
    summary: dict[str, Any] = {}
    HOME.mkdir(parents=True, exist_ok=True)
    pool = ThreadPoolExecutor(AT_ONCE)
    calls = {(name, seed): pool.submit(flow, name, seed) for name in arms for seed in seeds}
    for name in arms:
        rows, rises = [], []
        for seed in seeds:
            result = calls[name, seed].result()
            warm = result["baselines"]["warm start"]
            longer = result["baselines"]["seed rows only, equal steps"]
            accuracy = [figures["eval/accuracy"] for figures in result["iterations"]]
            rows.append((warm, longer, result["iterations"]))
            course = [warm["eval/accuracy"], *accuracy]
            rises.append(all(before < after for before, after in pairwise(course)))
            print(
                f"{name:8} seed {seed}: warm start {interval(warm)}; iterations "
                + ", ".join(map(interval, result["iterations"]))
                + f"; {'better every time' if rises[-1] else 'not better every time'}; "
                f"equal steps {interval(longer)}; "
                f"the warm start's best of 8 {warm['reward/test_best_of_8']:.1%}",
                flush=True,
            )
        gains = [100 * (its[-1]["eval/accuracy"] - warm["eval/accuracy"]) for warm, _, its in rows]
        over_longer = [100 * (its[-1]["eval/accuracy"] - longer["eval/accuracy"]) for _, longer, its in rows]
        summary[name] = {"gain": mean(gains), "gains": gains, "over_equal_steps": over_longer, "rises": rises}
        print(
            f"{name:8} gains {mean(gains):+.1f} points over the warm start, "
            f"{mean(over_longer):+.1f} over equal steps"
        )
    best = max(summary, key=lambda name: summary[name]["gain"])
    print(
        json.dumps(
            {
                "name": "rest",
                "ratio": summary[best]["gain"] / TARGET,
                "target": 1.0,
                "gain": min(summary[best]["gain"], mean(summary[best]["over_equal_steps"])),
                "method": best,
                "seeds": seeds,
            }
            | summary
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
