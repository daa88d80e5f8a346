"""Log-likelihoods of the transformers generator against one sequence at a time in float64."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tasks.core.generators.base import Message
from tasks.core.generators.local import LOGIT_COST
from tests.unit.tiny_generation import (
    CONTEXT,
    WORDS,
    generator,
    prompt,
    prompts_of_many_lengths,
)


def naive_log_likelihood(tiny: SimpleNamespace, messages: list[Message], target: str) -> tuple[float, int]:
    """One sequence at a time, all logits, in float64."""
    ids = tiny.encode(messages)
    answer = [*tiny.tokenizer(target, add_special_tokens=False)["input_ids"], tiny.tokenizer.eos_token_id]
    model = tiny.model.double()
    with torch.no_grad():
        scores = model(torch.tensor([ids + answer])).logits[0].log_softmax(dim=-1)
    model.float()
    return sum(scores[len(ids) - 1 + place, token].item() for place, token in enumerate(answer)), len(answer)


@pytest.mark.parametrize("limits", [{}, {"batch_size": 1}, {"max_batch_tokens": 150}])
def test_log_likelihood_is_that_of_one_sequence_at_a_time(
    tiny: SimpleNamespace, limits: dict[str, int]
) -> None:
    prompts = prompts_of_many_lengths(9)
    targets = [
        "Paris",
        "",
        "music by my favourite artist",
        "42",
        "Éé",
        "the capital of France is " * 4,
        "a",
        "b",
        " c",
    ]
    results = generator(tiny, **limits).log_likelihood(prompts, targets)
    for messages, target, (value, count) in zip(prompts, targets, results, strict=True):
        expected, tokens = naive_log_likelihood(tiny, messages, target)
        assert count == tokens
        assert value == pytest.approx(expected, abs=1e-4)


def test_log_likelihood_of_several_targets_after_one_prompt(tiny: SimpleNamespace) -> None:
    messages = prompt("what is it")
    targets = ["Paris", "rain", "music in the kitchen"]
    for target, (value, _) in zip(
        targets, generator(tiny).log_likelihood([messages] * 3, targets), strict=True
    ):
        assert value == pytest.approx(naive_log_likelihood(tiny, messages, target)[0], abs=1e-4)


def test_log_likelihood_of_long_targets_keeps_few_logits_at_a_time(
    tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    forward = tiny.model.forward

    def recording(**inputs: Any) -> Any:
        output = forward(**inputs)
        kept.append(output.logits.shape[0] * output.logits.shape[1])
        return output

    monkeypatch.setattr(tiny.model, "forward", recording)
    prompts, targets = [prompt(word) for word in WORDS[:8]], ["music in the kitchen " * 4] * 8
    results = generator(tiny, max_batch_tokens=1600).log_likelihood(prompts, targets)
    _, *batches = kept  # the first forward reads the common prefix
    assert sum(batches) == sum(tokens for _, tokens in results)
    assert max(batches) <= 1600 / LOGIT_COST


def test_what_goes_past_the_context_has_none_and_the_others_have_theirs(tiny: SimpleNamespace) -> None:
    asked = [prompt("hello"), prompt("a " * CONTEXT), prompt("hello")]
    found = generator(tiny).log_likelihood(asked, ["a " * CONTEXT, "b", "b"])
    assert found[:2] == [None, None]
    expected, tokens = naive_log_likelihood(tiny, prompt("hello"), "b")
    assert found[2] is not None
    assert found[2] == (pytest.approx(expected, abs=1e-4), tokens)
    assert generator(tiny).log_likelihood(asked[1:2], ["b"]) == [None]
