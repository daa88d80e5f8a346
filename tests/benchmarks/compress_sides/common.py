"""The texts, the rate, and how a side works when it is told to."""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("LOOPWRIGHT_SHARED_DATA", ROOT.parent / "shared" / "data")) / "hh" / "pairs.jsonl"
FOLDER = ROOT / "build" / "bench" / "compress"
MODEL = FOLDER / "bert-base-multilingual-cased"
"""The package tells by this name which special tokens the model has."""
RATE, BATCH_TOKENS = 0.5, 4096
LONG, JOINED = 6, 12
MODES = ("stream", "set", "long")


def texts(mode: str, count: int) -> list[str]:
    """Dialogues as they are, or, for `long`, `LONG` texts of `JOINED` dialogues each."""
    with DATA.open(encoding="utf-8") as file:
        rows = [json.loads(line)["chosen"].strip() for line in file]
    if mode != "long":
        return rows[:count]
    return ["\n\n".join(rows[-JOINED * (number + 1) :][:JOINED]) for number in range(LONG)]


def serve(work: Callable[[list[str], str], Any]) -> None:
    """Read commands from the benchmark, one a line (texts and mode), and answer each with seconds, peak and result.

    `work` returns its result, or its own seconds with it as a tuple. What a library prints goes to standard error.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps({"loaded_gb": peak_gb()}), file=answers, flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        begun, cpu = time.perf_counter(), time.process_time()
        result = work(command["texts"], command["mode"])
        told = {"seconds": time.perf_counter() - begun, "cpu_s": time.process_time() - cpu}
        told |= result.pop("timed", {})
        print(json.dumps(told | {"peak_gb": peak_gb()} | result), file=answers, flush=True)


def peak_gb() -> float:
    """The most memory this process has held so far, in GB (10^9 bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
