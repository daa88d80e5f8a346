"""Stage: a teacher writes new rows from the rows a student got wrong (one attempt)."""

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from tasks.augment.teacher import Teacher
from tasks.core.config import Config
from tasks.core.examples import Example, make_example, read_examples, write_rows
from tasks.core.generators.base import Completion, Message, Sampling, Usage
from tasks.core.generators.load import load_generator
from tasks.core.generators.openai_compatible import EndpointFailed
from tasks.core.references import DatasetRef
from tasks.core.stage import Report, Stage
from tasks.problems.base import Draft, Problem, ProblemConfig
from tasks.problems.load import load_problem

MOST_PER_REQUEST = 10  # rows a teacher is asked for at once, as in the reference implementation


class AugmentConfig(Config):
    """How new rows are asked for."""

    rows: int = Field(1, ge=1, le=1000)
    """New rows wanted from every failed row, per iteration."""
    oversample: float = Field(1.0, ge=1.0, le=20.0)
    """Ask for so many times the rows that are wanted, so that the filter, and the judges, have a choice."""
    attempts: int = Field(4, ge=1, le=100)
    """How often the teacher is asked again for rows that the filter rejected; then the shortfall is reported."""
    form: Literal["request", "turns"] = "request"
    """`request` asks in words for several rows at once (published). `turns` shows a chat of finished exchanges, a
    row each, and asks for one more: the form for small teachers, which continue better than they obey."""
    system: str = ""
    """What the teacher is told before `turns`: say what the texts are ("requests to a voice assistant")."""
    shown: int = Field(0, ge=0, le=100)
    """Further rows of the same class the teacher sees as examples; the paper shows none."""
    contrast: int = Field(0, ge=0, le=20)
    """Rows of every other class it sees as well, in `turns`."""
    temperature: float = Field(1.0, ge=0.0, le=5.0)
    """Sampling temperature of the teacher."""
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    """Nucleus sampling of the teacher."""
    max_new_tokens: int = Field(512, ge=1, le=32768)
    """Longest answer of the teacher, in tokens."""
    seed: int = Field(0, ge=0, le=2**31)
    """Seed of the sampling and of the choice of shown rows."""


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


class AugmentResult(BaseModel):
    """What came back."""

    candidates: DatasetRef
    exchanges: DatasetRef
    """Every request with its answer, for inspection."""
    requests: int
    unreadable: int
    """Answers from which no row could be read."""
    failed: int
    """Requests that the teacher did not answer."""
    usage: Usage


def wanted(parents: Sequence[Example], kept: Sequence[Example], rows: int) -> dict[str, int]:
    """How many rows each parent still lacks, by the parent's id; parents that lack none are left out."""
    have: dict[str, int] = defaultdict(int)
    for example in kept:
        have[example.parent or ""] += 1
    missing = {parent.id: rows - have[parent.id] for parent in parents}
    return {parent: count for parent, count in missing.items() if count > 0}


def run(config: AugmentConfig, inputs: AugmentInputs, out: Path, report: Report) -> AugmentResult:
    """Ask for the rows that are missing, read what comes back; nothing is judged here."""
    problem = load_problem(inputs.problem)
    requests = plan_requests(config, inputs, problem)
    generator = load_generator(inputs.teacher.engine, inputs.teacher.weights, field="teacher.engine")
    seed = random.Random(f"{config.seed} {inputs.step} {inputs.attempt}").getrandbits(31)
    sampling = Sampling(
        max_new_tokens=config.max_new_tokens, temperature=config.temperature, top_p=config.top_p, seed=seed
    )
    try:
        completions = generator.generate(
            [prompt for _, prompt in requests],
            sampling,
            lambda done, total: report({"progress": [done, total], "text": "requests answered"}),
        )
    except EndpointFailed as failure:
        if inputs.attempt == 0:
            raise
        # The server has answered others: it refuses these rows (a content filter, say), and the loop goes on.
        completions = [Completion(text="", finish="error", error=str(failure)) for _ in requests]
    candidates: list[Example] = []
    exchanges = []
    for (parent, prompt), completion in zip(requests, completions, strict=True):
        read = problem.read if config.form == "request" else problem.read_one
        drafts = read(completion.text, parent)
        if completion.finish == "length":
            drafts = drafts[:-1]  # the last row was cut off
        candidates += [_candidate(draft, parent, inputs.step) for draft in drafts]
        exchange = {"parent": parent.id, "prompt": prompt, "rows": len(drafts)}
        exchanges.append(exchange | completion.model_dump(mode="json"))
    return AugmentResult(
        candidates=write_rows(out / "candidates.jsonl", candidates),
        exchanges=write_rows(out / "exchanges.jsonl", exchanges),
        requests=len(requests),
        unreadable=sum(exchange["rows"] == 0 and exchange["finish"] != "error" for exchange in exchanges),
        failed=sum(exchange["finish"] == "error" for exchange in exchanges),
        usage=generator.usage,
    )


def plan_requests(
    config: AugmentConfig, inputs: AugmentInputs, problem: Problem
) -> list[tuple[Example, list[Message]]]:
    """Every request with the row it is made from, for the parents that still lack rows.

    As published, a request asks for min(N + attempt, 10) rows, and odd attempts show what was written already and ask
    for something different (SqueezeAILab/LLM2LLM). In `turns` every row is a request of its own.
    """
    kept = read_examples(inputs.kept) if inputs.kept else []
    parents, pool = read_examples(inputs.parents), read_examples(inputs.pool)
    missing = wanted(parents, kept, config.rows)
    requests: list[tuple[Example, list[Message]]] = []
    for parent in parents:
        left = math.ceil(config.oversample * missing.get(parent.id, 0))
        written = [row for row in kept if row.parent == parent.id] if inputs.attempt % 2 else []
        if config.form == "turns" and left:
            left += inputs.attempt
        while left > 0:
            chooser = random.Random(f"{config.seed} {inputs.step} {inputs.attempt} {len(requests)}")
            mates = _mates(parent, pool, config.shown, chooser)
            if config.form == "turns":
                shown = [*_contrast(parent, pool, config.contrast, chooser), *mates, *written]
                size, prompt = 1, problem.turns(parent, shown, config.system)
            else:
                size = min(left + inputs.attempt, MOST_PER_REQUEST)
                prompt = problem.request(parent, mates, size, [row.input for row in written])
            requests.append((parent, prompt))
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


def _candidate(draft: Draft, parent: Example, step: int) -> Example:
    lineage = {"parent": parent.id, "root": parent.root or parent.id, "step": step}
    return make_example(draft.input, draft.target, draft.choices, origin="synthetic", **lineage)


def loads_model(config: AugmentConfig, inputs: AugmentInputs) -> bool:
    """Whether the teacher is not a server's."""
    return inputs.teacher.engine.loads_model


STAGE = Stage(
    "augment", run, AugmentConfig, AugmentInputs, AugmentResult, own_process=True, loads_model=loads_model
)
