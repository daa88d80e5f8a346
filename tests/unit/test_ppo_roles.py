"""One base in four roles: each gives what a model of its own would give, and none disturbs another."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tasks.core.digests import folder_digest
from tasks.core.errors import DamagedArtifact, UserError
from tasks.core.models import load_model, load_tokenizer, render
from tasks.core.references import ModelRef
from tasks.ppo import log_probabilities
from tasks.ppo.config import PPOConfig
from tasks.ppo.kl_control import FixedKL
from tasks.ppo.log_probabilities import Vocabulary
from tasks.ppo.merge import MergeConfig, MergeInputs
from tasks.ppo.merge import run as merge
from tasks.ppo.optimisation import update
from tasks.ppo.optimizer import make_optimizer
from tasks.ppo.roles_config import RolesConfig, check
from tasks.ppo.rollout import make_rollout
from tasks.ppo.saving import load_trained_weights, save_policy, save_trained_weights
from tasks.ppo.scores import by_role
from tasks.ppo.warning_signs import one_token
from tasks.reward_model.scoring import load_reward_model
from tasks.reward_model.tokens import answer_tokens
from tasks.sft.adapter import AdapterConfig
from tests.tiny_model import build_tiny_model
from tests.unit.ppo_roles import ENDED, PROMPTS, RESPONSES, gradients, move, naive, roles_on, rollout, wider
from tests.unit.reward_pairs import TEST, train_reward

METHODS = ["lora", "full"]


@pytest.fixture(scope="module")
def reward(tmp_path_factory, tiny_ref) -> ModelRef:
    """A reward adapter on the tiny model."""
    return train_reward(tmp_path_factory.mktemp("reward"), tiny_ref, test=TEST, max_steps=8).model


@pytest.fixture(scope="module")
def plain(tiny_ref):
    """The tiny model as transformers loads it."""
    return AutoModelForCausalLM.from_pretrained(tiny_ref.uri).eval()


def close(found, expected, tolerance=1e-5):
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_reference_is_the_base_whatever_is_trained(tiny_ref, reward, plain, method, temperature):
    roles = roles_on(tiny_ref, reward, method=method, temperature=temperature)
    expected, _ = naive(plain, rollout(), temperature)
    found = roles.reference(rollout())
    close(found, expected)
    assert not found.requires_grad
    assert (found[~rollout().mask] == 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_the_policy_begins_as_the_reference_and_moves_alone(tiny_ref, reward, method):
    roles = roles_on(tiny_ref, reward, method=method, moved=False)
    batch = rollout()
    start, reference = roles.policy(batch)[0].detach(), roles.reference(batch)
    torch.testing.assert_close(start, reference, atol=1e-6, rtol=0)
    values, rewards = roles.values(batch).detach(), roles.raw_rewards(batch)
    assert (values == 0).all()
    move(roles, "value.")
    assert (roles.policy(batch)[0] == start).all()
    assert (roles.values(batch)[batch.mask] != 0).all()
    values = roles.values(batch).detach()
    move(roles, "policy.")
    assert (roles.policy(batch)[0] - start).abs()[batch.mask].min() > 1e-4
    assert (roles.reference(batch) == reference).all()
    assert (roles.values(batch) == values).all()
    assert (roles.raw_rewards(batch) == rewards).all()


@pytest.mark.parametrize("method", METHODS)
def test_the_policys_numbers_are_those_of_the_saved_policy_in_plain_forwards(tmp_path, tiny_ref, method):
    roles = roles_on(tiny_ref, method=method, temperature=0.8)
    saved = save_policy(roles, load_tokenizer(tiny_ref), tmp_path / "policy", tiny_ref)
    assert saved.base == (tiny_ref if method == "lora" else None)
    assert saved.digest == folder_digest(Path(saved.uri))
    for found, expected in zip(
        roles.policy(rollout()), naive(load_model(saved), rollout(), 0.8), strict=True
    ):
        close(found.detach(), expected, 1e-4)


@pytest.mark.parametrize("value", ["adapter", "trunk", "model"])
def test_padding_changes_nothing_of_any_role(tiny_ref, reward, value):
    roles = roles_on(tiny_ref, reward, value=value)
    batch, padded = rollout(), wider(rollout())
    for role in (lambda b: roles.policy(b)[0], lambda b: roles.policy(b)[1], roles.values, roles.reference):
        found, width = role(padded), batch.mask.shape[1]
        close(found[:, :width], role(batch))
        assert (found[:, width:] == 0).all()
    close(roles.raw_rewards(padded), roles.raw_rewards(batch))
    for row in range(3):  # nor do the others of a batch
        close(roles.policy(batch.select(slice(row, row + 1)))[0][0], roles.policy(batch)[0][row])


@pytest.mark.parametrize("method", METHODS)
def test_rewards_are_those_of_the_reward_model_for_the_same_texts(tiny_ref, reward, method):
    tokenizer, scorer = load_tokenizer(tiny_ref), load_reward_model(reward)
    prompts = [pair.conversation for pair in TEST]
    answers = [pair.chosen if at % 2 else pair.rejected for at, pair in enumerate(TEST)]
    tokens = [answer_tokens(tokenizer, text) for text in answers]
    ended = [at % 3 != 0 for at in range(len(tokens))]  # the others are cut before the end of the turn
    tokens = [row if end else row[:-1] for row, end in zip(tokens, ended, strict=True)]
    batch = rollout([render(tokenizer, prompt) for prompt in prompts], tokens, ended)
    roles = roles_on(tiny_ref, reward, method=method)
    close(roles.raw_rewards(batch), torch.tensor(scorer.raw(prompts, answers)))
    close(roles.rewards(batch), torch.tensor(scorer.score(prompts, answers)))
    assert roles.rewards(batch).std() > 0.01


def test_every_role_reads_the_same_where_the_end_token_pads(tiny_ref, reward):
    roles = roles_on(tiny_ref, reward)
    apart, same = (make_rollout(PROMPTS, RESPONSES, ENDED, padding=token) for token in (0, 3))
    assert (same.responses != apart.responses).any()
    assert one_token(same).tolist() == one_token(apart).tolist() == [False, False, True]
    for role in (lambda b: roles.policy(b)[0], lambda b: roles.policy(b)[1], roles.values, roles.reference):
        close(role(same), role(apart))
    close(roles.rewards(same), roles.rewards(apart))


@pytest.mark.parametrize("fault", [math.inf, -math.inf, math.nan])
def test_a_reward_head_that_overflows_is_refused_and_no_reward_of_0_or_1(tiny_ref, reward, fault):
    """A bound at [0, 1] would have made the best or the worst answer of it."""
    roles, batch, config = roles_on(tiny_ref, reward), rollout(), PPOConfig()
    sound = roles.rewards(batch)
    roles._reward.head.bias = torch.nn.Parameter(torch.tensor([fault]), requires_grad=False)
    optimizer, generator = make_optimizer(roles, config), torch.Generator()
    scores = by_role(roles)(batch, [])
    with pytest.raises(UserError, match="3 of the batch's rewards are not finite") as caught:
        update(roles, batch, scores, config, FixedKL(0.05), optimizer, generator)
    assert caught.value.field == "reward"
    assert ((sound >= 0) & (sound <= 1)).all()


def test_a_sequence_longer_than_the_context_is_scored_without_its_beginning(tmp_path):
    folder = build_tiny_model(tmp_path / "short", context=64)
    short = ModelRef(uri=str(folder), digest=folder_digest(folder))
    trained = train_reward(tmp_path / "job", short, max_length=64, too_long="drop").model
    roles = roles_on(short, trained)
    prompts = [list(range(10, 70)), [5, 6]]
    batch = rollout(prompts, [[80, 81, 82, 83, 84, 85], [9]], [False, False])
    cut = rollout([prompts[0][-57:], prompts[1]], [[80, 81, 82, 83, 84, 85], [9]], [False, False])
    close(roles.raw_rewards(batch), roles.raw_rewards(cut))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", ["adapter", "trunk"])
def test_gradients_are_the_same_with_and_without_checkpointing(tiny_ref, reward, method, value):
    """Both roles' graphs are there at once, so that one adapter is at work when the other's layers are recomputed."""

    def train(checkpointing):
        roles = roles_on(tiny_ref, reward, method=method, value=value, gradient_checkpointing=checkpointing)
        batch = rollout()
        found, entropies = roles.policy(batch)
        values = roles.values(batch)
        roles.reference(batch)
        roles.rewards(batch)
        loss = (found * torch.arange(15).view(3, 5)).sum() + entropies.sum() + (values - 1).square().sum()
        loss.backward()
        return roles, gradients(roles)

    roles, expected = train(False)
    again, found = train(True)
    assert {name.partition(".")[0] for name in expected} == {"policy", "value"}
    assert found.keys() == expected.keys() == roles.trainable.keys()
    for name, gradient in expected.items():
        assert torch.isfinite(gradient).all()
        assert gradient.any(), name
        close(found[name], gradient)
    layers = [layer for layer in again.model.modules() if getattr(layer, "gradient_checkpointing", False)]
    assert len(layers) >= 2
    assert not any(layer.training for layer in layers)


def test_recomputation_happens_and_one_graph_can_be_gone_through_twice(tiny_ref):
    roles = roles_on(tiny_ref, gradient_checkpointing=True)
    calls = []
    layer = roles.model.base_model.layers[0].mlp
    layer.register_forward_pre_hook(lambda *_: calls.append(1))  # the recomputation breaks off within it
    loss = roles.policy(rollout())[0].sum()
    loss.backward(retain_graph=True)
    first = gradients(roles)
    loss.backward()
    assert len(calls) == 3
    for name, gradient in gradients(roles).items():
        close(gradient, first[name])


def test_only_a_roles_own_parameters_get_its_gradients(tiny_ref, reward):
    roles = roles_on(tiny_ref, reward)
    roles.policy(rollout())[0].sum().backward()
    assert {name.partition(".")[0] for name in gradients(roles)} == {"policy"}
    roles.values(rollout()).sum().backward()
    assert {name.partition(".")[0] for name in gradients(roles)} == {"value"}
    owned = [*roles.policy_parameters(), *roles.value_parameters()]
    assert {id(part) for part in owned} == {id(part) for part in roles.trainable.values()}
    trainable = {id(part) for part in roles.adapters.parameters() if part.requires_grad}
    assert trainable == {id(p) for p in owned} - {id(p) for p in roles.head.parameters()}


@pytest.mark.parametrize("method", METHODS)
def test_trunk_values_come_from_the_policys_own_pass(tiny_ref, method):
    roles, batch = roles_on(tiny_ref, method=method, value="trunk"), rollout()
    passes = []
    roles.model.base_model.layers[0].register_forward_hook(lambda *_: passes.append(1))
    roles.policy(batch)
    shared = roles.values(batch)
    assert len(passes) == 1
    second = roles.values(batch)  # nothing is left of the pass: another one
    assert len(passes) == 2
    assert (shared == second).all()
    roles.policy(batch)
    move(roles, "policy.", seed=5)
    moved = roles.values(batch)
    assert len(passes) == 4
    assert (moved[batch.mask] != shared[batch.mask]).all()
    roles.policy(batch)
    assert (roles.values(rollout()) == moved).all()  # an equal rollout, but another one
    with torch.no_grad():
        roles.policy(batch)
    assert roles.values(batch).requires_grad


def test_the_trunks_gradient_can_be_stopped(tiny_ref):
    found = {}
    for through in (True, False):
        roles, batch = roles_on(tiny_ref, value="trunk", trunk_gradient=through), rollout()
        roles.policy(batch)
        roles.values(batch).square().sum().backward()
        found[through] = gradients(roles)
    assert {name.partition(".")[0] for name in found[True]} == {"policy", "value"}
    assert set(found[False]) == {"value.head.weight", "value.head.bias"}
    for name, gradient in found[False].items():
        close(gradient, found[True][name])


def test_the_base_is_in_memory_once(tiny_ref, reward, plain):
    roles = roles_on(tiny_ref, reward)
    parts = {name: part for name, part in roles.adapters.named_parameters() if "lora_" not in name}
    counted = {part.data_ptr(): part.numel() for part in parts.values()}
    assert sum(counted.values()) == sum(part.numel() for part in plain.parameters())
    networks = {
        id(part) for backbone in (roles._policy, roles._value, roles._reference) for part in [backbone.body]
    }
    assert networks == {id(roles._reward.backbone.body)}
    assert roles.adapters.peft_config.keys() == {"policy", "value", "reward"}


def test_a_reward_adapter_of_another_base_is_refused_with_both_names(tmp_path, tiny_ref, reward):
    folder = build_tiny_model(tmp_path / "other", seed=1)
    other = ModelRef(uri=str(folder), digest=folder_digest(folder), facts={"name": "other-base"})
    with pytest.raises(UserError, match="other-base") as caught:
        roles_on(other, reward)
    assert tiny_ref.uri in caught.value.fault
    moved = other.model_copy(update={"uri": "/nowhere", "digest": tiny_ref.digest})
    with pytest.raises(UserError, match="full weights"):
        roles_on(other, moved)
    with pytest.raises(UserError, match="merge it") as caught:
        roles_on(reward)
    assert caught.value.field == "policy.model"
    with pytest.raises(UserError, match="no reward model"):
        roles_on(tiny_ref).rewards(rollout())


@pytest.mark.parametrize("modules", ["q_proj, lm_head", "model.embed_out", "lm_head"])
def test_an_adapter_on_the_output_layer_is_refused(modules):
    """It would lie outside of the layers that a role's adapter is put to work in."""
    on_head = AdapterConfig(modules=modules)
    for changes, name in (({"adapter": on_head}, "adapter"), ({"value_adapter": on_head}, "value_adapter")):
        with pytest.raises(UserError, match="output layer") as caught:
            check(RolesConfig(**changes), field="roles")
        assert caught.value.field == f"roles.{name}.modules"
    check(RolesConfig(adapter=on_head, method="full"))  # which has no adapter
    check(RolesConfig(adapter=AdapterConfig(modules="q_proj,o_proj"), value_adapter=AdapterConfig()))


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(UserError, match="dropout") as caught:
        check(RolesConfig(adapter=AdapterConfig(dropout=0.1)))
    assert caught.value.field == "roles.adapter.dropout"
    with pytest.raises(UserError, match="no adapter"):
        check(RolesConfig(value="trunk", value_adapter=AdapterConfig()))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", ["adapter", "trunk", "model"])
