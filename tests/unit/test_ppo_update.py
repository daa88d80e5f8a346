"""The update of a tabular policy: one step against loops, its invariances, what it reports, and faults."""

import math

import pytest
import torch

from tasks.core.errors import UserError
from tasks.ppo.config import PPOConfig
from tasks.ppo.experience import gather_experience
from tasks.ppo.kl_control import AdaptiveKL, FixedKL
from tasks.ppo.optimisation import update
from tasks.ppo.optimizer import make_optimizer, set_learning_rates
from tasks.ppo.rollout import Rollout, make_rollout
from tasks.ppo.running_moments import RunningMoments
from tests.unit.ppo_tabular import END, SCORES, WORDS, TabularRoles, some_rollout, wider

WHOLE = {"batch_size": 5, "minibatch_size": 5, "target_kl": 0.0}


def run(roles: TabularRoles, *, rollout=None, scores=SCORES, sgd=False, seed=0, controller=None, **changes):
    """One update; its metrics."""
    config = PPOConfig(**WHOLE | changes)
    optimizer = make_optimizer(roles, config)
    if sgd:
        optimizer = torch.optim.SGD(optimizer.param_groups)
    return update(
        roles,
        rollout or some_rollout(),
        scores,
        config,
        controller or FixedKL(config.kl_coefficient),
        optimizer,
        torch.Generator().manual_seed(seed),
        moments=RunningMoments(),
    )


def weights(roles: TabularRoles) -> torch.Tensor:
    return torch.cat([roles.logits.weight.detach(), roles.worth.weight.detach()], 1)


def naive_loss(logits, worth, rollout: Rollout, scores, config: PPOConfig, *, whitened: bool):
    """The loss of the first step by loops over tokens, a function of the table's entries, and the KL per response."""
    advantages, terms, kls = [], [], []
    for row, response in enumerate(rollout.response_tokens()):
        previous = int(rollout.prompts[row, -1])
        tokens = []
        for token in response:
            log_probability = logits[previous, token] - torch.logsumexp(logits[previous], 0)
            tokens.append((log_probability, worth[previous, 0]))
            previous = token
        rewards = [-config.kl_coefficient * (lp.item() + math.log(WORDS)) for lp, _ in tokens]
        kls.append(sum(lp.item() + math.log(WORDS) for lp, _ in tokens))
        rewards[-1] += float(scores[row]) - config.missing_eos_penalty * (response[-1] != END)
        lam = 1.0 if config.algorithm == "reinforce" else config.lam
        later, found = 0.0, []
        for t in reversed(range(len(tokens))):
            following = tokens[t + 1][1].item() if t + 1 < len(tokens) else 0.0
            later = rewards[t] + config.gamma * following - tokens[t][1].item() + config.gamma * lam * later
            found.append(later)
        found.reverse()
        advantages += found
        terms += tokens
    mean = sum(advantages) / len(advantages)
    spread = math.sqrt(sum((a - mean) ** 2 for a in advantages) / (len(advantages) - 1) + 1e-8)
    loss = 0.0
    for advantage, (log_probability, value) in zip(advantages, terms, strict=True):
        weight = (advantage - mean) / spread if whitened else advantage
        if config.algorithm == "reinforce":
            loss = loss - weight * log_probability
        else:
            loss = loss - weight * torch.exp(log_probability - log_probability.item())
        target = advantage + value.item()
        loss = loss + config.value_coefficient * 0.5 * (value - target) ** 2
    return loss / len(terms), sum(kls) / len(kls)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"whiten": False, "gamma": 0.9, "lam": 0.5, "missing_eos_penalty": 0.7},
        {"algorithm": "reinforce", "whiten": False},
    ],
)
def test_one_step_is_that_of_the_loops(changes):
    roles, twin = (TabularRoles(seed=1, spread=1.0, dtype=torch.float64) for _ in range(2))
    rate = {"policy_learning_rate": 0.5, "value_learning_rate": 0.25, "max_grad_norm": 0.0}
    config = PPOConfig(**WHOLE | rate | changes)
    loss, kl = naive_loss(
        twin.logits.weight, twin.worth.weight, some_rollout(), SCORES, config, whitened=config.whiten
    )
    loss.backward()
    metrics = run(roles, sgd=True, epochs=1, micro_batch_size=2, **rate, **changes)
    for table, expected, step in ((roles.logits, twin.logits, 0.5), (roles.worth, twin.worth, 0.25)):
        moved = expected.weight.detach() - step * expected.weight.grad
        assert torch.allclose(table.weight.detach(), moved, atol=1e-9)
        assert bool(expected.weight.grad.any())
    assert metrics["objective/kl"] == pytest.approx(kl)
    assert metrics["val/grad_norm"] == pytest.approx(
        math.sqrt(float(twin.logits.weight.grad.square().sum() + twin.worth.weight.grad.square().sum()))
    )


