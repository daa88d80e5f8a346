"""The transformers generator against transformers' own generate, one prompt at a time, on a tiny model."""

import itertools
from collections import Counter
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasks.core.errors import UserError
from tasks.core.generators.base import Completion, Message, Sampling
from tasks.core.generators.decoding import compute_prefix, evaluating, plan_batches
from tasks.core.generators.local import LOGIT_COST, TransformersGenerator
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


def test_sliding_windows_agree_with_transformers_because_no_prefix_is_shared() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(
        vocab_size=60, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=6, initializer_range=0.1, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = MistralForCausalLM(config).eval()
    encoded = [[5, 6, 7, 8, *range(20, 20 + extra)] for extra in (1, 3, 9, 20)]
    tokenizer = SimpleNamespace(eos_token_id=1, decode=lambda tokens, **_: " ".join(map(str, tokens)))
    engine = TransformersGenerator(model, lambda messages: encoded[int(messages[0]["content"])], tokenizer)
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
