"""Stage: a teacher writes new rows from the rows a student got wrong (one attempt)."""

import random
from pathlib import Path

from pydantic import BaseModel

from tasks.augment.config import AugmentConfig
from tasks.augment.requests import AugmentInputs, Request, plan_requests
from tasks.core.examples import Example, make_example, write_rows
from tasks.core.generators.base import Completion, Sampling, Usage
from tasks.core.generators.load import load_generator
from tasks.core.generators.openai_compatible import EndpointFailed
from tasks.core.references import DatasetRef
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
    requests = plan_requests(config, inputs, problem)
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


def loads_model(config: AugmentConfig, inputs: AugmentInputs) -> bool:
    """Whether the teacher is not a server's."""
    return inputs.teacher.engine.loads_model


STAGE = Stage(
    "augment", run, AugmentConfig, AugmentInputs, AugmentResult, own_process=True, loads_model=loads_model
)