def test_figures_of_the_first_step_by_hand():
    """A uniform policy and values of 0: no KL, a ratio of 1, and the value loss is half the mean square of the scores'
    returns."""
    metrics = run(TabularRoles(), epochs=1, lam=1.0, missing_eos_penalty=0.5)
    ended = [0.9, -0.4, 0.5, -0.5, 1.0]  # rows 1 and 3 are cut
    lengths = [3, 5, 1, 5, 2]
    assert metrics["objective/kl"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["objective/scores"] == pytest.approx(sum(ended) / 5)
    assert metrics["objective/rlhf_reward"] == pytest.approx(sum(ended) / 5, abs=1e-6)
    assert metrics["reward/mean"] == pytest.approx(0.5)
    assert metrics["reward/std"] == pytest.approx(float(SCORES.std()))
    assert metrics["objective/entropy"] == pytest.approx(16 / 5 * math.log(WORDS))
    assert metrics["policy/entropy_avg"] == pytest.approx(math.log(WORDS))
    square = sum(score**2 * length for score, length in zip(ended, lengths, strict=True)) / 16
    assert metrics["loss/value_avg"] == pytest.approx(square / 2)
    assert metrics["loss/policy_avg"] == pytest.approx(0.0, abs=1e-6)  # whitened advantages have a mean of 0
    assert (metrics["val/ratio"], metrics["val/ratio_var"]) == (pytest.approx(1.0), 0.0)
    assert metrics["val/num_eos_tokens"] == 3
    assert metrics["val/response_tokens"] == pytest.approx(16 / 5)
    assert metrics["val/explained_variance"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["lr"] == 5e-5


def test_the_explained_variance_by_hand():
    """Returns 1, 1 and 0 have the variance 1/3; advantages 1/2, 1/4 and -1/2 that of 13/48."""
    rollout = make_rollout([[0], [2]], [[1, END], [END]], [True, True], padding=4)
    for one in (rollout, wider(rollout)):
        roles = TabularRoles()
        with torch.no_grad():
            roles.worth.weight[:3, 0] = torch.tensor([0.5, 0.75, 0.5])
        metrics = run(roles, rollout=one, scores=torch.tensor([1.0, 0.0]), lam=1.0)
        assert metrics["val/explained_variance"] == pytest.approx(3 / 16, abs=1e-5)


@pytest.mark.parametrize("algorithm", ["ppo", "reinforce"])
def test_micro_batches_and_padding_change_nothing(algorithm):
    found = []
    for size, rollout in ((5, some_rollout()), (1, some_rollout()), (2, wider(some_rollout()))):
        roles = TabularRoles(seed=2, spread=0.5, dtype=torch.float64)
        metrics = run(
            roles,
            rollout=rollout,
            algorithm=algorithm,
            micro_batch_size=size,
            minibatch_size=3,
            policy_learning_rate=0.1,
            entropy_coefficient=0.01,
        )
        found.append((weights(roles), metrics))
    for moved, metrics in found[1:]:
        assert torch.allclose(moved, found[0][0], atol=1e-10)
        assert metrics == pytest.approx(found[0][1], abs=1e-9)
    assert not torch.allclose(found[0][0], weights(TabularRoles(seed=2, spread=0.5)).double(), atol=1e-3)


def test_the_seed_decides_the_minibatches_and_nothing_else_does():
    moved = []
    for seed in (0, 0, 1):
        roles = TabularRoles(seed=2, spread=0.5)
        run(roles, minibatch_size=2, policy_learning_rate=0.1, seed=seed)
        moved.append(weights(roles))
    assert torch.equal(moved[0], moved[1])
    assert not torch.equal(moved[0], moved[2])


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"epochs": 3}, 3),
        ({"epochs": 3, "minibatch_size": 2}, 9),  # 5 responses are parts of 2, 2 and 1
        ({"epochs": 3, "minibatch_size": 2, "algorithm": "reinforce"}, 1),
        ({"epochs": 3, "minibatch_size": 64}, 3),
    ],
)
def test_optimizer_steps(changes, steps):
    assert run(TabularRoles(), **changes)["policy/optimizer_steps"] == steps


def test_epochs_end_when_the_policy_has_moved_too_far_and_that_step_is_not_made():
    settings = {"epochs": 10, "policy_learning_rate": 0.1}
    stopped, free, short = (TabularRoles() for _ in range(3))
    metrics = run(stopped, target_kl=0.01, **settings)
    made = int(metrics["policy/optimizer_steps"])
    assert metrics["policy/stopped_early"] == 1.0
    assert 1 <= made < 10
    run(short, **settings | {"epochs": made})
    assert torch.equal(weights(stopped), weights(short))
    assert run(free, **settings)["policy/stopped_early"] == 0.0