def test_trained_weights_come_back_bit_for_bit(tmp_path, tiny_ref, method, value):
    roles, batch = roles_on(tiny_ref, method=method, value=value), rollout()
    save_trained_weights(roles, tmp_path)
    again = roles_on(tiny_ref, method=method, value=value, moved=False, seed=9)
    load_trained_weights(again, tmp_path)
    assert (again.policy(batch)[0] == roles.policy(batch)[0]).all()
    assert (again.values(batch) == roles.values(batch)).all()
    assert all((part == again.trainable[name]).all() for name, part in roles.trainable.items())
    other = roles_on(tiny_ref, adapter=AdapterConfig(rank=3))
    with pytest.raises(DamagedArtifact, match="other roles"):
        load_trained_weights(other, tmp_path)


def test_a_seed_decides_the_adapters(tiny_ref):
    first, second, other = (roles_on(tiny_ref, moved=False, seed=seed).trainable for seed in (3, 3, 4))
    assert all((part == second[name]).all() for name, part in first.items())
    assert any((part != other[name]).any() for name, part in first.items())
    alone = roles_on(tiny_ref, moved=False, seed=3, value="trunk").trainable
    assert all((part == first[name]).all() for name, part in alone.items())


def test_merging_gives_the_same_full_model_every_time(tmp_path, tiny_ref):
    roles = roles_on(tiny_ref)
    adapter = save_policy(roles, load_tokenizer(tiny_ref), tmp_path / "adapter", tiny_ref)
    merged = [merge(MergeConfig(), MergeInputs(model=adapter), tmp_path / name, print).model for name in "ab"]
    assert merged[0].digest == merged[1].digest
    assert merged[0].base is None
    close(roles_on(merged[0], moved=False).reference(rollout()), roles.policy(rollout())[0].detach(), 1e-4)
    assert load_tokenizer(merged[0]).chat_template == load_tokenizer(tiny_ref).chat_template
    assert merge(MergeConfig(), MergeInputs(model=tiny_ref), tmp_path / "c", print).model == tiny_ref
    assert load_file(Path(merged[0].uri) / "model.safetensors").keys()


