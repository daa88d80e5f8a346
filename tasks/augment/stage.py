"""Stage: a teacher writes new rows from the rows a student got wrong (one attempt)."""

import random
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from tasks.augment.config import AugmentConfig
from tasks.augment.requests import AugmentInputs, Request, plan_requests
from tasks.core.examples import Example, make_example, read_lines, write_lines, write_rows
from tasks.core.generators.base import Completion, Sampling, Usage
from tasks.core.generators.load import load_generator
from tasks.core.generators.openai_compatible import EndpointFailed
from tasks.core.references import DatasetRef
from tasks.core.sharding import Cutter, Sharding
from tasks.core.stage import Report, Stage
from tasks.instruct.evolving import evolution_failed
from tasks.problems.base import Draft
from tasks.problems.load import load_problem


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
    failed_evolutions: int = 0
    """Evolutions that say the same as before, or words of the request itself."""
    usage: Usage


def run(config: AugmentConfig, inputs: AugmentInputs, out: Path, report: Report) -> AugmentResult:
    """Ask for the rows that are missing, read what comes back; nothing is judged here."""
    problem = load_problem(inputs.problem)
    requests = plan_requests(config, inputs, problem)[inputs.first :]
    requests = requests[: inputs.count or None]
    generator = load_generator(inputs.teacher.engine, inputs.teacher.weights, field="teacher.engine")
    seed = random.Random(f"{config.seed} {inputs.step} {inputs.attempt}").getrandbits(31)
    sampling = Sampling(
        max_new_tokens=config.max_new_tokens, temperature=config.temperature, top_p=config.top_p, seed=seed
    )
    try:
        completions = generator.generate(
            [request.prompt for request in requests],
            sampling,
            lambda done, total: report({"progress": [done, total], "text": "requests answered"}),
            streams=range(inputs.first, inputs.first + len(requests)),
        )
    except EndpointFailed as failure:
        if inputs.attempt == 0:
            raise
        # The server has answered others: it refuses these rows (a content filter, say), and the loop goes on.
        completions = [Completion(text="", finish="error", error=str(failure)) for _ in requests]
    candidates: list[Example] = []
    exchanges, failed_evolutions = [], 0
    for request, completion in zip(requests, completions, strict=True):
        read = problem.read if config.form == "request" else problem.read_one
        drafts = read(completion.text, request.parent)
        if completion.finish == "length":
            drafts = drafts[:-1]  # the last row was cut off
        exchange = {"parent": request.parent.id, "prompt": request.prompt, "rows": len(drafts)}
        if request.operation:
            exchange["operation"] = request.operation
            evolved = [draft for draft in drafts if not evolution_failed(request.parent.input, draft.input)]
            failed_evolutions += len(drafts) - len(evolved)
            drafts = evolved
        candidates += [_candidate(draft, request, inputs.step) for draft in drafts]
        exchanges.append(exchange | completion.model_dump(mode="json"))
    return AugmentResult(
        candidates=write_rows(out / "candidates.jsonl", candidates),
        exchanges=write_rows(out / "exchanges.jsonl", exchanges),
        requests=len(requests),
        unreadable=sum(exchange["rows"] == 0 and exchange["finish"] != "error" for exchange in exchanges),
        failed=sum(exchange["finish"] == "error" for exchange in exchanges),
        failed_evolutions=failed_evolutions,
        usage=generator.usage,
    )


def _candidate(draft: Draft, request: Request, step: int) -> Example:
    parent = request.parent
    lineage = {"parent": parent.id, "root": parent.root or parent.id, "step": step}
    facts = {"facts": {"operation": request.operation}} if request.operation else {}
    return make_example(draft.input, draft.target, draft.choices, origin="synthetic", **lineage, **facts)


def cut(config: AugmentConfig, inputs: AugmentInputs, cutter: Cutter) -> list[AugmentInputs]:
    """The same, some requests at a time. It stays whole where a server answers, which one process asks at one pace."""
    if not loads_model(config, inputs):
        return []
    requests = len(plan_requests(config, inputs, load_problem(inputs.problem)))
    return [
        inputs.model_copy(update={"first": first, "count": min(cutter.rows, requests - first)})
        for first in range(0, requests, cutter.rows)
    ]


def join(
    config: AugmentConfig, inputs: AugmentInputs, parts: Sequence[AugmentResult], out: Path
) -> AugmentResult:
    """What all of them brought, in the order of the requests."""

    def joined(name: str) -> DatasetRef:
        lines = (line for part in parts for line in read_lines(getattr(part, name)))
        return write_lines(out / f"{name}.jsonl", lines)

    counts = ("requests", "unreadable", "failed", "failed_evolutions")
    return AugmentResult(
        candidates=joined("candidates"),
        exchanges=joined("exchanges"),
        usage=Usage(**{key: sum(getattr(part.usage, key) for part in parts) for key in Usage.model_fields}),
        **{name: sum(getattr(part, name) for part in parts) for name in counts},
    )


def loads_model(config: AugmentConfig, inputs: AugmentInputs) -> bool:
    """Whether the teacher is not a server's."""
    return inputs.teacher.engine.loads_model


STAGE = Stage(
    "augment",
    run,
    AugmentConfig,
    AugmentInputs,
    AugmentResult,
    own_process=True,
    loads_model=loads_model,
    sharding=Sharding(cut, join),
)
