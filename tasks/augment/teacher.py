"""Stage: a teacher writes new rows from the rows a student got wrong (one attempt)."""

import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, Field

from tasks import base_model
from tasks.base_model import ModelConfig, locate
from tasks.core.config import Config
from tasks.core.examples import Example, make_example, read_examples, write_rows
from tasks.core.flow_run import Run
from tasks.core.generators.base import Message, Sampling, Usage
from tasks.core.generators.load import EngineConfig, load_generator
from tasks.core.generators.openai_compatible import OpenAICompatible
from tasks.core.references import DatasetRef, ModelRef
from tasks.core.stage import Report, Stage
from tasks.problems.base import ProblemConfig
from tasks.problems.load import load_problem

MOST_PER_REQUEST = 10  # rows a teacher is asked for at once, as in the reference implementation


class TeacherConfig(ModelConfig):
    """The model that writes new rows: a local one by name, or a server's (`engine`)."""

    engine: EngineConfig = EngineConfig()
    """What runs the teacher."""

    def weights(self) -> ModelConfig:
        """The local model alone, without what runs it."""
        return ModelConfig(**{name: getattr(self, name) for name in ModelConfig.model_fields})


def locate_teacher(config: TeacherConfig) -> TeacherConfig:
    """Check that the teacher can be had, a server by asking it, and return it with the server's model filled in.

    Raises UserError with the field and the mend.
    """
    if config.engine.engine != "openai":
        locate(config.weights(), "teacher.model")
        return config
    endpoint = config.engine.endpoint
    served = OpenAICompatible(endpoint, field="teacher.engine.endpoint").check()
    named = endpoint.model_copy(update={"model": served})
    return config.model_copy(update={"engine": config.engine.model_copy(update={"endpoint": named})})


class Teacher(BaseModel):
    """A teacher that can be asked: what runs it, and its weights unless it is a server."""

    engine: EngineConfig
    weights: ModelRef | None = None


def load_teacher(run: Run, config: TeacherConfig) -> Teacher:
    """The teacher of a configuration; a local model's weights are made a reference."""
    located = locate_teacher(config)
    if located.engine.engine == "openai":
        return Teacher(engine=located.engine)
    files = locate(config.weights(), "teacher.model")
    found = run.stage(base_model.STAGE, config.weights(), files, label="teacher")
    return Teacher(engine=located.engine, weights=found.model)


class AugmentConfig(Config):
    """How new rows are asked for."""

    rows: int = Field(1, ge=1, le=1000)
    """New rows wanted from every failed row, per iteration."""
    attempts: int = Field(4, ge=1, le=100)
    """How often the teacher is asked again for rows that the filter rejected; then the shortfall is reported."""
    shown: int = Field(0, ge=0, le=100)
    """Further rows of the same class the teacher sees as examples; the paper shows none."""
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
    """One request per parent that still lacks rows: the published request size min(N + attempt, 10); odd attempts
    show what was written already and ask for something different (SqueezeAILab/LLM2LLM)."""
    problem = load_problem(inputs.problem)
    kept = read_examples(inputs.kept) if inputs.kept else []
    parents = {parent.id: parent for parent in read_examples(inputs.parents)}
    missing = wanted(list(parents.values()), kept, config.rows)
    pool = read_examples(inputs.pool)
    asked: list[Example] = []
    prompts: list[list[Message]] = []
    for parent_id, count in missing.items():
        parent = parents[parent_id]
        avoid = [row.input for row in kept if row.parent == parent_id] if inputs.attempt % 2 else []
        left = count
        while left > 0:
            size = min(left + inputs.attempt, MOST_PER_REQUEST)
            shown = _shown(config, parent, pool, inputs.step, inputs.attempt, len(prompts))
            prompts.append(problem.request(parent, shown, size, avoid))
            asked.append(parent)
            left -= size
    generator = load_generator(inputs.teacher.engine, inputs.teacher.weights)
    seed = random.Random(f"{config.seed} {inputs.step} {inputs.attempt}").getrandbits(31)
    sampling = Sampling(
        max_new_tokens=config.max_new_tokens, temperature=config.temperature, top_p=config.top_p, seed=seed
    )
    completions = generator.generate(
        prompts,
        sampling,
        lambda done, total: report({"progress": [done, total], "text": "requests answered"}),
    )
    candidates: list[Example] = []
    exchanges = []
    for parent, prompt, completion in zip(asked, prompts, completions, strict=True):
        drafts = problem.read(completion.text, parent)
        if completion.finish == "length":
            drafts = drafts[:-1]  # the last row was cut off
        candidates += [
            make_example(
                draft.input,
                draft.target,
                draft.choices,
                origin="synthetic",
                parent=parent.id,
                root=parent.root or parent.id,
                step=inputs.step,
            )
            for draft in drafts
        ]
        exchanges.append(
            {"parent": parent.id, "prompt": list(prompt), "rows": len(drafts)}
            | completion.model_dump(mode="json")
        )
    return AugmentResult(
        candidates=write_rows(out / "candidates.jsonl", candidates),
        exchanges=write_rows(out / "exchanges.jsonl", exchanges),
        requests=len(prompts),
        unreadable=sum(exchange["rows"] == 0 and exchange["finish"] != "error" for exchange in exchanges),
        failed=sum(exchange["finish"] == "error" for exchange in exchanges),
        usage=generator.usage,
    )


def _shown(
    config: AugmentConfig, parent: Example, pool: Sequence[Example], step: int, attempt: int, request: int
) -> list[Example]:
    mates = [row for row in pool if row.target == parent.target and row.id != parent.id]
    chooser = random.Random(f"{config.seed} {step} {attempt} {request}")
    return chooser.sample(mates, min(config.shown, len(mates)))


STAGE = Stage("augment", run, AugmentConfig, AugmentInputs, AugmentResult, own_process=True)