@pytest.mark.parametrize("chunk", [1, 1 << 24])
@pytest.mark.parametrize("of_entropy", [True, False])
def test_the_fused_gradient_is_that_of_the_logits(plain, chunk, of_entropy, monkeypatch):
    monkeypatch.setattr(log_probabilities, "CHUNK", chunk)
    hidden = torch.randn(7, 32, generator=torch.Generator().manual_seed(0))
    tokens, weights = torch.tensor([1, 5, 9, 9, 300, 4, 0]), torch.arange(1.0, 8.0)

    def gradient(frozen):
        plain.requires_grad_(not frozen)  # a head that trains takes the way through autograd
        states = hidden.clone().requires_grad_()
        found, entropies = Vocabulary(plain).log_probabilities(
            states, tokens, 0.6, entropy_gradient=of_entropy
        )
        ((found * weights).sum() + (entropies * weights.flip(0)).sum()).backward()
        return found.detach(), entropies.detach(), states.grad

    for fused, expected in zip(gradient(True), gradient(False), strict=True):
        close(fused, expected, 1e-4)


def test_capped_logits_are_those_of_the_model_and_unknown_ones_are_refused(plain, monkeypatch):
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    more = {"num_key_value_heads": 1, "head_dim": 16, "vocab_size": 50, "initializer_range": 0.5}
    model = Gemma2ForCausalLM(Gemma2Config(**sizes, **more, final_logit_softcapping=2.0)).eval()
    ids = torch.tensor([[4, 5, 6]])
    hidden = model.base_model(ids).last_hidden_state[0].detach()
    expected = model(ids).logits[0].detach().log_softmax(-1)[torch.arange(3), torch.tensor([1, 2, 3])]
    close(Vocabulary(model).log_probabilities(hidden, torch.tensor([1, 2, 3]), 1.0)[0].detach(), expected)
    model.config.final_logit_softcapping = None
    vocabulary = Vocabulary(model)  # knows of no cap, and neither does the model
    model.config.final_logit_softcapping = 2.0
    with pytest.raises(UserError, match="Gemma2ForCausalLM"):
        vocabulary._check(model)
    with pytest.raises(ValueError, match="temperature"):
        vocabulary.log_probabilities(hidden, torch.tensor([1, 2, 3]), 0.0)
