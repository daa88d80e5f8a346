"""Scoring with a reward model: rewards as transformers gives them, in order, whatever the batches and lengths."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from tasks.core.digests import folder_digest
from tasks.core.errors import UserError
from tasks.core.models import load_tokenizer
from tasks.core.references import ModelRef
from tasks.reward_model import scoring
from tasks.reward_model.normalisation import Normalisation, fit_normalisation, read_normalisation
from tasks.reward_model.scoring import load_reward_model
from tests.tiny_model import build_tiny_model
from tests.unit.reward_pairs import TEST, TRAIN, ask, raw_reward, sequence, train_reward

PROMPTS = [
    *(
        ask(text)
        for text in ("Who?", "What will the weather be like in Berlin tomorrow? " * 4, "Where is it?")
    ),
    [*ask("Is it far?"), {"role": "assistant", "content": "Where to?"}, *ask("To the sea.")],
] * 3
COMPLETIONS = ["me", "rain", "", "no", "", "cold and rainy " * 20, "in the kitchen", "an hour"] * 2
PROMPTS, COMPLETIONS = PROMPTS[:12], COMPLETIONS[:12]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_ref):
    """A reward model by its method."""
    folder = tmp_path_factory.mktemp("reward")
    return {
        method: train_reward(folder / method, tiny_ref, test=TEST, method=method).model
        for method in ("lora", "full")
    }


@pytest.fixture
def altered(tmp_path, trained):
    """A copy of the fully trained reward model, changed."""

    def make(change):
        folder = tmp_path / "altered"
        shutil.copytree(trained["full"].uri, folder)
        change(folder)
        return ModelRef(uri=str(folder), digest=folder_digest(folder))

    return make


def classifier(ref: ModelRef):
    """The network as transformers and PEFT load it, the adapter apart."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    if ref.base is None:
        return AutoModelForSequenceClassification.from_pretrained(ref.uri)
    network = AutoModelForSequenceClassification.from_pretrained(ref.base.uri, num_labels=1)
    return PeftModel.from_pretrained(network, ref.uri)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_batched_rewards_are_those_of_transformers_one_at_a_time(trained, method):
    network, ref = classifier(trained[method]), trained[method]
    expected = [
        raw_reward(network, sequence(ref, prompt, completion))
        for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True)
    ]
    for batch_size in (32, 5, 1):
        rewards = load_reward_model(ref, batch_size=batch_size).raw(PROMPTS, COMPLETIONS)
        assert rewards == pytest.approx(expected, abs=1e-4)
    assert max(expected) - min(expected) > 0.1


def test_the_token_budget_changes_nothing(trained, monkeypatch):
    scorer = load_reward_model(trained["lora"])
    whole = scorer.raw(PROMPTS, COMPLETIONS)
    monkeypatch.setattr(scoring, "MAX_BATCH_TOKENS", 100)  # most of the rows alone, some longer than that
    assert scorer.raw(PROMPTS, COMPLETIONS) == pytest.approx(whole, abs=1e-4)


def test_scores_are_normalised_rewards_in_order(trained):
    ref = trained["lora"]
    scorer, stored = load_reward_model(ref), json.loads((Path(ref.uri) / "reward.json").read_text())
    scores, raw = scorer.score(PROMPTS, COMPLETIONS), scorer.raw(PROMPTS, COMPLETIONS)
    span = stored["high"] - stored["low"]
    assert scores == pytest.approx([min(1, max(0, (value - stored["low"]) / span)) for value in raw])
    assert all(0 <= score <= 1 for score in scores)
    assert scorer.score(PROMPTS[::-1], COMPLETIONS[::-1]) == pytest.approx(scores[::-1], abs=1e-4)


def test_better_answers_score_higher(tmp_path, tiny_ref):
    scorer = load_reward_model(train_reward(tmp_path, tiny_ref, max_steps=25).model)
    prompts = [pair.conversation for pair in TEST]
    better = scorer.score(prompts, [pair.chosen for pair in TEST])
    worse = scorer.score(prompts, [pair.rejected for pair in TEST])
    assert sum(better) / len(TEST) > 0.8
    assert sum(worse) / len(TEST) < 0.2


def test_equal_pairs_get_one_reward_and_progress_counts_all(trained):
    seen = []
    scorer = load_reward_model(trained["lora"], batch_size=2)
    prompts, completions = [ask("Who?")] * 5 + [ask("Where?")], ["me", "", "me", "", "me", "here"]
    rewards = scorer.raw(prompts, completions, lambda done, total: seen.append((done, total)))
    assert rewards[0] == rewards[2] == rewards[4] != rewards[1] == rewards[3]
    assert [total for _, total in seen] == [6, 6]
    assert seen[-1] == (6, 6)


