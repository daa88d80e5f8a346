"""The transformers generator against transformers' own generate, one prompt at a time, on a tiny model."""

import itertools
import random
from collections import Counter
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasks.core.errors import UserError
from tasks.core.generators.base import Completion, Message, Sampling
from tasks.core.generators.buffered_cache import ROOM
from tasks.core.generators.continuous_batch import ContinuousBatch
from tasks.core.generators.decoding import Limits, evaluating, next_to_join, plan_batches
from tasks.core.generators.local import LOGIT_COST, TransformersGenerator
from tasks.core.generators.prefix import compute_prefix
from tasks.core.models import render
from tests.tiny_model import build_tiny_model

CONTEXT = 256
WORDS = [
    "play",
    "some",
    "music",
    "by",
    "Anna",
    "in",
    "the",
    "kitchen",
    "and",
    "find",
    "out",
    "what",
    "the",
    "weather",
    "will",
    "be",
    "like",
    "tomorrow",
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = build_tiny_model(tmp_path_factory.mktemp("tiny"), context=CONTEXT)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return SimpleNamespace(
        model=AutoModelForCausalLM.from_pretrained(folder).eval(),
        tokenizer=tokenizer,
        encode=partial(render, tokenizer),
    )


def prompt(text: str, system: str = "Classify the sentence.") -> list[Message]:
    return [{"role": "system", "content": system}, {"role": "user", "content": text}]


def prompts_of_many_lengths(count: int = 13) -> list[list[Message]]:
    return [
        prompt(" ".join(itertools.islice(itertools.cycle(WORDS), i, i + 1 + 7 * i % 23)))
        for i in range(count)
    ]


def generator(tiny: SimpleNamespace, **limits: int) -> TransformersGenerator:
    return TransformersGenerator(tiny.model, tiny.encode, tiny.tokenizer, **limits)


def reference(
    tiny: SimpleNamespace, messages: list[Message], new: int, eos: list[int] | None = None
) -> list[int]:
    """The new tokens of transformers' own greedy generate for one prompt."""
    ids = torch.tensor([tiny.encode(messages)])
    out = tiny.model.generate(
        ids, max_new_tokens=new, do_sample=False, eos_token_id=eos or tiny.tokenizer.eos_token_id
    )
    return out[0, ids.shape[1] :].tolist()


def reference_text(tiny: SimpleNamespace, tokens: list[int]) -> str:
    return tiny.tokenizer.decode(tokens, skip_special_tokens=True)


@pytest.fixture
def early_end(tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """End-of-sequence ids with which the prompts of many lengths end at different steps, some never."""
    plain = [reference(tiny, messages, 12) for messages in prompts_of_many_lengths()]
    seen = Counter(token for tokens in plain for token in set(tokens[:8]))
    often = next(token for token, count in seen.most_common() if count < len(plain))
    ends = [tiny.tokenizer.eos_token_id, often]
    monkeypatch.setattr(tiny.model.generation_config, "eos_token_id", ends)
    return ends


def test_greedy_completions_are_those_of_transformers_one_prompt_at_a_time(tiny: SimpleNamespace) -> None:
    prompts = prompts_of_many_lengths()
    completions = generator(tiny, batch_size=5).generate(prompts, Sampling(max_new_tokens=12))
    for messages, completion in zip(prompts, completions, strict=True):
        tokens = reference(tiny, messages, 12)
        assert completion == Completion(
            text=reference_text(tiny, tokens),
            finish="length",
            prompt_tokens=len(tiny.encode(messages)),
            completion_tokens=12,
        )


def test_prompts_without_a_common_prefix_agree_too(tiny: SimpleNamespace) -> None:
    prompts = prompts_of_many_lengths()
    plain = TransformersGenerator(
        tiny.model,
        lambda messages: tiny.tokenizer(messages[1]["content"])["input_ids"],
        tiny.tokenizer,
        batch_size=4,
    )
    encoded = [tiny.tokenizer(messages[1]["content"])["input_ids"] for messages in prompts]
    assert compute_prefix(tiny.model, encoded).length == 0
    for ids, completion in zip(encoded, plain.generate(prompts, Sampling(max_new_tokens=8)), strict=True):
        out = tiny.model.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False)
        assert completion.text == reference_text(tiny, out[0, len(ids) :].tolist())


def test_the_common_prefix_is_read_once_and_leaves_every_prompt_a_token(tiny: SimpleNamespace) -> None:
    encoded = [tiny.encode(messages) for messages in prompts_of_many_lengths()]
    head = tiny.tokenizer("<|im_start|>system\nClassify the sentence.<|im_end|>\n<|im_start|>user\n")[
        "input_ids"
    ]
    with evaluating(tiny.model):
        assert compute_prefix(tiny.model, encoded).length == len(head)
        inside = compute_prefix(tiny.model, [[5, 6, 7], [5, 6, 7, 8]])
        assert (inside.length, inside.cache.get_seq_length()) == (2, 2)
        assert compute_prefix(tiny.model, [[5, 6, 7]]).length == 0


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


def test_a_stop_text_ends_the_completion_before_it(tiny: SimpleNamespace) -> None:
    prompts = prompts_of_many_lengths(4)
    full = [reference_text(tiny, reference(tiny, messages, 12)) for messages in prompts]
    # Characters in the middle of the first completion, which its tokens may split anywhere.
    stop = (full[0][3:6], "never written by anybody")
    for text, completion in zip(
        full, generator(tiny).generate(prompts, Sampling(max_new_tokens=12, stop=stop)), strict=True
    ):
        assert completion.text == text.split(stop[0])[0]
        assert completion.finish == ("stop" if stop[0] in text else "length")
    assert (
        generator(tiny).generate(prompts[:1], Sampling(max_new_tokens=12, stop=stop))[0].completion_tokens
        < 12
    )


def test_no_prompts_give_no_completions(tiny: SimpleNamespace) -> None:
    assert generator(tiny).generate([], Sampling()) == []
    assert generator(tiny).log_likelihood([], []) == []


def test_one_prompt_gives_one_completion(tiny: SimpleNamespace) -> None:
    messages = prompt("play some music")
    [completion] = generator(tiny).generate([messages], Sampling(max_new_tokens=1))
    assert completion.text == reference_text(tiny, reference(tiny, messages, 1))


def test_a_prompt_may_fill_the_context_and_one_token_more_is_an_error_that_names_the_limit(
    tiny: SimpleNamespace,
) -> None:
    short = prompt("play some music")
    length = len(tiny.encode(short))
    engine = generator(tiny)
    fits = engine.generate([short], Sampling(max_new_tokens=CONTEXT - length))[0]
    assert (fits.finish, fits.completion_tokens) == ("length", CONTEXT - length)
    calls: list[tuple[int, int]] = []
    long, fine = engine.generate(
        [prompt("a " * CONTEXT), short],
        Sampling(max_new_tokens=6),
        lambda done, total: calls.append((done, total)),
    )
    assert (long.finish, long.text, long.completion_tokens) == ("error", "", 0)
    assert f"{len(tiny.encode(prompt('a ' * CONTEXT)))} tokens" in long.error
    assert str(CONTEXT) in long.error
    assert fine.text == reference_text(tiny, reference(tiny, short, 6))
    assert calls == [(1, 2), (2, 2)]
    assert (engine.usage.calls, engine.usage.errors) == (3, 1)


def test_usage_and_progress_count_every_prompt(tiny: SimpleNamespace, early_end: list[int]) -> None:
    prompts = prompts_of_many_lengths(7)
    engine = generator(tiny, batch_size=3)
    calls: list[tuple[int, int]] = []
    completions = engine.generate(
        prompts, Sampling(max_new_tokens=5), lambda done, total: calls.append((done, total))
    )
    assert calls == [(done, 7) for done in range(1, 8)]
    assert engine.usage.prompt_tokens == sum(len(tiny.encode(messages)) for messages in prompts)
    assert engine.usage.completion_tokens == sum(c.completion_tokens for c in completions)


def test_a_model_in_training_generates_without_dropout_and_stays_in_training(
    tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for layer in tiny.model.model.layers:
        monkeypatch.setattr(layer.self_attn, "attention_dropout", 0.5)
    prompts = prompts_of_many_lengths(3)
    tiny.model.train()
    completions = generator(tiny).generate(prompts, Sampling(max_new_tokens=6))
    assert tiny.model.training
    tiny.model.eval()
    assert [c.text for c in completions] == [reference_text(tiny, reference(tiny, m, 6)) for m in prompts]


@pytest.mark.parametrize("batch_size", [4, 2])
def test_sliding_windows_agree_with_transformers_because_no_prefix_is_shared(batch_size: int) -> None:
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(
        vocab_size=60, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=6, initializer_range=0.1, eos_token_id=[1, 13], pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = MistralForCausalLM(config).eval()
    encoded = [[5, 6, 7, 8, *range(20, 20 + extra)] for extra in (1, 3, 9, 20)]
    tokenizer = SimpleNamespace(eos_token_id=1, decode=lambda tokens, **_: " ".join(map(str, tokens)))
    engine = TransformersGenerator(
        model, lambda messages: encoded[int(messages[0]["content"])], tokenizer, batch_size=batch_size
    )
    completions = engine.generate(
        [[{"role": "user", "content": str(i)}] for i in range(4)], Sampling(max_new_tokens=9)
    )
    for ids, completion in zip(encoded, completions, strict=True):
        out = model.generate(torch.tensor([ids]), max_new_tokens=9, do_sample=False)[0, len(ids) :]
        assert completion.text == " ".join(map(str, out.tolist()))


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


def test_a_target_past_the_context_is_the_users_mistake(tiny: SimpleNamespace) -> None:
    with pytest.raises(UserError, match=f"context holds {CONTEXT}"):
        generator(tiny).log_likelihood([prompt("hello")], ["a " * CONTEXT])


def test_batches_begin_with_the_dearest_row_and_keep_both_limits() -> None:
    costs = [(3,), (10,), (4,), (9,), (1,), (50,)]
    assert plan_batches(costs, max_rows=2, max_tokens=20) == [[5], [1, 3], [2, 0], [4]]
    assert plan_batches(costs, max_rows=32, max_tokens=1000) == [[5, 1, 3, 2, 0, 4]]
    assert plan_batches([], 2, 20) == []
