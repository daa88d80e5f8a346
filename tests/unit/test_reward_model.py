"""Training a reward model: what it sees, which weights move, that a seed decides the rest, and what it refuses."""

import json
import shutil
from math import exp, log
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from tasks.core.digests import folder_digest
from tasks.core.errors import UserError
from tasks.core.examples import read_records
from tasks.core.models import load_model, load_tokenizer
from tasks.core.references import ModelRef
from tasks.reward_model import training as reward_training
from tasks.reward_model.classifier import load_classifier
from tasks.reward_model.config import RewardTrainingConfig
from tasks.reward_model.normalisation import read_normalisation
from tasks.reward_model.pairs import make_preference
from tasks.reward_model.scoring import load_reward_model, load_scorer
from tasks.reward_model.tokens import padding_token, tokenise_pairs
from tasks.reward_model.training import train
from tasks.sft.checkpoints import newest_whole
from tasks.sft.config import AdapterConfig
from tests.unit.reward_pairs import PAIRS, TEST, TRAIN, ask, raw_reward, sequence, train_reward


@pytest.fixture(scope="module")
def eos_padded(tmp_path_factory, tiny_model) -> ModelRef:
    """The tiny model with a tokenizer that pads with the end of the turn, as SmolLM2's does."""
    folder = tmp_path_factory.mktemp("model") / "eos-padded"
    shutil.copytree(tiny_model, folder)
    tokenizer = load_tokenizer(ModelRef(uri=str(folder), digest=folder_digest(folder)))
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    return ModelRef(uri=str(folder), digest=folder_digest(folder))


@pytest.fixture
def broken(tmp_path, tiny_model):
    """A copy of the tiny model with one weight changed."""

    def make(name, change):
        folder = tmp_path / "broken"
        shutil.copytree(tiny_model, folder)
        weights = load_file(folder / "model.safetensors")
        weights[name] = change(weights[name])
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return ModelRef(uri=str(folder), digest=folder_digest(folder))

    return make


def untrained(ref, seed=0):
    """The network as training begins with it."""
    from transformers import set_seed

    set_seed(seed)
    return load_classifier(ref, precision="float32", padding=padding_token(load_tokenizer(ref)))


def test_the_reward_model_reads_the_prompt_the_answer_and_the_end_of_the_turn(tiny_ref):
    tokenizer = load_tokenizer(tiny_ref)
    rows, too_long = tokenise_pairs(RewardTrainingConfig(), tokenizer, TRAIN)
    assert (len(rows), too_long) == (30, 0)
    for row, pair in zip(rows, TRAIN, strict=True):
        assert row["chosen_ids"] == sequence(tiny_ref, pair.conversation, pair.chosen)
        assert row["rejected_ids"] == sequence(tiny_ref, pair.conversation, pair.rejected)
    assert tokenizer.decode(rows[0]["chosen_ids"]).endswith(
        f"<|im_start|>assistant\n{TRAIN[0].chosen}<|im_end|>"
    )


def test_a_long_pair_loses_the_start_of_its_prompt_on_both_sides_alike(tiny_ref):
    tokenizer = load_tokenizer(tiny_ref)
    pair = make_preference(ask("one two three " * 30), "a", "b much longer answer")
    ((whole,), _), ((cut,), _) = (
        tokenise_pairs(RewardTrainingConfig(max_length=length), tokenizer, [pair]) for length in (1024, 50)
    )
    assert cut["rejected_ids"] == whole["rejected_ids"][-50:]
    lost = len(whole["rejected_ids"]) - 50
    assert cut["chosen_ids"] == whole["chosen_ids"][lost:]


def test_an_answer_that_does_not_fit_is_refused_or_its_pair_left_out(tiny_ref):
    tokenizer = load_tokenizer(tiny_ref)
    long = make_preference(ask("Why?"), "because " * 40, "no")
    config = RewardTrainingConfig(max_length=40)
    with pytest.raises(UserError, match=long.id) as caught:
        tokenise_pairs(config, tokenizer, [PAIRS[0], long])
    assert caught.value.field == "reward_model.max_length"
    dropping = config.model_copy(update={"too_long": "drop"})
    rows, too_long = tokenise_pairs(dropping, tokenizer, [PAIRS[0], long])
    assert (len(rows), too_long) == (1, 1)
    with pytest.raises(UserError, match="no pair"):
        tokenise_pairs(dropping, tokenizer, [long])


