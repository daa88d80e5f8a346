"""Instruction data by a real teacher from 175 seeds, against plain sampling; and how the duplicate filter grows.

    python -m tests.benchmarks instruct [--rows 1000] [--plain 300] [--largest 1000000]

The teacher is SmolLM2-135M behind llama.cpp, too small for the work: what is measured is the yield of every operation
(rows kept of instructions written), seconds per kept row, and the variety of the rows beside that of plain
sampling, where the same teacher is asked for an instruction without being shown any and nothing is dropped. Variety is
counted among as many rows of each: pairs of words that differ, exact repetitions, the mean likeness (cosine of
all-MiniLM-L6-v2) to the nearest other row, and how many equal clusters they would fill. Then the filter's index decides
on 1,000 to 1,000,000 rows (tests.benchmarks.dedup has their pattern), at the thresholds of Self-Instruct (0.7) and of
the other operations (0.95); its seconds are those of the processor. The teacher's part is a cached stage beneath
build/bench whose rounds are kept, so that an interrupted benchmark goes on.
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

from flows.instruct import InstructConfig
from tasks import base_model
from tasks.base_model import ENCODER, ModelConfig
from tasks.core.examples import read_examples
from tasks.core.generators.base import Prompt, Sampling
from tasks.core.generators.load import load_generator
from tasks.core.launching.launch import LaunchConfig
from tasks.core.progress import Progress
from tasks.core.settings import set_environment
from tasks.core.stage import compute
from tasks.core.store import Store
from tasks.filter.rouge import RougeIndex
from tasks.grow.diversity import distinct_n
from tasks.instruct import data, stage
from tasks.instruct.config import MixConfig, WritingConfig
from tasks.instruct.coverage import cluster, effective_number, nearest_cosine
from tasks.instruct.embedding import embed
from tasks.instruct.stage import WritingInputs, WritingResult
from tests.benchmarks.batchprompt import asking
from tests.benchmarks.dedup import seconds, texts
from tests.llama_cpp_server import MODEL, llama_cpp_server

ROOT = Path(__file__).parents[2]
HOME = ROOT / "build" / "bench" / "instruct"
SEEDS = ROOT / "deployments" / "data" / "instruct-seeds.jsonl"
PLAIN = "Write one instruction that a person could give to an assistant. Answer with the instruction alone."
MOST_EXPONENT = 1.25
THRESHOLDS = {0.7: 100_000, 0.95: 1_000_000}
"""Of each threshold of the filter the most rows it is tried on."""


def written(rows: int) -> tuple[WritingResult, float]:
    """The teacher's rows, from the store or written now, and the seconds that took (all attempts together)."""
    config = InstructConfig.model_validate({"data": {"seeds": str(SEEDS)}}).data
    store, launch = Store(str(HOME / "store")), LaunchConfig()
    progress = Progress("data")
    found = compute(data.STAGE, config, data.inputs(config), store, launch, progress)
    writing = WritingConfig(
        rows=rows,
        mix=MixConfig(self_instruct=1, evol=1, paraphrase=0.5),
        per_round=64,
        languages=("en",),
        instruction_tokens=80,
        response_tokens=80,
        patience=10,
    )
    progress = Progress("write")
    with llama_cpp_server(slots=8, context=1536) as url:
        inputs = WritingInputs(teacher=asking(url, MODEL), data=data.InstructData(**found.result))
        took, result = seconds_by_the_clock(compute, stage.STAGE, writing, inputs, store, launch, progress)
    progress.close()
    times = HOME / "seconds.json"
    kept: dict[str, float] = json.loads(times.read_text()) if times.exists() else {}
    if took > 5:  # not from the store
        kept[str(rows)] = kept.get(str(rows), 0) + took
        times.write_text(json.dumps(kept))
    return WritingResult.model_validate(result.result), kept.get(str(rows), took)


def seconds_by_the_clock(work: Any, *arguments: Any) -> tuple[float, Any]:
    """How long `work` takes, waiting included, and its result."""
    start = time.monotonic()
    result = work(*arguments)
    return time.monotonic() - start, result


def plainly(count: int) -> list[str]:
    """Instructions of the same teacher that is shown nothing, kept as they come."""
    path = HOME / f"plain-{count}.json"
    if not path.exists():
        prompts: list[Prompt] = [[{"role": "user", "content": PLAIN}]] * count
        sampling = Sampling(max_new_tokens=80, temperature=0.7, seed=0)
        with llama_cpp_server(slots=8, context=1536) as url:
            teacher = load_generator(asking(url, MODEL).engine, None, field="teacher")
            answers = teacher.generate(prompts, sampling, streams=list(range(count)))
        path.write_text(json.dumps([answer.text.strip() for answer in answers]))
    return list(json.loads(path.read_text()))


