"""Stage: draw some samples of every prompt of a block from a policy."""

import hashlib
from pathlib import Path

from pydantic import BaseModel, Field

from tasks.core.examples import Example, make_sample, read_examples, write_rows
from tasks.core.generators.base import Sampling, Usage
from tasks.core.generators.load import load_generator
from tasks.core.references import DatasetRef, ModelRef
from tasks.core.stage import Report, Stage
from tasks.grow.config import DrawConfig
from tasks.problems.base import ProblemConfig
from tasks.problems.load import load_problem


class GrowInputs(BaseModel):
    """A policy, a block of prompts, and which samples are drawn of each."""

    model: ModelRef
    prompts: DatasetRef
    problem: ProblemConfig
    first: int = Field(ge=0)
    """Number of the first sample; sample s is the same in whatever shard it is drawn."""
    count: int = Field(ge=1)
    iteration: int = Field(1, ge=1)
    """Of the loop: with the same random numbers a policy would say again what it has just learned from."""
    keep_empty: bool = False
    """Keep answers without a word among the samples: to compare policies, for that is an answer too. Nothing can be
    learned from them."""


class GrowResult(BaseModel):
    """The samples, prompt by prompt, and what became of the others."""

    samples: DatasetRef
    drawn: int
    duplicates: int
    """Said before, word for word, in this shard."""
    empty: int
    """The policy ended at once; they are among the samples only where `keep_empty` says so."""
    failed: int
    """Not answered: a prompt longer than the context, a server's error."""
    cut: int
    """Reached the token limit; they are among the samples, marked."""
    reason: str = ""
    """Of the last failure."""
    usage: Usage


def stream(prompt: Example, number: int, iteration: int = 1) -> int:
    """The random stream of a prompt's sample in an iteration: 63 bits of a hash of all three."""
    later = f" {iteration}" if iteration > 1 else ""
    digest = hashlib.sha256(f"{prompt.id} {number}{later}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 1


def run(config: DrawConfig, inputs: GrowInputs, out: Path, report: Report) -> GrowResult:
    """Draw the samples and write them to `out`/samples.jsonl; what could not be drawn is counted."""
    problem = load_problem(inputs.problem)
    prompts = read_examples(inputs.prompts)
    numbers = range(inputs.first, inputs.first + inputs.count)
    asked = [(prompt, number) for prompt in prompts for number in numbers]
    sampling = Sampling(
        max_new_tokens=config.max_new_tokens or problem.max_new_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=config.top_k,
        seed=config.seed,
        choices=problem.choices,
    )
    conversations = {prompt.id: problem.prompt(prompt) for prompt in prompts}
    generator = load_generator(config.engine, inputs.model, field="grow.engine")
    completions = generator.generate(
        [conversations[prompt.id] for prompt, _ in asked],
        sampling,
        lambda done, total: report({"progress": [done, total], "text": "samples drawn"}),
        streams=[stream(prompt, number, inputs.iteration) for prompt, number in asked],
    )
    samples: dict[str, Example] = {}
    empty, reasons = 0, []
    for (prompt, _), completion in zip(asked, completions, strict=True):
        text = completion.text.rstrip()
        if completion.finish == "error":
            reasons.append(completion.error)
            continue
        empty += not text
        if text or inputs.keep_empty:
            cut = completion.finish == "length"
            sample = make_sample(prompt, text, cut=cut, step=inputs.iteration)
            samples.setdefault(sample.id, sample)
    dropped = len(reasons) + (0 if inputs.keep_empty else empty)
    return GrowResult(
        samples=write_rows(out / "samples.jsonl", samples.values()),
        drawn=len(asked),
        duplicates=len(asked) - len(samples) - dropped,
        empty=empty,
        failed=len(reasons),
        cut=sum(sample.cut for sample in samples.values()),
        reason=reasons[-1] if reasons else "",
        usage=generator.usage,
    )


def loads_model(config: DrawConfig, inputs: GrowInputs) -> bool:
    """Whether the policy is not a server's."""
    return config.engine.loads_model


STAGE = Stage("grow", run, DrawConfig, GrowInputs, GrowResult, own_process=True, loads_model=loads_model)
