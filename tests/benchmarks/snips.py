"""LLM2LLM on SNIPS against fair baselines, paired over seeds.

    python -m tests.benchmarks.snips [ROWS ...]

Student and teacher are SmolLM2-135M, the teacher behind a llama.cpp server that speaks the OpenAI protocol. ROWS are
seed rows per intent: 1 and 3 with three seeds each, 10 with one; without ROWS it is 1, which takes about 40 minutes on
2 cores. For each: the seed rows alone at equal epochs (the loop's own first iteration), the seed rows alone with the
loop's optimizer steps, untargeted augmentation, and LLM2LLM with 4 iterations.
Every arm is a flow run with cached stages beneath build/bench, so that an interrupted benchmark goes on.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from tests.llama_cpp_server import llama_cpp_server

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("LOOPWRIGHT_SHARED_DATA", ROOT.parent / "shared" / "data")) / "snips"
HOME = ROOT / "build" / "bench" / "snips"
CONFIG = "deployments/configs/llm2llm-snips.yaml"
PLAN = {1: (0, 1, 2), 3: (0, 1, 2), 10: (0,)}  # seed rows per intent: seeds
ARMS = ("seed only", "seed only, equal steps", "untargeted", "LLM2LLM")
STUDENTS_T = {1: 12.706, 2: 4.303}  # 97.5 % quantile of Student's t, by degrees of freedom


def flow(rows: int, seed: int, teacher: str, *flags: str) -> dict[str, Any]:
    """One flow run; its JSON line."""
    settings = {
        "data.train": DATA / "train.jsonl",
        "data.test": DATA / "test.jsonl",
        "data.seed_per_label": rows,
    }
    settings |= {f"{part}.seed": seed for part in ("data", "training", "augment", "failures")}
    settings |= {"teacher.engine.engine": "openai", "teacher.engine.endpoint.url": teacher}
    command = [sys.executable, "-m", "flows", "llm2llm", "--config", CONFIG]
    command += [f"--{name}={value}" for name, value in settings.items()]
    environment = os.environ | {"LOOPWRIGHT_HOME": str(HOME), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*command, *flags], env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def arms(rows: int, seed: int, teacher: str) -> dict[str, dict[str, float]]:
    """The figures of the four arms; the two loops share their first iteration."""
    loop = flow(rows, seed, teacher)
    untargeted = flow(rows, seed, teacher, "--failures.target=untargeted", "--equal_steps=false")
    # A loop that stopped after its first iteration trained on the seed rows alone.
    equal = next(iter(loop["baselines"].values()), loop["iterations"][0])
    parts = (loop["iterations"][0], equal, untargeted["metrics"], loop["metrics"])
    return dict(zip(ARMS, parts, strict=True))


def interval(differences: list[float]) -> tuple[float, float, float]:
    """Mean and 95 % t-interval of paired differences; for one pair the interval is the point."""
    centre = mean(differences)
    if len(differences) < 2:
        return centre, centre, centre
    half = STUDENTS_T[len(differences) - 1] * stdev(differences) / len(differences) ** 0.5
    return centre, centre - half, centre + half


def main(levels: list[int]) -> None:
    """Run what is missing, print a row per arm and seed, the paired differences, and the JSON line."""
    if not DATA.is_dir():
        sys.exit(f"the data are not there: {DATA} (set LOOPWRIGHT_SHARED_DATA)")
    results: dict[int, list[dict[str, dict[str, float]]]] = {}
    with llama_cpp_server() as teacher:
        for rows in levels:
            results[rows] = [arms(rows, seed, teacher) for seed in PLAN[rows]]
    summary: dict[str, Any] = {}
    for rows, runs in results.items():
        print(
            f"\n{rows} seed rows per intent, seeds {', '.join(map(str, PLAN[rows]))}; test accuracy and optimizer steps"
        )
        for arm in ARMS:
            accuracies = [run[arm]["eval/accuracy"] for run in runs]
            steps = [run[arm]["train/steps"] for run in runs]
            cells = "   ".join(f"{a:6.1%} {s:4.0f}" for a, s in zip(accuracies, steps, strict=True))
            print(f"  {arm:24}{cells}   mean {mean(accuracies):6.1%}")
        seed_only = max(ARMS[:2], key=lambda arm: mean(run[arm]["eval/accuracy"] for run in runs))
        for name, other in (("seed_only", seed_only), ("untargeted", "untargeted")):
            pairs = [100 * (run["LLM2LLM"]["eval/accuracy"] - run[other]["eval/accuracy"]) for run in runs]
            centre, low, high = interval(pairs)
            print(f"  LLM2LLM over {other}: {centre:+.1f} points ({low:+.1f} to {high:+.1f})")
            summary[f"{rows}_over_{name}"] = {"mean": centre, "low": low, "high": high, "pairs": pairs}
    gains = {
        rows: min(summary[f"{rows}_over_{other}"]["mean"] for other in ("seed_only", "untargeted"))
        for rows in results
    }
    best = max(gains, key=lambda rows: gains[rows])
    accuracy = {arm: mean(run[arm]["eval/accuracy"] for run in results[best]) for arm in ARMS}
    ratio = accuracy["LLM2LLM"] / max(value for arm, value in accuracy.items() if arm != "LLM2LLM")
    print(
        json.dumps(
            {"name": "snips", "ratio": ratio, "target": 1.0, "gain": gains[best], "rows_per_intent": best}
            | summary
        )
    )


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [1])
