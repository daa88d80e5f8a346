"""Samples of the transformers generator: draws of the model's distribution, decided by their streams alone."""

import random
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from tasks.core.generators.base import Sampling
from tests.unit.tiny_generation import (
    generator,
    prompt,
    prompts_of_many_lengths,
    reference,
    reference_text,
)


def test_samples_do_not_depend_on_batches_or_memory_limits(
    tiny: SimpleNamespace, early_end: list[int]
) -> None:
    prompts = prompts_of_many_lengths()
    sampling = Sampling(max_new_tokens=12, temperature=1.0, seed=3)
    one_batch = generator(tiny).generate(prompts, sampling)
    assert generator(tiny, batch_size=1).generate(prompts, sampling) == one_batch
    assert generator(tiny, max_batch_tokens=200).generate(prompts, sampling) == one_batch
    other_seed = generator(tiny).generate(prompts, sampling.model_copy(update={"seed": 4}))
    assert other_seed != one_batch


def test_a_stream_decides_a_sample_whatever_else_is_asked_and_in_which_order(
    tiny: SimpleNamespace, early_end: list[int]
) -> None:
    prompts = prompts_of_many_lengths()
    sampling = Sampling(max_new_tokens=12, temperature=1.0, seed=3)
    streams = [2**63 - 1 - 5 * i for i in range(13)]
    drawn = generator(tiny).generate(prompts, sampling, streams=streams)
    order = random.Random(1).sample(range(13), 7)
    again = generator(tiny, batch_size=3).generate(
        [prompts[i] for i in order], sampling, streams=[streams[i] for i in order]
    )
    assert again == [drawn[i] for i in order]
    plain = generator(tiny).generate(prompts, sampling)
    assert generator(tiny).generate(prompts, sampling, streams=range(13)) == plain
    assert [a.text for a in plain] != [a.text for a in drawn]
    with pytest.raises(ValueError, match="13 prompts have 2 streams"):
        generator(tiny).generate(prompts, sampling, streams=[1, 2])


def test_samples_are_draws_of_the_models_own_distribution(tiny: SimpleNamespace) -> None:
    messages = prompt("play some music")
    draws = 3000
    completions = generator(tiny, batch_size=1000).generate(
        [messages] * draws, Sampling(max_new_tokens=1, temperature=0.7), streams=range(7, 7 + draws)
    )
    seen = Counter(completion.text for completion in completions)
    with torch.no_grad():
        logits = tiny.model(torch.tensor([tiny.encode(messages)])).logits[0, -1]
    expected: Counter[str] = Counter()
    for token, share in enumerate((logits / 0.7).softmax(-1).tolist()):
        expected[reference_text(tiny, [token])] += share
    likely = [text for text, share in expected.items() if share * draws >= 20]
    assert len(likely) > 10
    chi2 = sum((seen[text] - expected[text] * draws) ** 2 / (expected[text] * draws) for text in likely)
    assert chi2 < len(likely) + 5 * (2 * len(likely)) ** 0.5


def test_samples_of_one_prompt_differ_and_its_greedy_completions_do_not(tiny: SimpleNamespace) -> None:
    prompts = [prompt("play some music")] * 6
    assert (
        len({c.text for c in generator(tiny).generate(prompts, Sampling(max_new_tokens=8, temperature=1.0))})
        == 6
    )
    greedy = {c.text for c in generator(tiny, batch_size=4).generate(prompts, Sampling(max_new_tokens=8))}
    assert greedy == {reference_text(tiny, reference(tiny, prompts[0], 8))}