def test_the_end_of_the_turn_is_never_padding(tiny_ref, eos_padded):
    assert padding_token(load_tokenizer(tiny_ref)) == load_tokenizer(tiny_ref).pad_token_id
    tokenizer = load_tokenizer(eos_padded)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id != padding_token(tokenizer)


@pytest.mark.parametrize("centre", [0.0, 0.5])
@pytest.mark.parametrize("batching", ["length", "random"])
def test_the_first_loss_is_that_of_bradley_and_terry(tmp_path, eos_padded, centre, batching):
    """By hand, one answer at a time and so without padding, from the network that training begins with."""
    network, expected = untrained(eos_padded, 5), 0.0
    for pair in TRAIN[:4]:
        better, worse = (
            raw_reward(network, sequence(eos_padded, pair.conversation, answer))
            for answer in (pair.chosen, pair.rejected)
        )
        expected += (log(1 + exp(worse - better)) + centre * (better + worse) ** 2) / 4
    events: list[dict] = []
    train_reward(
        tmp_path, eos_padded, TRAIN[:4], centre=centre, batching=batching, seed=5, report=events.append
    )
    losses = [event["train/loss"] for event in events if "train/loss" in event]
    assert losses[0] == pytest.approx(expected, rel=1e-3)  # the log rounds to four digits
    assert losses[-1] < losses[0]


def test_lora_trains_the_adapter_and_the_head_and_leaves_the_base_alone(tmp_path, tiny_ref, tiny_model):
    result = train_reward(tmp_path, tiny_ref, test=TEST, adapter=AdapterConfig(rank=4))
    folder = Path(result.model.uri)
    adapter = load_file(folder / "adapter_model.safetensors")
    assert sorted(path.name for path in folder.glob("*.safetensors")) == ["adapter_model.safetensors"]
    assert result.model.base == tiny_ref
    assert folder_digest(tiny_model) == tiny_ref.digest
    moved = {name: abs(value).max() for name, value in adapter.items() if "lora_B" in name}  # zero at first
    assert len(moved) == 14  # seven linear layers in each of two blocks, and none on the head
    assert min(moved.values()) > 0
    (head,) = [value for name, value in adapter.items() if name.endswith("score.weight")]
    begun = untrained(tiny_ref).score.weight.detach().numpy()
    assert head.shape == begun.shape == (1, 32)
    assert abs(head - begun).max() > 1e-3
    assert (result.steps, result.pairs, result.too_long) == (3, 30, 0)
    assert folder_digest(folder) == result.model.digest
    assert not list(folder.glob("*.bin"))


def test_small_steps_move_full_weights_in_16_bits(tmp_path, tiny_ref, tiny_model):
    """Held in 16 bits, weights would be rounded by more than all steps together."""
    changes = {"method": "full", "precision": "bfloat16", "learning_rate": 1e-6}
    result = train_reward(tmp_path, tiny_ref, schedule="constant_with_warmup", **changes)
    start, end = (load_file(Path(place) / "model.safetensors") for place in (tiny_model, result.model.uri))
    ways = [abs(end[name] - start[name]) for name in start if name in end and "embed" not in name]
    assert max(way.max() for way in ways) < 4e-6
    assert sum((way > 0).sum() for way in ways) > 0.5 * sum(way.size for way in ways)


def test_full_fine_tuning_moves_all_weights_and_needs_no_base(tmp_path, tiny_ref, tiny_model):
    result = train_reward(tmp_path, tiny_ref, method="full")
    before = load_file(tiny_model / "model.safetensors")
    after = load_file(Path(result.model.uri) / "model.safetensors")
    assert result.model.base is None
    assert before.keys() - after.keys() == {"lm_head.weight"}
    assert after.keys() - before.keys() == {"score.weight"}
    assert all((before[name] != after[name]).any() for name in before.keys() & after.keys())


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("swapped", [False, True])
def test_pairs_that_can_be_learnt_are_learnt_whichever_side_is_better(tmp_path, tiny_ref, method, swapped):
    """The untrained network prefers one side or the other throughout: one of the two cases has to turn it round."""
    train, test = (
        [make_preference(p.conversation, p.rejected, p.chosen) if swapped else p for p in part]
        for part in (TRAIN, TEST)
    )
    result = train_reward(tmp_path, tiny_ref, train, test, method=method, max_steps=25)
    assert result.held_out.accuracy > 0.9
    assert result.held_out.low > 0.5
    assert result.held_out.margin > 1
    assert result.loss < log(2)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_seed_decides_the_bytes(tmp_path, tiny_ref, method):
    results = [
        train_reward(tmp_path / str(n), tiny_ref, test=TEST, method=method, seed=seed)
        for n, seed in enumerate((7, 7, 8))
    ]
    digests = [result.model.digest for result in results]
    assert digests[0] == digests[1] != digests[2]
    assert results[0].rewards.digest == results[1].rewards.digest
    plots = [Path(result.calibration_plot).read_bytes() for result in results[:2]]
    assert plots[0] == plots[1]