def test_no_prompt_gives_no_reward(trained):
    assert load_reward_model(trained["lora"]).score([], []) == []


def test_prompts_and_completions_have_to_be_as_many(trained):
    with pytest.raises(ValueError, match="zip"):
        load_reward_model(trained["lora"]).score([ask("Who?")], [])


def test_a_pair_longer_than_the_context_loses_the_beginning(tmp_path):
    folder = build_tiny_model(tmp_path / "short", context=64)
    short = ModelRef(uri=str(folder), digest=folder_digest(folder))
    ref = train_reward(tmp_path / "job", short, max_length=64, too_long="drop").model
    scorer, network = load_reward_model(ref), classifier(ref)
    long = "What will the weather be like in Berlin? " * 20
    cases = [(ask(long), "rain"), (ask("Where?"), "here"), (ask(long), ""), (ask("Why?"), "because " * 99)]
    rewards = scorer.raw(*zip(*cases, strict=True))
    for (prompt, completion), reward in zip(cases, rewards, strict=True):
        ids = sequence(ref, prompt, completion)[-64:]
        assert reward == pytest.approx(raw_reward(network, ids), abs=1e-4)


def test_half_precision_keeps_the_order_of_clear_differences(tmp_path, tiny_ref):
    ref = train_reward(tmp_path, tiny_ref, max_steps=25).model
    exact, rough = (load_reward_model(ref, precision=name) for name in ("float32", "bfloat16"))
    prompts, answers = [pair.conversation for pair in TRAIN], [pair.chosen for pair in TRAIN]
    assert rough.raw(prompts, answers) == pytest.approx(exact.raw(prompts, answers), abs=0.3)
    assert len(set(rough.raw(prompts, answers))) > len(TRAIN) / 2  # the head does not round to 8 bits


def test_nan_is_an_error_that_names_the_model(altered):
    def poison(folder):
        weights = load_file(folder / "model.safetensors")
        weights["score.weight"][0, 0] = float("nan")
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    ref = altered(poison)
    with pytest.raises(UserError, match="gives nan for 2 of 2 answers") as caught:
        load_reward_model(ref).score([ask("Who?")] * 3, ["me", "you", "me"])
    assert ref.uri in caught.value.fault


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (None, "no reward model"),
        ("{}", "no reward model"),
        ("not JSON", "no reward model"),
        (
            Normalisation(low=1, high=1, mean=1, std=0, answers=2, reference="x").model_dump_json(),
            "has no range",
        ),
    ],
)
def test_a_folder_without_a_sound_normalisation_is_no_reward_model(altered, text, fault):
    def change(folder):
        (folder / "reward.json").unlink()
        if text is not None:
            (folder / "reward.json").write_text(text)

    with pytest.raises(UserError, match=fault) as caught:
        load_reward_model(altered(change))
    assert caught.value.mend


def test_a_language_model_is_no_reward_model(tiny_ref):
    with pytest.raises(UserError, match="no reward model"):
        load_reward_model(tiny_ref)


def test_the_normalisation_maps_percentiles_to_the_ends(tmp_path):
    fitted = fit_normalisation([float(n) for n in range(101)], "held-out pairs")
    assert (fitted.low, fitted.high, fitted.mean, fitted.answers) == (1.0, 99.0, 50.0, 101)
    assert fitted.std == pytest.approx(29.1548, abs=1e-4)
    assert [fitted(raw) for raw in (-5, 1, 50, 74.5, 99, 1000)] == [0.0, 0.0, 0.5, 0.75, 1.0, 1.0]
    fitted.save(tmp_path)
    assert read_normalisation(tmp_path) == fitted


@pytest.mark.parametrize("raw", [[3.0, 3.0, 3.0], [1.0, float("nan")], [0.5], [1e6, 1e6 + 0.01]])
def test_rewards_without_a_range_cannot_be_normalised(raw):
    with pytest.raises(UserError, match="the same reward") as caught:
        fit_normalisation(raw, "held-out pairs")
    assert caught.value.field == "reward_model.learning_rate"


def test_the_tokenizer_of_the_reward_model_is_that_of_its_base(trained, tiny_ref):
    base = load_tokenizer(tiny_ref)
    for ref in trained.values():
        own = load_tokenizer(ref.model_copy(update={"base": None}))
        assert own.get_vocab() == base.get_vocab()
        assert (own.pad_token, own.eos_token) == (base.pad_token, base.eos_token)
        assert own.chat_template == base.chat_template
