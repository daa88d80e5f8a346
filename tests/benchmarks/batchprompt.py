"""Labelling many rows in one prompt, in several rounds, against a prompt for every row, with the same server.

    python -m tests.benchmarks.batchprompt [--rows 3200] [--real-rows 64]

Two servers. The first is scripted, so that the truth is known: it errs on a row with a probability that depends on the
row's place in the batch (5 %, and 30 % in the last quarter), and says that it is not sure more often when it errs. What
a majority of 1, 3 or 5 rounds must come to, with and without early stopping, follows from these four numbers by adding
up all courses a row can take; every measured accuracy has to lie within three standard errors of it. The second is
SmolLM2-135M behind llama.cpp, labelling SNIPS (shared data) with 7 demonstrations: reported as it is.
Every setting is a cached stage beneath build/bench, so that an interrupted benchmark goes on.
"""

import argparse
import json
import os
import random
import re
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from tasks.augment.teacher import Teacher
from tasks.core.examples import make_example, write_rows
from tasks.core.generators.endpoint import EndpointConfig
from tasks.core.generators.load import EngineConfig
from tasks.core.launching.launch import LaunchConfig
from tasks.core.progress import Progress
from tasks.core.stage import compute
from tasks.core.store import Store
from tasks.data.formats import parse
from tasks.data.sources import read_files
from tasks.label import stage
from tasks.label.config import LabellingConfig
from tasks.label.reading import Ballot
from tasks.label.stage import LabelInputs, LabelResult
from tasks.label.voting import settled, vote
from tasks.problems.base import ProblemConfig
from tests.llama_cpp_server import MODEL, llama_cpp_server
from tests.scripted_server import Reply, ScriptedServer, completion

ROOT = Path(__file__).parents[2]
HOME = ROOT / "build" / "bench" / "batchprompt"
DATA = Path(os.environ.get("LOOPWRIGHT_SHARED_DATA", ROOT.parent / "shared" / "data")) / "snips"
TARGET = 0.84
"""The share of the calls that batches of 32 must save, with early stopping."""
LABELS = ("even", "odd")
ERROR, BIASED_ERROR, BIASED_SHARE = 0.05, 0.30, 0.25
SURE_WHEN_RIGHT, SURE_WHEN_WRONG = 0.9, 0.4
SIZES, ROUNDS = (8, 16, 32), (1, 3, 5)
_INPUT = re.compile(r"^Input \d+: number (\d+)$", re.MULTILINE)


def scripted(request: dict[str, Any]) -> Reply:
    """An answer with errors of the stated rates, the same for the same prompt."""
    prompt = request["messages"][-1]["content"]
    numbers = [int(number) for number in _INPUT.findall(prompt)]
    chance = random.Random(prompt)
    words = len(json.dumps(request["messages"])) // 4
    if not numbers:
        wrong = chance.random() < ERROR
        return completion(LABELS[(int(prompt.split()[-1]) + wrong) % 2], tokens=(words, 2))
    lines = []
    for place, number in enumerate(numbers):
        biased = place >= (1 - BIASED_SHARE) * len(numbers)
        wrong = chance.random() < (BIASED_ERROR if biased else ERROR)
        sure = chance.random() < (SURE_WHEN_WRONG if wrong else SURE_WHEN_RIGHT)
        words_of = "confident" if sure else "not confident"
        lines.append(f"Label for Input {place}: [{LABELS[(number + wrong) % 2]}] ({words_of})")
    return completion("\n".join(lines), tokens=(words, 12 * len(lines)))


def theory(rounds: int, stop_early: bool) -> float:
    """The share of rows that a majority of so many rounds must get right: all courses a row can take, added up."""
    wrong = BIASED_SHARE * BIASED_ERROR + (1 - BIASED_SHARE) * ERROR
    outcomes = {
        Ballot("right", True): (1 - wrong) * SURE_WHEN_RIGHT,
        Ballot("right", False): (1 - wrong) * (1 - SURE_WHEN_RIGHT),
        Ballot("wrong", True): wrong * SURE_WHEN_WRONG,
        Ballot("wrong", False): wrong * (1 - SURE_WHEN_WRONG),
    }
    right = 0.0
    for course in product(outcomes, repeat=rounds):
        probability = 1.0
        for ballot in course:
            probability *= outcomes[ballot]
        asked = list(course)
        if stop_early:
            ends = [end for end in range(2, rounds + 1) if settled(course[:end])]
            asked = asked[: min(ends, default=rounds)]
        right += probability * (vote(asked) == "right")
    return right


def labelled(inputs: LabelInputs, name: str, **settings: Any) -> LabelResult:
    """One setting, from the store or asked now."""
    progress, config = Progress(name), LabellingConfig(**settings)
    found = compute(stage.STAGE, config, inputs, Store(str(HOME / "store")), LaunchConfig(), progress)
    progress.close()
    return LabelResult.model_validate(found.result)


