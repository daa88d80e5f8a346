"""Which token is drawn from logits: greedy, sampled, and out of a fixed set of answers."""

from collections import Counter
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasks.core.generators.base import Message, Sampling
from tasks.core.generators.choices import ChoiceTree
from tasks.core.generators.decoding import choose_tokens
from tasks.core.generators.local import TransformersGenerator
from tasks.core.models import render
from tests.tiny_model import build_tiny_model


def frequencies(sampling: Sampling, probabilities: list[float], draws: int = 1000) -> list[float]:
    """How often each token is chosen over evenly spaced draws."""
    logits = torch.tensor(probabilities).log().expand(draws, -1)
    tokens = choose_tokens(logits, sampling, [(i + 0.5) / draws for i in range(draws)])
    return [round((tokens == token).sum().item() / draws, 2) for token in range(len(probabilities))]


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(temperature=1.0), [0.1, 0.5, 0.15, 0.25]),
        (Sampling(temperature=0.5), [0.03, 0.72, 0.07, 0.18]),  # squares of the above, summing to 0.345
        (Sampling(temperature=1.0, top_k=2), [0.0, 0.67, 0.0, 0.33]),
        (Sampling(temperature=1.0, top_k=9), [0.1, 0.5, 0.15, 0.25]),
        (Sampling(temperature=1.0, top_p=0.7), [0.0, 0.67, 0.0, 0.33]),
        (Sampling(temperature=1.0, top_p=0.2), [0.0, 1.0, 0.0, 0.0]),
        (
            Sampling(temperature=1.0, top_k=3, top_p=0.6),
            [0.0, 0.67, 0.0, 0.33],
        ),  # 0.5 of 0.9 alone is below 0.6
        (Sampling(temperature=0.0), [0.0, 1.0, 0.0, 0.0]),
    ],
)
def test_tokens_are_drawn_in_these_shares(sampling: Sampling, expected: list[float]) -> None:
    assert frequencies(sampling, [0.1, 0.5, 0.15, 0.25]) == expected


@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_the_nucleus_of_a_large_vocabulary_is_that_of_transformers(spread: float) -> None:
    """Of nearly equal tokens (0.3) it holds thousands, of very different ones few."""
    from transformers import TopPLogitsWarper

    torch.manual_seed(0)
    logits = torch.randn(1, 1500) * spread
    warped = TopPLogitsWarper(0.9)(torch.zeros(1, 1, dtype=torch.long), logits.clone())
    allowed = set(warped.isfinite()[0].nonzero().flatten().tolist())
    assert (len(allowed) > 1024) == (spread < 1)
    draws = 6_000
    tokens = choose_tokens(
        logits.expand(draws, -1),
        Sampling(temperature=1.0, top_p=0.9),
        [(i + 0.5) / draws for i in range(draws)],
    )
    shares = warped.softmax(-1)[0]
    counts = torch.bincount(tokens, minlength=1500) / draws
    assert set(tokens.tolist()) <= allowed
    assert (counts - shares).abs().max() < 2 / draws


def test_the_least_and_the_greatest_draw_never_choose_an_impossible_token() -> None:
    logits = torch.tensor([[0.0, 1.0, -torch.inf, -torch.inf]])
    greatest = 1 - 2**-53  # rounds to 1 in float32
    assert choose_tokens(logits, Sampling(temperature=1.0), [greatest]).tolist() == [1]
    assert choose_tokens(logits, Sampling(temperature=1.0, top_p=0.99), [greatest]).tolist() == [0]
    assert choose_tokens(logits.flip(1), Sampling(temperature=1.0), [0.0]).tolist() == [2]


def test_only_tokens_that_continue_a_choice_keep_their_logit() -> None:
    tree = ChoiceTree([[1, 2], [1, 3, 4], [1]], end=5)
    logits = torch.arange(24.0).reshape(4, 6)
    kept = [
        row.isfinite().nonzero().flatten().tolist()
        for row in tree.restrict(logits, [[], [1], [1, 3], [1, 2]])
    ]
    assert kept == [[1], [2, 3, 5], [4], [5]]
    assert tree.restrict(logits, [[], [1], [1, 3], [1, 2]])[1, 3] == logits[1, 3]


LABELS = ("music", "music in the kitchen", "weather", "München")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = build_tiny_model(tmp_path_factory.mktemp("tiny"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return SimpleNamespace(model=AutoModelForCausalLM.from_pretrained(folder).eval(), tokenizer=tokenizer)


def generator(tiny: SimpleNamespace) -> TransformersGenerator:
    return TransformersGenerator(tiny.model, partial(render, tiny.tokenizer), tiny.tokenizer, batch_size=4)


def prompts(count: int) -> list[list[Message]]:
    return [[{"role": "user", "content": f"question {number}" * (1 + number % 5)}] for number in range(count)]


def test_an_untrained_model_answers_with_a_choice_and_greedily(tiny: SimpleNamespace) -> None:
    asked = prompts(9)
    sampling = Sampling(max_new_tokens=16, choices=LABELS)
    completions = generator(tiny).generate(asked, sampling)
    assert {
        completion.text for completion in generator(tiny).generate(asked, Sampling(max_new_tokens=16))
    }.isdisjoint(LABELS)
    end = tiny.tokenizer.eos_token_id
    paths = [(*tiny.tokenizer(label)["input_ids"], end) for label in LABELS]
    for messages, completion in zip(asked, completions, strict=True):
        ids, written = render(tiny.tokenizer, messages), ()
        while written not in paths:  # a second method: one forward pass per token, no cache
            with torch.inference_mode():
                logits = tiny.model(torch.tensor([ids + list(written)])).logits[0, -1]
            following = {path[len(written)] for path in paths if path[: len(written)] == written}
            written += (max(following, key=lambda token: logits[token].item()),)
        assert completion.text == LABELS[paths.index(written)]
        assert completion.finish == "stop"
        assert completion.completion_tokens == len(written)


def test_sampling_among_choices_reaches_all_of_them(tiny: SimpleNamespace) -> None:
    sampling = Sampling(max_new_tokens=16, temperature=1.0, choices=LABELS, seed=1)
    answers = Counter(completion.text for completion in generator(tiny).generate(prompts(1) * 300, sampling))
    assert set(answers) == set(LABELS)


def test_a_choice_longer_than_the_limit_is_cut_and_says_so(tiny: SimpleNamespace) -> None:
    [completion] = generator(tiny).generate(
        prompts(1), Sampling(max_new_tokens=2, choices=("music in the kitchen",))
    )
    assert completion.finish == "length"
    assert "music in the kitchen".startswith(completion.text)


def test_an_empty_text_neither_stops_nor_is_a_choice() -> None:
    for field in ("stop", "choices"):
        with pytest.raises(ValidationError, match="at least 1 character"):
            Sampling.model_validate({field: ["a", ""]})
