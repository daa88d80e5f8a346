"""ROUGE-L deduplication: the index of the filter stage against the plain loop over `rouge-score`.

    python -m tests.benchmarks.dedup

Both sides get the same 100 wrong seed rows and the same 5,000 candidates, in the same order, and decide one
after another: is the candidate above 0.95 with a seed row or with a candidate kept before it? The plain loop
calls `RougeScorer.score` for every pair until one is above, as the published method does; it runs in full,
nothing of it is extrapolated. Then the index alone deduplicates 1,000 to 100,000 rows, and the whole stage
filters 5,000 candidates against 100,000 training rows. Times are processor seconds of one thread, so that
other work on the machine counts for neither side. The loop takes nearly all of them, about seven minutes.
"""

import json
import math
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

from rouge_score.rouge_scorer import RougeScorer

from tasks.core.examples import Example, make_example
from tasks.core.generators.base import Message
from tasks.filter.rouge import Match, RougeIndex
from tasks.filter.rules import FilterConfig, filter_examples
from tasks.problems.base import Draft, Problem, ProblemConfig, Score

SEED = 20240322
THRESHOLD = 0.95
WRONG, CANDIDATES = 100, 5_000
GROWTH = (1_000, 10_000, 100_000)
KNOWN = 100_000
TARGET = 100

TEMPLATES = (
    "add {name} to my {adjective} {name} playlist",
    "play the {number} best songs by {name} {name} on spotify please",
    "book a table for {number} at a {adjective} restaurant in {name} at {number} pm",
    "what will the weather be like in {name} {name} in {number} days and should i take a {adjective} coat",
    "who was the {adjective} president of {name} when {name} was founded in {number}",
    "could you please find the {adjective} movie that {name} {name} made with {name} {number} years ago",
    "if {name} buys {number} {adjective} marbles and gives {number} of them to {name} how many are left",
)
SYLLABLES = (
    "ba",
    "co",
    "du",
    "fe",
    "gi",
    "ha",
    "jo",
    "ka",
    "lu",
    "mi",
    "no",
    "pa",
    "ri",
    "so",
    "ta",
    "vel",
    "wyn",
)
ADJECTIVES = (
    "old",
    "new",
    "quiet",
    "loud",
    "popular",
    "cheap",
    "first",
    "last",
    "sad",
    "happy",
    "famous",
    "small",
)
ASIDES = ("please", "now", "really", "today", "again", "just", "maybe", "also")


def texts(count: int, seed: int) -> list[str]:
    """Rows as a teacher writes them: patterns with their slots filled; a third of the rows are an earlier one
    of the same batch of 1,000 with none to three words put in, taken out or replaced."""
    draw = random.Random(seed)
    vocabulary = sorted({"".join(draw.choices(SYLLABLES, k=draw.randint(2, 4))) for _ in range(6_000)})
    draw.shuffle(vocabulary)

    def filled(template: str) -> str:
        words = [
            word.format(
                # few names are frequent and many rare, as in a language (Zipf)
                name=vocabulary[int(len(vocabulary) ** draw.random()) - 1],
                number=draw.randint(2, 99),
                adjective=draw.choice(ADJECTIVES),
            )
            for word in template.split()
        ]
        return " ".join(words)

    rows: list[str] = []
    for number in range(count):
        if number % 1_000 and draw.random() < 1 / 3:
            words = draw.choice(rows[number - number % 1_000 :]).split()
            for _ in range(draw.randint(0, 3)):
                at = draw.randrange(len(words))
                words[at : at + draw.randint(0, 1)] = draw.choices(ASIDES, k=draw.randint(0, 1))
            rows.append(" ".join(words) or draw.choice(ASIDES))
        else:
            rows.append(filled(draw.choice(TEMPLATES)))
    return rows


