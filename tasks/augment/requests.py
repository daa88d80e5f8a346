"""What a teacher is asked: from which failed rows, how many new ones, in which words."""

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel

from tasks.augment.config import AugmentConfig
from tasks.augment.evolving import choose_operation, evolve
from tasks.augment.teacher import Teacher
from tasks.core.examples import Example, read_examples
from tasks.core.generators.base import Message
from tasks.core.references import DatasetRef
from tasks.problems.base import Problem, ProblemConfig

MOST_PER_REQUEST = 10  # rows a teacher is asked for at once, as in the reference implementation


class AugmentInputs(BaseModel):
    """Who is asked for what."""

    teacher: Teacher
    problem: ProblemConfig
    parents: DatasetRef
    """The failed rows."""
    pool: DatasetRef
    """Rows of which some are shown beside a parent of their class."""
    kept: DatasetRef | None = None
    """Rows kept in earlier attempts of this iteration."""
    step: int
    attempt: int = 0
    first: int = 0
    """The first of the requests that this call makes, as they are planned for all parents;"""
    count: int = 0
    """and how many it makes, 0 being all that follow. What comes of a request does not hang on either."""


def wanted(parents: Sequence[Example], kept: Sequence[Example], rows: int) -> dict[str, int]:
    """How many rows each parent still lacks, by the parent's id; parents that lack none are left out."""
    have: dict[str, int] = defaultdict(int)
    for example in kept:
        have[example.parent or ""] += 1
    missing = {parent.id: rows - have[parent.id] for parent in parents}
    return {parent: count for parent, count in missing.items() if count > 0}


@dataclass(frozen=True)
class Request:
    """What the teacher is asked about one failed row; `operation` is empty unless the row is evolved."""

    parent: Example
    prompt: list[Message]
    operation: str = ""


def plan_requests(config: AugmentConfig, inputs: AugmentInputs, problem: Problem) -> list[Request]:
    """Every request, for the parents that still lack rows.

    As published, a request asks for min(N + attempt, 10) rows, and odd attempts show what was written already and ask
    for something different (SqueezeAILab/LLM2LLM). In `turns` and `evol` every row is a request of its own.
    """
    kept = read_examples(inputs.kept) if inputs.kept else []
    parents, pool = read_examples(inputs.parents), read_examples(inputs.pool)
    missing = wanted(parents, kept, config.rows)
    requests: list[Request] = []
    for parent in parents:
        left = math.ceil(config.oversample * missing.get(parent.id, 0))
        written = [row for row in kept if row.parent == parent.id] if inputs.attempt % 2 else []
        if config.form != "request" and left:
            left += inputs.attempt
        while left > 0:
            chooser = random.Random(f"{config.seed} {inputs.step} {inputs.attempt} {len(requests)}")
            mates = _mates(parent, pool, config.shown, chooser)
            size = 1
            if config.form == "turns":
                shown = [*_contrast(parent, pool, config.contrast, chooser), *mates, *written]
                requests.append(Request(parent, problem.turns(parent, shown, config.system)))
            elif config.form == "evol":
                operation = choose_operation(config.breadth_share, chooser)
                prompt = evolve(problem, parent, operation)
                requests.append(Request(parent, prompt, f"evol/{operation}"))
            else:
                size = min(left + inputs.attempt, MOST_PER_REQUEST)
                prompt = problem.request(parent, mates, size, [row.input for row in written])
                requests.append(Request(parent, prompt))
            left -= size
    return requests


def _mates(parent: Example, pool: Sequence[Example], count: int, chooser: random.Random) -> list[Example]:
    mates = [row for row in pool if row.target == parent.target and row.id != parent.id]
    return chooser.sample(mates, min(count, len(mates)))


def _contrast(parent: Example, pool: Sequence[Example], count: int, chooser: random.Random) -> list[Example]:
    by_target: dict[str, list[Example]] = defaultdict(list)
    for row in pool:
        by_target[row.target].append(row)
    others = [rows for target, rows in sorted(by_target.items()) if target != parent.target]
    chosen = [row for rows in others for row in chooser.sample(rows, min(count, len(rows)))]
    chooser.shuffle(chosen)
    return chosen
