"""How a user's rows become preference pairs, every one checked."""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import fsum
from typing import Any

from tasks.core.errors import UserError
from tasks.core.generators.base import Message
from tasks.data.formats import Row, parse
from tasks.data.hub import PREFIX, read_hub
from tasks.data.sources import read_files
from tasks.reward_model.cells import NoPair, answer, dialogue, number, prompt_of, text
from tasks.reward_model.config import PreferenceConfig
from tasks.reward_model.pairs import Preference, in_seeded_order, make_preference


@dataclass
class Pairs:
    """What an address holds: pairs in the order of their rows, and what is wrong with the other rows."""

    pairs: list[Preference] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def read_pairs(config: PreferenceConfig, split: str) -> Pairs:
    """The pairs at the address of a split ("train" or "test").

    Raises UserError for a source that cannot be read and for missing columns; rows that are no pair are left out, with
    their place and the reason in `faults`.
    """
    where, address = f"preferences.{split}", getattr(config, split)
    if not address:
        raise UserError(
            "no pairs are named", field=where, mend=f"give a file, for example --{where}=pairs.jsonl"
        )
    if address.startswith(PREFIX):
        rows = read_hub(address, where, split)
    else:
        rows = [row for name, data in read_files(address, where) for row in parse(name, data, where)]
    if not rows:
        raise UserError(f"{address} has no rows", field=where, mend="give at least one row")
    columns = dict.fromkeys(column for _, cells in rows for column in cells)
    if {config.chosen, config.rejected} <= columns.keys():
        if config.prompt in columns:
            return _each(rows, lambda cells: _with_prompt(config, cells))
        if config.prompt not in ("", PreferenceConfig().prompt):
            raise UserError(
                f"{address} has no column {config.prompt!r}",
                field="preferences.prompt",
                mend=f"its columns are {', '.join(columns)}; leave it empty where the answers are whole dialogues",
            )
        return _each(rows, lambda cells: _of_dialogues(config, cells))
    if {config.input, config.completion, config.score} <= columns.keys():
        return _scored(config, rows)
    raise UserError(
        f"{address} has neither the columns {config.chosen!r} and {config.rejected!r} nor {config.input!r}, "
        f"{config.completion!r} and {config.score!r}",
        field=where,
        mend=f"its columns are {', '.join(columns)}; name them with --preferences.chosen=NAME and the like",
    )


def _each(rows: Sequence[Row], pair: Callable[[dict[str, Any]], Preference]) -> Pairs:
    read = Pairs()
    for place, cells in rows:
        try:
            read.pairs.append(pair(cells))
        except NoPair as fault:
            read.faults.append(f"{place}: {fault}")
    return read


def _with_prompt(config: PreferenceConfig, cells: dict[str, Any]) -> Preference:
    prompt = prompt_of(cells, config.prompt)
    return _checked(prompt, *(answer(cells, column, prompt) for column in (config.chosen, config.rejected)))


def _of_dialogues(config: PreferenceConfig, cells: dict[str, Any]) -> Preference:
    (prompt, chosen), (other, rejected) = (
        dialogue(cells, column) for column in (config.chosen, config.rejected)
    )
    if prompt != other:
        raise NoPair("the two dialogues differ before their last turn")
    return _checked(prompt, chosen, rejected)


def _scored(config: PreferenceConfig, rows: Sequence[Row]) -> Pairs:
    """Every answer over all that have a lower score; an answer that is scored several times counts with the mean.

    An answer with the same score as all others to its input makes no pair, and no fault either.
    """
    read, prompts = Pairs(), {}
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for place, cells in rows:
        try:
            prompt = prompt_of(cells, config.input)
            completion, score = text(cells, config.completion), number(cells, config.score)
        except NoPair as fault:
            read.faults.append(f"{place}: {fault}")
        else:
            key = json.dumps(prompt)
            prompts[key] = prompt
            scores[key][completion].append(score)
    for key, prompt in prompts.items():
        means = {answer: fsum(values) / len(values) for answer, values in scores[key].items()}
        best_first = sorted(means, key=lambda answer: (-means[answer], answer))
        pairs = [
            make_preference(prompt, better, worse)
            for better, worse in combinations(best_first, 2)
            if means[better] > means[worse] and better.strip() != worse.strip()
        ]
        if config.pairs_per_prompt:
            pairs = in_seeded_order(pairs, config.seed)[: config.pairs_per_prompt]
        read.pairs += pairs
    return read


def _checked(prompt: list[Message], chosen: str, rejected: str) -> Preference:
    if chosen.strip() == rejected.strip():
        raise NoPair("the two sides are equal")
    return make_preference(prompt, chosen, rejected)
