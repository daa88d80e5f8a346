"""The update of a small language model by its adapters: what moves, and that parts make no difference."""

import math

import pytest
import torch

from tasks.ppo.config import PPOConfig
from tasks.ppo.kl_control import FixedKL
from tasks.ppo.optimisation import update
from tasks.ppo.optimizer import make_optimizer
from tasks.ppo.rollout import make_rollout
from tests.unit.ppo_roles import ENDED, PROMPTS, RESPONSES, roles_on, rollout

SCORES = torch.tensor([1.0, 0.0, 0.5])


def learn(
    ref,
    *,
    updates: int = 1,
    micro: int = 3,
    coefficient: float = 0.1,
    separate_graphs: bool = False,
    padding: int = 0,
    **changes,
):
    """Updates on three responses; the roles, what each parameter was before, and the last figures."""
    roles = roles_on(ref, **changes)
    before = {name: part.detach().clone() for name, part in roles.trainable.items()}
    config = PPOConfig(
        batch_size=3,
        minibatch_size=2,
        micro_batch_size=micro,
        epochs=2,
        policy_learning_rate=0.01,
        value_learning_rate=0.01,
        value_coefficient=coefficient,
        target_kl=0.0,
    )
    optimizer, generator = make_optimizer(roles, config), torch.Generator().manual_seed(0)
    for _ in range(updates):
        metrics = update(
            roles,
            make_rollout(PROMPTS, RESPONSES, ENDED, padding=padding),
            SCORES,
            config,
            FixedKL(0.05),
            optimizer,
            generator,
            separate_graphs=separate_graphs,
        )
    return roles, before, metrics


@pytest.mark.parametrize("changes", [{}, {"value": "trunk"}, {"method": "full"}])
def test_micro_batches_of_one_learn_the_same(tiny_ref, changes):
    whole, before, metrics = learn(tiny_ref, **changes)
    parts, _, same = learn(tiny_ref, micro=1, **changes)
    assert same == pytest.approx(metrics, abs=1e-4)
    for name, part in whole.trainable.items():
        moved = (part - before[name]).abs().max().item()
        assert (parts.trainable[name] - part).abs().max().item() < 0.1 * moved + 1e-6, name


@pytest.mark.parametrize("changes", [{}, {"gradient_checkpointing": True}])
def test_graphs_gone_through_one_after_the_other_learn_the_same(tiny_ref, changes):
    together, _, metrics = learn(tiny_ref, **changes)
    apart, _, same = learn(tiny_ref, separate_graphs=True, **changes)
    assert same == metrics
    for name, part in together.trainable.items():
        assert torch.equal(apart.trainable[name], part), name


@pytest.mark.parametrize("value", ["adapter", "trunk", "model"])
def test_what_is_trained_moves_and_the_base_does_not(tiny_ref, value):
    roles, before, metrics = learn(tiny_ref, value=value)
    assert all(map(math.isfinite, metrics.values()))
    assert all(not torch.equal(part, before[name]) for name, part in roles.trainable.items())
    reference = roles.reference(rollout())
    fresh = roles_on(tiny_ref, moved=False).policy(rollout())[0]
    assert torch.allclose(reference, fresh.detach(), atol=1e-6)


def test_padding_by_the_end_token_teaches_the_same(tiny_ref):
    apart, before, metrics = learn(tiny_ref)
    same, _, again = learn(tiny_ref, padding=3)
    assert again == pytest.approx(metrics, abs=1e-5)
    for name, part in apart.trainable.items():
        assert not torch.equal(part, before[name])
        assert torch.allclose(same.trainable[name], part, atol=1e-5)


@pytest.mark.parametrize("value", ["adapter", "trunk"])
def test_the_better_response_becomes_likelier_and_the_values_fit(tiny_ref, value):
    roles, _, first = learn(tiny_ref, value=value)
    start = roles_on(tiny_ref, value=value).policy(rollout())[0].sum(1)
    roles, _, last = learn(tiny_ref, value=value, updates=8, coefficient=1.0)
    gained = roles.policy(rollout())[0].sum(1) - start
    assert float((gained[0] - gained[1]).detach()) > 0.5
    assert last["loss/value_avg"] < 0.5 * first["loss/value_avg"]


@pytest.mark.parametrize("changes", [{"method": "full"}, {"value": "model"}], ids=str)
def test_16_bits_move_as_many_weights_as_float32(tiny_ref, changes):
    """At the default learning rates, a thousandth and less of what parts two neighbouring weights in 16 bits."""

    def moved(precision):
        roles = roles_on(tiny_ref, moved=False, precision=precision, **changes)
        before = {name: part.detach().clone() for name, part in roles.trainable.items()}
        config = PPOConfig(batch_size=3, minibatch_size=3, epochs=2, target_kl=0.0)
        generator = torch.Generator().manual_seed(0)
        update(roles, rollout(), SCORES, config, FixedKL(0.05), make_optimizer(roles, config), generator)
        models = [name for name in before if "head" not in name and "lora" not in name]
        changed = sum(int((roles.trainable[name] != before[name]).sum()) for name in models)
        return changed / sum(before[name].numel() for name in models)

    exact = moved("float32")
    assert exact > 0.2
    assert moved("bfloat16") == pytest.approx(exact, rel=0.1)


def test_a_full_policy_in_16_bits_is_sampled_from_as_it_is_learnt_from(tiny_ref):
    """Drawn through the cache, read again for the update: both compute in 16 bits and agree to their rounding."""
    from tasks.core.models import load_tokenizer
    from tasks.ppo.sampling import PolicySampler

    roles = roles_on(tiny_ref, moved=False, method="full", precision="bfloat16")
    seen = []
    roles.model.lm_head.register_forward_hook(lambda head, inputs, logits: seen.append(logits))
    sampler = PolicySampler(roles, load_tokenizer(tiny_ref), max_new_tokens=4, seed=0)
    (prompt,) = rollout().select(slice(0, 1)).prompts.tolist()
    drawn = sampler.sample([prompt], step=0, streams=[0])
    assert {logits.dtype for logits in seen} == {torch.bfloat16}
    steps = torch.stack([logits[0, -1].float().log_softmax(-1) for logits in seen])[-int(drawn.mask.sum()) :]
    expected = steps.gather(1, drawn.responses[drawn.mask][:, None]).squeeze(1)
    found = roles.policy(drawn)[0][drawn.mask].detach()
    torch.testing.assert_close(found, expected, atol=0.03, rtol=0)
    assert not torch.is_autocast_enabled("cpu")