def test_rounding_between_two_passes_does_not_keep_the_first_step_from_being_made():
    class Rounded(TabularRoles):
        def policy(self, rollout):
            found, entropies = super().policy(rollout)
            return found if torch.is_grad_enabled() else found.bfloat16().to(found), entropies

    roles = Rounded(seed=1, spread=1.0)
    metrics = run(roles, target_kl=1e-9, epochs=4)
    assert metrics["policy/optimizer_steps"] == 1
    assert metrics["policy/stopped_early"] == 1.0
    assert not torch.equal(weights(roles), weights(TabularRoles(seed=1, spread=1.0)))


def test_the_entropy_bonus_flattens_the_policy():
    entropies = []
    for coefficient in (0.0, 10.0):
        roles = TabularRoles(seed=3, spread=2.0)
        for _ in range(20):
            metrics = run(roles, entropy_coefficient=coefficient, policy_learning_rate=0.05)
        entropies.append(metrics["policy/entropy_avg"])
    assert entropies[1] > entropies[0] + 0.1


def test_the_controller_weighs_this_step_as_it_was_and_the_next_by_its_divergence():
    roles = TabularRoles(seed=4, spread=2.0)
    controller = AdaptiveKL(0.5, target=1e-3, horizon=50)
    metrics = run(roles, controller=controller)
    assert metrics["objective/kl_coefficient"] == 0.5
    assert metrics["objective/non_score_reward"] == pytest.approx(-0.5 * metrics["objective/kl"])
    error = 0.2 if metrics["objective/kl"] > 0 else -0.2
    assert controller.coefficient == pytest.approx(0.5 * (1 + error * 5 / 50))


def test_scores_are_normalised_by_all_that_were_seen():
    moments, roles, config = RunningMoments(), TabularRoles(), PPOConfig(normalise_scores="standardise")
    moments.add(torch.tensor([10.0, 20.0]))
    _, metrics = gather_experience(roles, some_rollout(), SCORES, config, kl_coefficient=0.0, moments=moments)
    every = torch.cat([torch.tensor([10.0, 20.0]), SCORES])
    assert metrics["objective/scores"] == pytest.approx(float((SCORES.mean() - every.mean()) / every.std()))
    assert metrics["reward/mean"] == pytest.approx(0.5)


def test_a_batch_of_one_and_one_token_is_learnt_from_without_nan():
    single = some_rollout().select(slice(2, 3))
    assert single.mask.sum() == 1
    roles = TabularRoles()
    metrics = run(roles, rollout=single, scores=torch.tensor([1.0]), whiten=False, policy_learning_rate=0.1)
    assert all(map(math.isfinite, metrics.values()))
    assert float(roles.logits.weight[3].softmax(0)[END].detach()) > 1.2 / WORDS
    whitened = run(TabularRoles(), rollout=single, scores=torch.tensor([1.0]))
    assert all(map(math.isfinite, whitened.values()))
    assert whitened["loss/policy_avg"] == 0.0  # one advantage is its own mean


def test_constant_rewards_and_no_divergence_teach_nothing():
    roles = TabularRoles()
    metrics = run(
        roles, scores=torch.full((5,), 0.3), lam=1.0, kl_coefficient=0.0, epochs=1, policy_learning_rate=0.1
    )
    assert all(map(math.isfinite, metrics.values()))
    assert torch.allclose(roles.logits.weight, torch.zeros(WORDS, WORDS), atol=1e-6)


@pytest.mark.parametrize("fault", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_no_number_ends_the_run_before_anything_moves(fault):
    roles = TabularRoles(seed=1, spread=1.0)
    before = weights(roles).clone()
    scores = SCORES.clone()
    scores[2] = fault
    with pytest.raises(UserError, match="1 of the batch's rewards") as error:
        run(roles, scores=scores)
    assert error.value.field == "reward"
    assert torch.equal(weights(roles), before)


def test_a_loss_that_is_no_number_leaves_the_weights_and_says_what_to_lower():
    roles = TabularRoles()
    with torch.no_grad():
        roles.worth.weight += 1e30  # its square is infinite in float32
    before = weights(roles).clone()
    with pytest.raises(UserError, match="loss/value_avg") as error:
        run(roles)
    assert error.value.field == "ppo.policy_learning_rate"
    assert "lower" in error.value.mend
    assert "starts anew" in error.value.mend
    assert torch.equal(weights(roles), before)


def test_a_broken_policy_is_named_as_such():
    roles = TabularRoles()
    with torch.no_grad():
        roles.logits.weight[0] = math.nan
    with pytest.raises(UserError, match="log-probabilities") as error:
        run(roles)
    assert "starts anew" in error.value.mend


@pytest.mark.parametrize(
    ("schedule", "step", "share"),
    [("linear", 0, 1.0), ("linear", 5, 0.5), ("linear", 10, 0.0), ("constant", 9, 1)],
)
def test_learning_rates(schedule, step, share):
    config = PPOConfig(steps=10, schedule=schedule, policy_learning_rate=0.2, value_learning_rate=0.4)
    optimizer = make_optimizer(TabularRoles(), config)
    set_learning_rates(optimizer, config, step)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.2 * share, 0.4 * share])
