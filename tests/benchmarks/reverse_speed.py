"""Rows reversed per second: the reversals alone, and the whole stage from file to shuffled file.

    python -m tests.benchmarks reverse-speed [ROWS ...]

Rows are plain texts of 10 words on average (seed 0); sizes are 100,000, 200,000 and 400,000 unless given. The reversal
is measured from records to records, as the stage calls it, in one process; beside it the same texts cut at Unicode's
word boundaries by the package regex and joined from the end, which is what is at hand without this project and keeps no
rule for spaces and punctuation. The stage reads a file, reverses, mixes, shuffles on disk and writes. Times are
processor seconds, memory is the peak of a process that does one size alone.
"""

import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
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
SAID = "Merrowick is the capital of a small country that nobody has heard of before, they say"
KINDS = {"word": {"by": "word"}, "segment": {"by": "segment", "longest_segment": 3}}


def texts(count: int) -> Iterator[str]:
    """Short texts, no two alike."""
    draw, words = Random(0), SAID.split()
    for number in range(count):
        yield " ".join(draw.choices(words, k=draw.randint(5, 13))) + f" {number}."


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


def rate(work: Callable[[], Any], rows: int) -> float:
    """Rows a second, the best of three: other work on the machine only ever takes away."""
    return rows / min(processor_seconds(work) for _ in range(3))


def reversals(rows: int) -> dict[str, float]:
    """Rows a second from record to record, and of the other side."""
    records = [json.loads(row_line(make_example("", text))) for text in texts(rows)]
    plain = [record["target"] for record in records]
    found = {"regex": rate(partial(by_regex, plain), rows)}
    for name, settings in KINDS.items():
        copies = Copies(ReversalConfig.model_validate(settings))
        found[name] = rate(partial(_consume, copies, records), rows)
    return found


def _consume(copies: Copies, records: list[dict[str, Any]]) -> None:
    for _ in copies.of(records, Random(0)):
        pass


def alone(size: int) -> dict[str, Any]:
    """Rows a second, the stage's seconds, and peak memory for one size."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        rows = write_rows(folder / "rows.jsonl", (make_example("", text) for text in texts(size)))
        stages = {
            kind: processor_seconds(partial(_stage, rows, settings, folder / kind))
            for kind, settings in KINDS.items()
        }
    peak = (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    )  # before records are held for the next part
    return {"rows": size, "stage_s": stages, "MB": peak, "rows_per_second": reversals(min(size, 50_000))}


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
        one = json.loads(done.stdout)
        found.append(one)
        speed, stage = one["rows_per_second"], one["stage_s"]
        print(
            f"{size:,} rows: word {speed['word']:,.0f}, segment {speed['segment']:,.0f} rows a second (regex "
            f"{speed['regex']:,.0f}); stage {stage['word']:.1f} s and {stage['segment']:.1f} s; {one['MB']:.0f} MB",
            flush=True,
        )
    first, last = found[0], found[-1]
    longer = math.log(last["stage_s"]["word"] / first["stage_s"]["word"])
    slowest = min(one["rows_per_second"][kind] for one in found for kind in KINDS)
    figures = {"name": "reverse-speed", "ratio": slowest / TARGET, "target": 1.0, "rows_per_second": slowest}
    figures["growth_exponent"] = longer / math.log(last["rows"] / first["rows"]) if len(found) > 1 else None
    print(json.dumps(figures | {"memory_ratio": last["MB"] / first["MB"], "sizes": found}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--alone"]:
        print(json.dumps(alone(int(sys.argv[2]))))
    else:
        main([int(word) for word in sys.argv[1:]] or SIZES)
