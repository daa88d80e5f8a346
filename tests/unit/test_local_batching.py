"""Rows that join and leave the batch while others are being decoded: same tokens, fewer steps."""

import random
from types import SimpleNamespace

import pytest
import torch

from tasks.core.generators.base import Sampling
from tasks.core.generators.buffered_cache import ROOM
from tasks.core.generators.continuous_batch import ContinuousBatch
from tasks.core.generators.decoding import Limits, evaluating, next_to_join, plan_batches
from tasks.core.generators.prefix import compute_prefix
from tests.unit.tiny_generation import (
    generator,
    prompt,
    prompts_of_many_lengths,
    reference,
    reference_text,
)


def test_rows_that_end_leave_the_batch_and_the_others_go_on_unchanged(
    tiny: SimpleNamespace, early_end: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = prompts_of_many_lengths()
    sizes: list[int] = []
    forward = tiny.model.forward
    monkeypatch.setattr(
        tiny.model, "forward", lambda **inputs: (sizes.append(len(inputs["input_ids"])), forward(**inputs))[1]
    )
    completions = generator(tiny).generate(prompts, Sampling(max_new_tokens=12))
    monkeypatch.undo()
    expected = [reference(tiny, messages, 12, early_end) for messages in prompts]
    lengths = [len(tokens) for tokens in expected]
    assert min(lengths) < 8
    assert max(lengths) == 12
    assert [completion.completion_tokens for completion in completions] == lengths
    ended = [tokens[-1] in early_end for tokens in expected]
    assert [completion.finish for completion in completions] == ["stop" if end else "length" for end in ended]
    texts = [reference_text(tiny, tokens) for tokens in expected]
    assert [completion.text for completion in completions] == texts
    # The prefix (one row), the prompts, and then at every step the rows that have not ended.
    assert sizes == [1, *(sum(length > step for length in lengths) for step in range(12))]


def test_waiting_prompts_take_the_places_of_ended_ones(
    tiny: SimpleNamespace, early_end: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = prompts_of_many_lengths()
    expected = [reference(tiny, messages, 12, early_end) for messages in prompts]
    reads: list[tuple[int, int]] = []
    forward = tiny.model.forward
    monkeypatch.setattr(
        tiny.model,
        "forward",
        lambda **inputs: (reads.append(inputs["input_ids"].shape), forward(**inputs))[1],
    )
    completions = generator(tiny, batch_size=4).generate(prompts, Sampling(max_new_tokens=12))
    monkeypatch.undo()
    assert [c.text for c in completions] == [reference_text(tiny, tokens) for tokens in expected]
    assert [c.completion_tokens for c in completions] == [len(tokens) for tokens in expected]
    steps = [rows for rows, width in reads if width == 1]
    # Batches of four that wait for their last row would take as many steps as their longest rows have tokens.
    by_length = sorted(range(13), key=lambda i: (len(tiny.encode(prompts[i])), tiny.encode(prompts[i])))[::-1]
    waiting = sum(max(len(expected[i]) for i in by_length[at : at + 4]) - 1 for at in range(0, 13, 4))
    assert max(steps) == 4
    assert len(steps) < waiting


def test_long_completions_of_prompts_that_come_and_go_are_those_of_transformers(
    tiny: SimpleNamespace, early_end: list[int]
) -> None:
    """Long enough for the buffers to be made anew several times, with rows joining in between."""
    prompts = prompts_of_many_lengths(9)
    new = 3 * ROOM + 5
    completions = generator(tiny, batch_size=3).generate(prompts, Sampling(max_new_tokens=new))
    expected = [reference(tiny, messages, new, early_end) for messages in prompts]
    assert [c.completion_tokens for c in completions] == [len(tokens) for tokens in expected]
    assert [c.text for c in completions] == [reference_text(tiny, tokens) for tokens in expected]


def test_logits_in_a_batch_of_rows_that_come_and_go_are_those_of_each_row_alone(
    tiny: SimpleNamespace,
) -> None:
    rng = random.Random(0)
    head = [7, 8, 9, 10]

    def tokens(count: int) -> list[int]:
        return [rng.randrange(4, 260) for _ in range(count)]

    with evaluating(tiny.model):
        prefix = compute_prefix(tiny.model, [[*head, 11], [*head, 12]])
        batch = ContinuousBatch(tiny.model, prefix)
        rows: list[list[int]] = []
        for _ in range(150):
            logits: list[torch.Tensor] = []
            if rows and rng.random() < 0.8:
                new = tokens(len(rows))
                logits.append(batch.step(new))
                rows = [[*row, token] for row, token in zip(rows, new, strict=True)]
            elif rows:
                logits.append(torch.empty(0, len(tiny.tokenizer)))
            if len(rows) < 3 and rng.random() < 0.5:
                joining = [head + tokens(rng.randrange(1, 40)) for _ in range(rng.randrange(1, 3))]
                joining += joining[:1] * rng.randrange(3)
                logits.append(batch.join(joining))
                rows += joining
            got = torch.cat(logits) if logits else torch.empty(0, len(tiny.tokenizer))
            for row, values in zip(rows[-len(got) :], got, strict=False):
                alone = tiny.model(torch.tensor([row])).logits[0, -1]
                torch.testing.assert_close(values, alone, atol=2e-4, rtol=1e-4)
            staying = [place for place in range(len(rows)) if rng.random() < 0.9 and len(rows[place]) < 150]
            rows = [rows[place] for place in batch.keep(staying)]
            assert len(batch) == len(rows)


def test_repeated_prompts_are_read_once_in_a_batch(
    tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [prompt("play some music"), prompt("weather"), prompt("play some music")]
    sizes: list[int] = []
    forward = tiny.model.forward
    monkeypatch.setattr(
        tiny.model, "forward", lambda **inputs: (sizes.append(len(inputs["input_ids"])), forward(**inputs))[1]
    )
    completions = generator(tiny).generate(prompts, Sampling(max_new_tokens=3))
    monkeypatch.undo()
    assert sizes == [1, 2, 3, 3]
    assert [c.text for c in completions] == [reference_text(tiny, reference(tiny, m, 3)) for m in prompts]


def test_prompts_join_with_their_equals_and_when_a_quarter_of_the_batch_is_free() -> None:
    prompts = [[9] * 10] * 6 + [[8] * 10] * 6 + [[7] * 3]
    limits = Limits(rows=8, tokens=1000, new_tokens=10)
    waiting = list(range(13))
    assert next_to_join(prompts, waiting, [], limits) == [0, 1, 2, 3, 4, 5]
    assert next_to_join(prompts, waiting[6:], [0, 1, 2, 3, 4], limits) == []  # three places for six equals
    assert next_to_join(prompts, waiting[6:], [0, 1, 2, 3], limits) == [
        6,
        7,
        8,
        9,
    ]  # half the batch is enough
    assert next_to_join(prompts, waiting[12:], [0, 1, 2, 3, 4, 5, 6], limits) == [12]
    assert next_to_join(prompts, waiting[12:], [0, 1, 2, 3, 4, 5, 6, 7], limits) == []
    assert next_to_join(prompts, [], [0], limits) == []
    narrow = Limits(rows=8, tokens=45, new_tokens=10)  # two rows of 20
    assert next_to_join(prompts, waiting, [], narrow) == [0, 1]
    assert next_to_join(prompts, waiting[2:], [0], narrow) == [2]
    assert next_to_join(prompts, waiting, [], Limits(rows=8, tokens=5, new_tokens=10)) == [0]


def test_batches_begin_with_the_dearest_row_and_keep_both_limits() -> None:
    costs = [(3,), (10,), (4,), (9,), (1,), (50,)]
    assert plan_batches(costs, max_rows=2, max_tokens=20) == [[5], [1, 3], [2, 0], [4]]
    assert plan_batches(costs, max_rows=32, max_tokens=1000) == [[5, 1, 3, 2, 0, 4]]
    assert plan_batches([], 2, 20) == []
