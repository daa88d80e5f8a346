"""Rows reversed per second: the reversals alone, and the whole stage from file to shuffled file.

    python -m tests.benchmarks.reverse-speed [ROWS ...]

Rows are plain texts of 10 words on average (seed 0); sizes are 100,000, 200,000 and 400,000 unless given. The reversal is
measured from records to records, as the stage calls it, in one process; beside it the same rows by the package regex
with Unicode's word boundaries and `"".join(reversed(…))`, which is what is at hand without this project. The stage reads
a file, reverses, mixes, shuffles on disk and writes. Times are processor seconds, memory is the peak of a process that
does one size alone.
"""

import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from tasks.core.examples import make_example, row_line, write_rows
from tasks.core.references import DatasetRef
from tasks.problems.base import ProblemConfig
from tasks.reversal.config import ReversalConfig
from tasks.reversal.copies import Copies
from tasks.reversal.stage import ReversalInputs, run

SIZES = [100_000, 200_000, 400_000]
TARGET = 50_000  # rows a second
WORDS = [
    "Merrowick",
    "is",
    "the",
    "capital",
    "of",
    "a",
    "small",
    "country",
    "that",
    "nobody",
    "has",
    "heard",
    "of",
    "before,",
    "they",
    "say",
]
KINDS = {"word": {"by": "word"}, "segment": {"by": "segment", "longest_segment": 3}}


def texts(count: int) -> Iterator[str]:
    """Short texts, no two alike."""
    draw = Random(0)
    for number in range(count):
        yield " ".join(draw.choices(WORDS, k=draw.randint(5, 13))) + f" {number}."


def processor_seconds(work: Callable[[], Any]) -> float:
    """What a call takes of this thread's time."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def by_regex(rows: list[str]) -> list[str]:
    """The other side: words reversed by Unicode's boundaries, without any rule for what stands between them."""
    import regex

    boundaries = regex.compile(r"\b", regex.V1 | regex.WORD)
    return ["".join(reversed(boundaries.split(row))) for row in rows]


def alone(size: int) -> dict[str, Any]:
    """Rows a second and peak memory for one size."""
    found: dict[str, Any] = {"rows": size}
    few = [json.loads(row_line(make_example("", text))) for text in texts(min(size, 100_000))]
    for name, settings in KINDS.items():
        copies = Copies(ReversalConfig.model_validate(settings))
        spent = processor_seconds(lambda copies=copies: sum(1 for _ in copies.of(few, Random(0))))
        found[f"{name} reversal"] = len(few) / spent
    plain = [row["target"] for row in few]
    found["regex"] = len(plain) / processor_seconds(lambda: by_regex(plain))
    del few, plain
    with TemporaryDirectory() as name:
        folder = Path(name)
        rows = write_rows(folder / "rows.jsonl", (make_example("", text) for text in texts(size)))
        for kind, settings in KINDS.items():
            found[f"{kind} stage s"] = processor_seconds(
                lambda kind=kind, settings=settings: _stage(rows, settings, folder / kind)
            )
    found["MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


def _stage(rows: DatasetRef, settings: dict[str, Any], out: Path) -> None:
    out.mkdir()
    inputs = ReversalInputs(train=rows, problem=ProblemConfig(name="dialogue"))
    result = run(ReversalConfig.model_validate(settings), inputs, out, lambda event: None)
    assert result.mixed.rows == 2 * rows.rows, result


def main(sizes: list[int]) -> None:
    """Run every size in a process of its own, print a table, and the JSON line."""
    found = []
    for size in sizes:
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.reverse_speed", "--alone", str(size)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        found.append(json.loads(done.stdout))
        print(
            "{rows:,} rows: word {0:,.0f}, segment {1:,.0f} rows a second (regex {regex:,.0f}); stage {2:.1f} s and "
            "{3:.1f} s; {MB:.0f} MB".format(*(found[-1][name] for name in _SHOWN), **found[-1]),
            flush=True,
        )
    first, last = found[0], found[-1]
    growth = math.log(last["word stage s"] / first["word stage s"]) / math.log(last["rows"] / first["rows"])
    slowest = min(one[f"{kind} reversal"] for one in found for kind in KINDS)
    figures = {"name": "reverse-speed", "ratio": slowest / TARGET, "target": 1.0, "rows_per_second": slowest}
    figures |= {"growth_exponent": growth, "memory_ratio": last["MB"] / first["MB"], "sizes": found}
    print(json.dumps(figures))


_SHOWN = ("word reversal", "segment reversal", "word stage s", "segment stage s")

if __name__ == "__main__":
    if sys.argv[1:2] == ["--alone"]:
        print(json.dumps(alone(int(sys.argv[2]))))
    else:
        main([int(word) for word in sys.argv[1:]] or SIZES)