def variety(found: list[str], encoder: Path) -> dict[str, float]:
    """How much the texts differ."""
    vectors = embed(encoder, found)
    clusters = cluster(vectors, seed=0)
    return {
        "distinct_2": distinct_n(found, 2),
        "repeated": 1 - len(set(found)) / len(found),
        "to_nearest": float(nearest_cosine(vectors, vectors, same=True).mean()),
        "even_clusters": effective_number(clusters.labels),
        "clusters": float(len(clusters.nearest)),
    }


def decided(threshold: float, rows: list[str]) -> int:
    """How many rows the index keeps, each compared with all that were kept before."""
    index, kept = RougeIndex(threshold), 0
    for number, text in enumerate(rows):
        if index.find(text) is None:
            index.add(str(number), text)
            kept += 1
    return kept


def growth(threshold: float, largest: int) -> tuple[dict[int, float], float]:
    """Seconds by number of rows, and the power of the rows by which they grow."""
    taken: dict[int, float] = {}
    count = 1_000
    while count <= largest:
        rows = texts(count, seed=count)
        taken[count], kept = seconds(decided, threshold, rows)
        print(
            f"  above {threshold}: {count:>9,} rows {taken[count]:>9.2f} s, {kept:,} kept",
            flush=True,
        )
        count *= 10
    first, last = min(taken), max(taken)
    return taken, math.log(taken[last] / taken[first]) / math.log(last / first) if last > first else 0.0


def main() -> None:
    """Measure, print the tables and the JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1000, help="rows wanted of the teacher, 0 for none")
    parser.add_argument(
        "--plain", type=int, default=300, help="rows of plain sampling, and of the comparison"
    )
    parser.add_argument("--largest", type=int, default=1_000_000, help="most rows of the filter")
    asked = parser.parse_args()
    HOME.mkdir(parents=True, exist_ok=True)
    set_environment()
    figures: dict[str, Any] = {"name": "instruct", "target": 1.0}
    print("The filter's index, processor seconds")
    exponents = {}
    for threshold, most in THRESHOLDS.items():
        taken, exponents[threshold] = growth(threshold, min(most, asked.largest))
        print(f"  seconds grow as rows to the power of {exponents[threshold]:.2f}")
        figures[f"growth_{threshold}"] = {str(count): round(spent, 3) for count, spent in taken.items()}
    figures |= {f"exponent_{threshold}": round(power, 3) for threshold, power in exponents.items()}
    figures["ratio"] = MOST_EXPONENT / max(exponents.values())
    if asked.rows:
        figures |= _teacher(asked.rows, asked.plain)
    print(json.dumps(figures))


def _teacher(count: int, plain: int) -> dict[str, Any]:
    result, took = written(count)
    print(f"\n{result.rows.rows} of {count} rows in {took:.0f} s; {result.stopped or 'all there'}")
    print(f"{'operation':<20}{'asked':>7}{'written':>9}{'kept':>6}{'yield':>8}  rejected")
    for one in result.operations:
        rejected = ", ".join(f"{number} {reason}" for reason, number in one.rejected.items())
        print(
            f"{one.operation:<20}{one.asked:>7}{one.written:>9}{one.kept:>6}{one.kept_share:>8.1%}  {rejected}"
        )
    files = base_model.locate(ModelConfig(model=ENCODER), "encoder.model")
    encoder = compute(
        base_model.STAGE,
        ModelConfig(model=ENCODER),
        files,
        Store(str(HOME / "store")),
        LaunchConfig(),
        Progress(""),
    )
    folder = Path(encoder.result["model"]["uri"])
    rows = [row.input for row in read_examples(result.rows)][:plain]
    both = {"plain sampling": plainly(len(rows)), "instruct": rows}
    title = f"of {len(rows)} rows"
    print(f"\n{title:<16}{'pairs of words':>15}{'repeated':>10}{'to nearest':>12}{'clusters':>10}")
    measured = {name: variety(found, folder) for name, found in both.items()}
    for name, one in measured.items():
        print(
            f"{name:<16}{one['distinct_2']:>15.1%}{one['repeated']:>10.1%}{one['to_nearest']:>12.2f}"
            f"{one['even_clusters']:>10.1f}"
        )
    return {
        "rows": result.rows.rows,
        "seconds_per_kept_row": took / max(1, result.rows.rows),
        "yield": {one.operation: one.kept_share for one in result.operations},
        "variety": measured,
    }


if __name__ == "__main__":
    main()