def plain_loop(wrong: list[str], candidates: list[str]) -> tuple[list[Match | None], int]:
    """What each candidate meets first, and the number of pairs that were scored."""
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    kept = [(f"wrong {number}", text) for number, text in enumerate(wrong)]
    found: list[Match | None] = []
    pairs, start = 0, time.process_time()
    for number, text in enumerate(candidates):
        match = None
        for id, other in kept:
            pairs += 1
            score = scorer.score(other, text)["rougeL"].fmeasure
            if score > THRESHOLD:
                match = Match(id, score)
                break
        found.append(match)
        if match is None:
            kept.append((str(number), text))
        if (number + 1) % 1_000 == 0:
            print(f"  plain loop: {number + 1:,} candidates, {time.process_time() - start:.0f} s", flush=True)
    return found, pairs


def indexed(wrong: list[str], candidates: list[str]) -> list[Match | None]:
    """The same by the index, which is built within the time measured."""
    seen = RougeIndex(THRESHOLD)
    for number, text in enumerate(wrong):
        seen.add(f"wrong {number}", text)
    found: list[Match | None] = []
    for number, text in enumerate(candidates):
        found.append(seen.find(text))
        if found[-1] is None:
            seen.add(str(number), text)
    return found


class Unscored(Problem):
    """The filter asks a problem for faults and labels only."""

    def score(self, example: Example, completion: str) -> Score:
        raise NotImplementedError

    def show(self, example: Example) -> str:
        raise NotImplementedError

    def read(self, text: str, parent: Example) -> list[Draft]:
        raise NotImplementedError

    def request(self, parent: Example, shown: object, count: int, avoid: object) -> list[Message]:
        raise NotImplementedError


def seconds(work: Callable[..., Any], *arguments: Any, **named: Any) -> tuple[float, Any]:
    """The processor time `work` takes, and its result."""
    start = time.process_time()
    result = work(*arguments, **named)
    return time.process_time() - start, result


def main() -> None:
    wrong, candidates = texts(WRONG, SEED), texts(CANDIDATES, SEED + 1)
    print(f"{WRONG} wrong rows (seed {SEED}), {CANDIDATES:,} candidates (seed {SEED + 1}), above {THRESHOLD}")
    runs = [seconds(indexed, wrong, candidates) for _ in range(3)]
    ours, found = statistics.median(time for time, _ in runs), runs[0][1]
    theirs, (expected, pairs) = seconds(plain_loop, wrong, candidates)
    identical = found == expected
    rejected = sum(match is not None for match in expected)

    growth: dict[int, float] = {}
    for count in GROWTH:
        growth[count], _ = seconds(indexed, [], texts(count, SEED + 2))
    smallest, *_, largest = GROWTH
    exponent = math.log(growth[largest] / growth[smallest]) / math.log(largest / smallest)

    known = [make_example(text, "x") for text in texts(KNOWN, SEED + 3)]
    new = [make_example(text, "x") for text in candidates]
    test = [make_example(text, "x") for text in texts(1_000, SEED + 4)]
    stage, result = seconds(
        filter_examples,
        FilterConfig(),
        new,
        wrong=known[:WRONG],
        kept=[],
        known=known,
        test=test,
        problem=Unscored(ProblemConfig()),
    )

    print(f"{'':44}{'CPU seconds':>12}")
    print(f"{f'plain loop over rouge-score, {pairs:,} pairs':44}{theirs:12.2f}")
    print(f"{'index, median of 3':44}{ours:12.3f}")
    print(f"  {theirs / ours:,.0f} times faster; {rejected:,} rejected; same decisions: {identical}")
    for count, time_taken in growth.items():
        print(f"{f'index, {count:,} rows among themselves':44}{time_taken:12.3f}")
    print(f"  seconds grow as rows to the power of {exponent:.2f}")
    print(f"{f'whole stage, {CANDIDATES:,} against {KNOWN:,} known rows':44}{stage:12.2f}")
    print(f"  {result.counts}")
    figures = {
        "name": "dedup",
        "ratio": round(theirs / ours, 1),
        "target": TARGET,
        "identical": identical,
        "candidates": CANDIDATES,
        "wrong": WRONG,
        "rejected": rejected,
        "pairs_scored_by_loop": pairs,
        "loop_s": round(theirs, 2),
        "index_s": round(ours, 4),
        "growth_s": {str(count): round(time_taken, 4) for count, time_taken in growth.items()},
        "growth_exponent": round(exponent, 3),
        "stage_5000_against_100000_s": round(stage, 2),
        "seed": SEED,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
