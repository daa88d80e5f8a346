"""The transformers generator against transformers' own generate, one prompt at a time, on a tiny model."""

from types import SimpleNamespace

import pytest
import torch

from tasks.core.generators.base import Completion, Sampling
from tasks.core.generators.decoding import evaluating
from tasks.core.generators.local import TransformersGenerator
from tasks.core.generators.prefix import compute_prefix
from tests.unit.tiny_generation import (
    CONTEXT,
    generator,
    prompt,
    prompts_of_many_lengths,
    reference,
    reference_text,
)


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
