"""Eight samples of each of many prompts: the generator of the Grow stage against transformers' own, prompt by prompt.

    python -m tests.benchmarks.grow [--prompts 64] [--solutions 32]

Two workloads, both with SmolLM2-135M-Instruct in float32, in this process, in turn on two halves of the prompts:
`sums` as deployments/configs/rest-arithmetic.yaml draws them (answers of up to 12 tokens, temperature 1), and
`solutions` to word problems (up to 96 tokens, temperature 0.7, top-k 40, as published for ReST-EM). The other side
calls `generate(do_sample=True, num_return_sequences=8)` for every prompt, with the same sampling settings.
Ours is faster because a prompt is read once for all its samples and what prompts begin with once for all of them,
because the samples of several prompts are continued together, and because a new one takes the place of one that ended.
Lengths differ by chance: new tokens are counted on both sides. `ratio` is that of `sums`, in samples per second.
"""

import argparse
import gc
import json
import time
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

import torch
from transformers.utils import logging

from tasks.core.examples import Example
from tasks.core.generators.base import Message, Sampling
from tasks.core.generators.local import TransformersGenerator
from tasks.core.models import render
from tasks.data.gym import read_gym
from tasks.grow.config import GrowConfig
from tasks.grow.stage import stream
from tasks.problems.base import ProblemConfig
from tasks.problems.load import load_problem
from tests.benchmarks.generate import load

SAMPLES, TARGET = 8, 3.0


@dataclass(frozen=True)
class Workload:
    """Prompts of a problem, and how their answers are drawn."""

    name: str
    problem: str
    rows: str
    sampling: Sampling


WORKLOADS = (
    Workload(
        "sums",
        "gym",
        "gym:chain_sum?seed=300000&min_terms=2&max_terms=3&min_digits=1&max_digits=2",
        Sampling(temperature=1.0, max_new_tokens=12),
    ),
    Workload(
        "solutions",
        "numeric",
        "gym:gsm_symbolic?seed=0",
        Sampling(temperature=0.7, top_k=40, max_new_tokens=96),
    ),
)


def sample(
    engine: TransformersGenerator, prompts: list[tuple[Example, list[Message]]], sampling: Sampling
) -> list[int]:
    """Draw as the Grow stage does; the lengths of the samples in tokens."""
    asked = [(row, prompt, number) for row, prompt in prompts for number in range(SAMPLES)]
    completions = engine.generate(
        [prompt for _, prompt, _ in asked],
        sampling,
        streams=[stream(row, number) for row, _, number in asked],
    )
    return [completion.completion_tokens for completion in completions]


def sample_with_transformers(
    model: Any, tokenizer: Any, prompts: list[tuple[Example, list[Message]]], sampling: Sampling
) -> list[int]:
    """What a user would write; the lengths of the samples in tokens, the end-of-sequence token among them."""
    lengths = []
    for _, prompt in prompts:
        ids = torch.tensor([render(tokenizer, prompt)])
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            max_new_tokens=sampling.max_new_tokens,
            num_return_sequences=SAMPLES,
            pad_token_id=tokenizer.pad_token_id,
        )
        ends = output[:, ids.shape[1] :] == tokenizer.eos_token_id
        lengths += [row.index(True) + 1 if True in row else len(row) for row in ends.tolist()]
    return lengths


def measure(model: Any, tokenizer: Any, workload: Workload, count: int) -> dict[str, float]:
    """Both sides on `count` prompts; prints a row per half and returns the figures of both together."""
    problem = load_problem(ProblemConfig(name=workload.problem))
    rows = [row for _, row in read_gym(f"{workload.rows}&size={count}", "rows")]
    prompts = [(row, problem.prompt(row)) for row in rows]
    batch_size = GrowConfig().engine.batch_size
    ours = TransformersGenerator(model, partial(render, tokenizer), tokenizer, batch_size=batch_size)
    warm = workload.sampling.model_copy(update={"max_new_tokens": 2})
    sample(ours, prompts[:2], warm)
    sample_with_transformers(model, tokenizer, prompts[:1], warm)

    sizes = [len(render(tokenizer, prompt)) for _, prompt in prompts]
    print(f"{workload.name}: {count} prompts of {min(sizes)} to {max(sizes)} tokens, {SAMPLES} samples each")
    seconds = {"ours": 0.0, "transformers": 0.0}
    lengths: dict[str, list[int]] = {"ours": [], "transformers": []}
    middle = (count + 1) // 2
    for half in (prompts[:middle], prompts[middle:]):
        gc.collect()
        start = time.perf_counter()
        lengths["ours"] += sample(ours, half, workload.sampling)
        between = time.perf_counter()
        lengths["transformers"] += sample_with_transformers(model, tokenizer, half, workload.sampling)
        end = time.perf_counter()
        seconds["ours"] += between - start
        seconds["transformers"] += end - between
        print(f"  {between - start:8.1f} s against {end - between:8.1f} s", flush=True)
    figures = {f"{workload.name}_ratio": seconds["transformers"] / seconds["ours"]}
    for side, taken in seconds.items():
        figures[f"{workload.name}_{side}_samples_per_s"] = len(lengths[side]) / taken
        figures[f"{workload.name}_{side}_tokens_per_s"] = sum(lengths[side]) / taken
        figures[f"{workload.name}_{side}_mean_tokens"] = fmean(lengths[side])
    return {name: round(value, 2) for name, value in figures.items()}


def main() -> None:
    """Measure, and print a table and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=64, help="of the workload sums")
    parser.add_argument("--solutions", type=int, default=32, help="prompts of the workload solutions")
    counts = parser.parse_args()
    logging.disable_progress_bar()
    torch.manual_seed(0)  # transformers draws from the global state
    model, tokenizer = load()
    figures: dict[str, float] = {}
    for workload, count in zip(WORKLOADS, (counts.prompts, counts.solutions), strict=True):
        figures |= measure(model, tokenizer, workload, count)
    print(json.dumps({"name": "grow", "ratio": figures["sums_ratio"], "target": TARGET} | figures))


if __name__ == "__main__":
    main()
