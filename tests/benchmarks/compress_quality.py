"""What a distilled compressor costs and saves: answers to prompts 2, 3 and 5 times shorter, and other ways to cut them.

    python -m tests.benchmarks.compress_quality

One run of the flow `compress`: SmolLM2-135M behind a llama.cpp server shortens 600 requests to a voice assistant
(SNIPS, training rows, seed 0), all-MiniLM-L6-v2 learns from what quality control leaves, and SmolLM2-135M, fine-tuned
on 10 whole rows per intent, names the intent of 350 test rows: whole, compressed, with random words, without stop
words, and cut off, at the same rates. Then LLM2LLM runs twice with the same server as its teacher, from 3 rows per
intent in 2 iterations: with the compressor in front of the teacher, keeping half of what it is shown, and without.

All stages are cached beneath build/bench/compress-quality, so that an interrupted benchmark goes on. About 35 minutes
on two cores.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import mean
from typing import Any

from tests.llama_cpp_server import llama_cpp_server

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("LOOPWRIGHT_SHARED_DATA", ROOT.parent / "shared" / "data")) / "snips"
HOME = ROOT / "build" / "bench" / "compress-quality"
RATES = (0.5, 0.333, 0.2)
BASELINES = ("random", "stop words", "truncation")
SNIPS = {
    "data.train": DATA / "train.jsonl",
    "data.test": DATA / "test.jsonl",
    "data.problem": "classification",
    "data.input": "text",
    "data.target": "label",
}


def flow(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """One flow run; its JSON line."""
    command = [sys.executable, "-m", "flows", name, *(f"--{key}={value}" for key, value in settings.items())]
    environment = os.environ | {"LOOPWRIGHT_HOME": str(HOME), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def distilled(teacher: str) -> dict[str, Any]:
    """The flow `compress` on SNIPS."""
    return flow(
        "compress",
        SNIPS
        | {
            "texts.train": DATA / "train.jsonl",
            "texts.rows": 600,
            "teacher.engine.engine": "openai",
            "teacher.engine.endpoint.url": teacher,
            "distillation.max_new_tokens": 48,
            "training.learning_rate": 1e-4,
            "data.seed_per_label": 10,
            "answers.fine_tune": "true",
            "answers.training.learning_rate": 5e-4,
            "measured.rates": json.dumps(RATES),
        },
    )


def looped(teacher: str, compressor: str) -> dict[str, Any]:
    """LLM2LLM on SNIPS; an empty compressor is none."""
    return flow(
        "llm2llm",
        SNIPS
        | {
            "data.seed_per_label": 3,
            "iterations": 2,
            "equal_steps": "false",
            "training.learning_rate": 5e-4,
            "training.epochs": 6,
            "augment.shown": 2,
            "augment.attempts": 2,
            "augment.max_new_tokens": 96,
            "teacher.engine.engine": "openai",
            "teacher.engine.endpoint.url": teacher,
            "teacher.engine.compressor.model": compressor,
            "teacher.engine.compressor.rate": 0.5,
            "teacher.engine.compressor.shortest": 8,
        },
    )


def main() -> None:
    """Run what is missing, print tables and the JSON line."""
    if not DATA.is_dir():
        sys.exit(f"there is no {DATA}: set LOOPWRIGHT_SHARED_DATA to the folder of the shared data")
    with llama_cpp_server() as teacher:
        made = distilled(teacher)
        metrics, rows = made["metrics"], {row["inputs"]: row for row in made["arms"]}
        print(
            f"{metrics['data/kept']:.0f} of {metrics['data/generated']:.0f} answers of the teacher kept; F1 at the "
            f"teacher's rate {metrics['words/f1_at_rate']:.3f} (random {metrics['words/kept_share']:.3f})"
        )
        for name, row in rows.items():
            less = ""
            if name != "whole prompts":
                low, high = row["less whole, low"], row["less whole, high"]
                less = f"{row['less whole']:+.1%} ({low:+.1%} to {high:+.1%})"
            print(
                f"{name:22} {row['accuracy']:6.1%} ({row['low']:.1%} to {row['high']:.1%})  kept {row['kept']:.3f}  "
                f"{row['prompt tokens']:>7,} prompt tokens  {less}",
                flush=True,
            )
        without = looped(teacher, "")["metrics"]
        with_it = looped(teacher, made["model"]["uri"])
    loops = with_it["iterations"]
    saved = sum(one.get("teacher/tokens_saved", 0) for one in loops)
    spent = sum(one.get("teacher/tokens", 0) for one in loops)
    print(
        f"LLM2LLM: {without['eval/accuracy']:.1%} without, {with_it['metrics']['eval/accuracy']:.1%} with the "
        f"compressor, which saved {saved:,.0f} tokens beside {spent:,.0f} spent"
    )
    best = {rate: max(rows[f"{arm} at {rate:g}"]["accuracy"] for arm in BASELINES) for rate in RATES}
    ours = {rate: rows[f"compressor at {rate:g}"]["accuracy"] for rate in RATES}
    figures = {
        "name": "compress-quality",
        "ratio": mean(ours.values()) / mean(best.values()),
        "target": 1.0,
        "gain": 100 * mean(ours[rate] - best[rate] for rate in RATES),
        "arms": made["arms"],
        "teacher_pairs": metrics["data/generated"],
        "teacher_pairs_kept": metrics["data/kept"],
        "f1_at_rate": metrics["words/f1_at_rate"],
        "kept_share": metrics["words/kept_share"],
        "llm2llm_without": without["eval/accuracy"],
        "llm2llm_with": with_it["metrics"]["eval/accuracy"],
        "llm2llm_tokens_saved": saved,
        "llm2llm_tokens_spent": spent,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