@pytest.mark.parametrize(("method", "batching"), [("lora", "length"), ("lora", "random"), ("full", "length")])
def test_training_resumes_from_the_newest_whole_checkpoint_to_the_same_weights(
    tmp_path, tiny_ref, method, batching
):
    settings = {"method": method, "batching": batching, "max_steps": 12, "checkpoint_steps": 5}
    undisturbed = train_reward(tmp_path, tiny_ref, TRAIN[:14], **settings)
    checkpoints = tmp_path / "checkpoints"
    assert newest_whole(checkpoints) == checkpoints / "checkpoint-12"
    # As a kill after step 11 leaves it: what came after the checkpoint of step 10 is lost.
    (checkpoints / "checkpoint-12" / "whole.json").unlink()
    events: list[dict] = []
    resumed = train_reward(tmp_path, tiny_ref, TRAIN[:14], report=events.append, **settings)
    assert [event["step"] for event in events if "train/loss" in event] == [11, 12]
    assert resumed.model.digest == undisturbed.model.digest
    assert resumed.loss == undisturbed.loss


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_saved_model_gives_the_rewards_of_the_trained_one(tmp_path, eos_padded, method, monkeypatch):
    tokenizer, config = load_tokenizer(eos_padded), RewardTrainingConfig(max_steps=5, method=method)
    network = untrained(eos_padded)
    rows, _ = tokenise_pairs(config, tokenizer, TRAIN)
    folder = tmp_path / "out" / "model"
    # Here, so that it can be asked after it was trained.
    monkeypatch.setattr(reward_training, "load_classifier", lambda *arguments, **keywords: network)
    train(config, eos_padded, tokenizer, rows, folder, lambda event: None, base=None)
    expected = [raw_reward(network, row["chosen_ids"]) for row in rows]
    base = eos_padded if method == "lora" else None
    saved = ModelRef(uri=str(folder), digest=folder_digest(folder), base=base)
    scorer = load_scorer(saved, float, precision="float32", batch_size=8)
    rewards = scorer.raw([pair.conversation for pair in TRAIN], [pair.chosen for pair in TRAIN])
    assert rewards == pytest.approx(expected, abs=1e-4)
    assert load_tokenizer(saved).pad_token == "<|im_end|>"  # the trainer's padding is not left behind


def test_an_adapter_is_merged_first_and_the_merged_weights_are_the_base(tmp_path, tiny_ref):
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    network = get_peft_model(load_model(tiny_ref), LoraConfig(init_lora_weights=False, task_type="CAUSAL_LM"))
    network.save_pretrained(tmp_path / "policy")
    digest = folder_digest(tmp_path / "policy")
    policy = ModelRef(uri=str(tmp_path / "policy"), digest=digest, base=tiny_ref)

    ids = torch.tensor([sequence(tiny_ref, ask("Who?"), "me")])
    for method in ("lora", "full"):
        result = train_reward(tmp_path / method, policy, method=method)
        assert (result.model.base is not None) == (method == "lora")
        assert len(load_reward_model(result.model).score([ask("Who?")], ["me"])) == 1
        if result.model.base:
            assert result.model.base.uri == str(tmp_path / "lora" / "out" / "base")
            with torch.no_grad():
                merged, apart = load_model(result.model.base)(ids).logits, load_model(policy)(ids).logits
                assert torch.allclose(merged, apart, atol=1e-5)
                assert not torch.allclose(merged, load_model(tiny_ref)(ids).logits, atol=1e-2)
    assert {path.name for path in (tmp_path / "full" / "out").iterdir()} == {"model"}