def asking(url: str, model: str, concurrency: int = 8) -> Teacher:
    """A server as teacher."""
    endpoint = EndpointConfig(url=url, model=model, concurrency=concurrency)
    return Teacher(engine=EngineConfig(engine="openai", endpoint=endpoint))


def measure(
    inputs: LabelInputs, title: str, sizes: tuple[int, ...], expected: Callable[[int, bool], float] | None
) -> dict[str, LabelResult]:
    """All settings, a printed row each; `expected` is what theory says of rounds and early stopping."""
    print(f"\n{title}, {inputs.rows.rows} rows")
    print(
        f"{'batch':>6}{'rounds':>7}{'early':>7}{'calls':>7}{'saved':>7}{'prompt tokens':>15}{'saved':>7}",
        end="",
    )
    print(f"{'tokens':>9}{'s':>7}{'right':>8}{'95 %':>16}{'theory':>8}")
    results: dict[str, LabelResult] = {}
    settings = [(1, 1, False)] + [
        (size, rounds, early)
        for size in sizes
        for rounds in ROUNDS
        for early in (False, True)
        if rounds > 1 or not early
    ]
    for size, rounds, early in settings:
        label = f"{size} rows, {rounds} rounds{', early' if early else ''}"
        result = labelled(inputs, label, batch_size=size, rounds=rounds, stop_early=early)
        results[label] = result
        cost, accuracy = result.cost, result.accuracy or 0.0
        words = ""
        if expected:
            theoretical = 1 - ERROR if size == 1 else expected(rounds, early)
            off = abs(accuracy - theoretical) / (theoretical * (1 - theoretical) / inputs.rows.rows) ** 0.5
            assert off < 3, f"{label}: {accuracy:.4f} is {off:.1f} standard errors from {theoretical:.4f}"
            words = f"{theoretical:>8.2%}"
        print(
            f"{size:>6}{rounds:>7}{'yes' if early else 'no':>7}{cost.calls:>7}{cost.calls_saved:>7.1%}"
            f"{cost.prompt_tokens:>15}{1 - cost.prompt_tokens / results['1 rows, 1 rounds'].cost.prompt_tokens:>7.1%}"
            f"{cost.completion_tokens:>9}{cost.seconds:>7.1f}{accuracy:>8.2%}"
            f"{f'{result.low:.1%} to {result.high:.1%}':>16}{words}",
            flush=True,
        )
    return results


def snips_rows(name: str) -> list[Any]:
    """The rows of a SNIPS file as examples."""
    files = read_files(str(DATA / f"{name}.jsonl"), "data")
    found = [cells for file, data in files for _, cells in parse(file, data, "data")]
    return [make_example(cells["text"], cells["label"]) for cells in found]


def real(rows: int) -> dict[str, LabelResult]:
    """SmolLM2 behind llama.cpp on SNIPS."""
    train, test = snips_rows("train"), snips_rows("test")
    chance = random.Random(0)
    labels = tuple(sorted({row.target for row in train}))
    shown = [chance.choice([row for row in train if row.target == name]) for name in labels]
    with llama_cpp_server(slots=2, context=8192) as url:
        inputs = LabelInputs(
            teacher=asking(url, MODEL, 2),
            rows=write_rows(HOME / "snips.jsonl", chance.sample(test, rows)),
            demonstrations=write_rows(HOME / "shown.jsonl", shown),
            problem=ProblemConfig(name="classification", labels=labels),
            known=True,
        )
        return measure(inputs, "SNIPS, SmolLM2-135M behind llama.cpp", (8, 32), None)


def main() -> None:
    """Measure, and print two tables and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=3200, help="of the scripted server")
    parser.add_argument("--real-rows", type=int, default=64, help="of SNIPS, 0 for none")
    chosen = parser.parse_args()
    rows = [make_example(f"number {number}", LABELS[number % 2]) for number in range(chosen.rows)]
    problem = ProblemConfig(name="classification", labels=LABELS)
    with ScriptedServer(scripted) as server:
        inputs = LabelInputs(
            teacher=asking(server.url, "scripted"),
            rows=write_rows(HOME / "numbers.jsonl", rows),
            problem=problem,
            known=True,
        )
        known = measure(inputs, "A server of known error rates", SIZES, partial(theory))
    best, single = known["32 rows, 5 rounds, early"], known["1 rows, 1 rounds"]
    figures: dict[str, Any] = {
        "name": "batchprompt",
        "ratio": best.cost.calls_saved / TARGET,
        "target": 1.0,
        "calls_saved": best.cost.calls_saved,
        "prompt_tokens_saved": 1 - best.cost.prompt_tokens / single.cost.prompt_tokens,
        "single_accuracy": single.accuracy,
        "accuracy": best.accuracy,
    }
    if chosen.real_rows and DATA.is_dir():
        measured = real(chosen.real_rows)
        figures["real"] = {
            name: {"accuracy": one.accuracy, "calls": one.cost.calls, "seconds": one.cost.seconds}
            for name, one in measured.items()
        }
    elif chosen.real_rows:
        print(f"the data are not there: {DATA} (set LOOPWRIGHT_SHARED_DATA)")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
