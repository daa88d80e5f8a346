"""A policy with a known best learns it: a response should go on counting from its prompt and then end."""

import pytest
import torch

from tasks.ppo.config import PPOConfig
from tasks.ppo.kl_control import make_controller
from tasks.ppo.optimisation import update
from tasks.ppo.optimizer import make_optimizer, set_learning_rates
from tests.unit.ppo_tabular import TabularRoles, order_kept

STEPS = {"ppo": 15, "reinforce": 60}
"""Batches of 32 responses within which 95 % of the best reward is reached."""
PROMPTS = [0, 1, 2, 3] * 8
LIMIT = 6


def train(seed: int, **changes) -> tuple[TabularRoles, list[dict[str, float]]]:
    config = PPOConfig(
        **{
            "steps": STEPS[changes.get("algorithm", "ppo")],
            "batch_size": 32,
            "minibatch_size": 16,
            "policy_learning_rate": 0.1,
            "value_learning_rate": 0.1,
            "kl_coefficient": 0.0,
            "max_grad_norm": 0.0,
            "target_kl": 0.0,
            "schedule": "constant",
            "seed": seed,
        }
        | changes
    )
    roles, generator = TabularRoles(), torch.Generator().manual_seed(config.seed)
    optimizer, controller = make_optimizer(roles, config), make_controller(config)
    history = []
    for step in range(config.total_steps()):
        set_learning_rates(optimizer, config, step)
        rollout = roles.sample(PROMPTS, LIMIT, generator)
        history.append(update(roles, rollout, order_kept(rollout), config, controller, optimizer, generator))
    return roles, history


def reward(roles: TabularRoles) -> float:
    """Of 320 fresh responses; the best is 1, and a policy that guesses has about 0.17."""
    rollout = roles.sample(PROMPTS * 10, LIMIT, torch.Generator().manual_seed(1))
    return float(order_kept(rollout).mean())


def test_guessing_is_far_from_the_best():
    assert reward(TabularRoles()) < 0.25


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("algorithm", ["ppo", "reinforce"])
def test_95_percent_of_the_best_reward_is_reached(algorithm, seed):
    roles, history = train(seed, algorithm=algorithm)
    assert reward(roles) >= 0.95
    assert history[-1]["objective/scores"] > history[0]["objective/scores"] + 0.5


def test_the_adaptive_penalty_keeps_the_divergence_at_its_target():
    _, history = train(
        0, kl_controller="adaptive", kl_target=1.0, kl_coefficient=0.1, kl_horizon=200, steps=120
    )
    last = [step["objective/kl"] for step in history[-40:]]
    assert sum(last) / 40 == pytest.approx(1.0, abs=0.15)
    free = train(0, steps=60)[1][-1]["objective/kl"]
    assert free > 3.0