def test_rewards_are_normalised_on_the_held_out_pairs_and_those_recorded(tmp_path, tiny_ref):
    result = train_reward(tmp_path, tiny_ref, test=TEST)
    scorer = load_reward_model(result.model)
    prompts = [pair.conversation for pair in TEST]
    chosen = scorer.raw(prompts, [pair.chosen for pair in TEST])
    rejected = scorer.raw(prompts, [pair.rejected for pair in TEST])
    records = list(read_records(result.rewards))
    assert [record["id"] for record in records] == [pair.id for pair in TEST]
    assert [record["chosen"] for record in records] == pytest.approx(chosen, abs=1e-4)
    assert [record["rejected"] for record in records] == pytest.approx(rejected, abs=1e-4)
    stored = read_normalisation(Path(result.model.uri))
    assert stored == result.normalisation
    assert (stored.answers, stored.reference) == (2 * len(TEST), "held-out pairs")
    assert stored.mean == pytest.approx(sum(chosen + rejected) / (2 * len(TEST)), abs=1e-4)
    assert result.held_out.margin == pytest.approx((sum(chosen) - sum(rejected)) / len(TEST), abs=1e-3)
    right = sum(c > r for c, r in zip(chosen, rejected, strict=True))
    assert result.held_out.accuracy == pytest.approx(right / len(TEST))
    assert Path(result.calibration_plot).read_bytes().startswith(b"\x89PNG")
    assert result.metrics().keys() >= {"reward/accuracy", "reward/calibration_error", "train/loss"}


def test_without_held_out_pairs_the_training_pairs_are_the_reference(tmp_path, tiny_ref):
    result = train_reward(tmp_path, tiny_ref)
    assert (result.held_out, result.rewards, result.calibration_plot) == (None, None, "")
    assert (result.normalisation.answers, result.normalisation.reference) == (60, "training pairs")
    assert "reward/accuracy" not in result.metrics()


def test_one_pair_is_enough(tmp_path, tiny_ref):
    result = train_reward(tmp_path, tiny_ref, TRAIN[:1], TEST[:1], max_steps=0, epochs=2.0)
    assert (result.steps, result.pairs, result.held_out.pairs) == (2, 1, 1)


def test_no_pair_is_a_mistake_of_the_data(tmp_path, tiny_ref):
    with pytest.raises(UserError, match="no pair to train on") as caught:
        train_reward(tmp_path, tiny_ref, [])
    assert caught.value.field == "preferences.train"


def test_a_model_that_gives_one_reward_to_all_is_refused(tmp_path, broken):
    silenced = broken("model.norm.weight", lambda weight: weight * 0)
    with pytest.raises(UserError, match="all held-out pairs the same reward, 0"):
        train_reward(tmp_path, silenced, test=TEST)


def test_a_model_that_gives_nan_is_refused(tmp_path, broken):
    poisoned = broken("model.norm.weight", lambda weight: weight * float("nan"))
    with pytest.raises(UserError, match="nan for 60 of 60 answers") as caught:
        train_reward(tmp_path, poisoned)
    assert "learning rate" in caught.value.mend


def test_modules_that_the_model_has_not_are_refused(tmp_path, tiny_ref):
    with pytest.raises(UserError, match="no linear module named query") as caught:
        train_reward(tmp_path, tiny_ref, adapter=AdapterConfig(modules="q_proj, query"))
    assert caught.value.field == "reward_model.adapter.modules"
    assert "q_proj" in caught.value.mend


def test_only_the_named_modules_get_an_adapter(tmp_path, tiny_ref):
    result = train_reward(tmp_path, tiny_ref, adapter=AdapterConfig(modules="q_proj,v_proj"))
    adapter = load_file(Path(result.model.uri) / "adapter_model.safetensors")
    assert {name.split(".")[-3] for name in adapter if "lora_" in name} == {"q_proj", "v_proj"}
    assert any(name.endswith("score.weight") for name in adapter)


def test_an_architecture_without_a_head_is_refused(tmp_path, tiny_model):
    folder = tmp_path / "mamba"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "mamba"}))
    with pytest.raises(UserError, match="cannot be a reward model"):
        train_reward(tmp_path, ModelRef(uri=str(folder), digest=folder_digest(folder)))
