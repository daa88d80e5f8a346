"""What is said of a training that goes wrong although every number is finite."""

import pytest
import torch

from tasks.ppo.config import PPOConfig
from tasks.ppo.kl_control import FixedKL
from tasks.ppo.optimisation import update
from tasks.ppo.optimizer import make_optimizer
from tasks.ppo.rollout import make_rollout
from tasks.ppo.warning_signs import one_token, said_of_steps, warning_signs
from tests.unit.ppo_tabular import SCORES, TabularRoles, some_rollout

CONFIG = PPOConfig(batch_size=5, minibatch_size=5)


@pytest.mark.parametrize(
    ("response", "ended", "collapsed"),
    [
        ([1, 1, 1, 1], False, True),
        ([1, 1, 1, 1, 5], True, True),  # the end token is no other word
        ([1, 1, 1, 5], True, False),  # too short to tell
        ([1, 1, 2, 1, 1], False, False),
        ([1, 1, 1, 1, 2], False, False),
        ([5], True, True),  # nothing but the end
        ([1], False, False),
    ],
)
def test_one_token(response, ended, collapsed):
    rollout = make_rollout([[0], [0]], [response, [1, 2, 1, 2, 1, 2, 5]], [ended, True], padding=1)
    assert one_token(rollout).tolist() == [collapsed, False]


def signs(rollout, scores, roles=None):
    roles = roles or TabularRoles()
    optimizer, generator = make_optimizer(roles, CONFIG), torch.Generator()
    metrics = update(roles, rollout, scores, CONFIG, FixedKL(0.05), optimizer, generator)
    return list(warning_signs(metrics, CONFIG).values())


def test_a_healthy_batch_gives_no_warning():
    assert signs(some_rollout(), SCORES) == []


def test_every_response_cut():
    rollout = make_rollout([[0], [1]], [[1, 2, 3], [2, 2, 0]], [False, False], padding=0)
    (said,) = signs(rollout, torch.tensor([0.1, 0.2]))
    assert "limit of 64 tokens" in said


def test_the_same_reward_for_all_but_not_for_a_batch_of_one():
    (said,) = signs(some_rollout(), torch.full((5,), 0.25))
    assert "the same reward, 0.25" in said
    assert signs(some_rollout().select(slice(0, 1)), torch.tensor([0.25])) == []


@pytest.mark.parametrize("reward", [0.3, 0.7, 1 / 3])
def test_equal_rewards_that_rounding_spreads(reward):
    """The mean of 16 times 0.3 in float32 is not 0.3, and their standard deviation about 3e-8."""
    rollout = make_rollout(
        [[0]] * 16, [[1, 2, number % 5, 5] for number in range(16)], [True] * 16, padding=0
    )
    (said,) = signs(rollout, torch.full((16,), reward))
    assert said.startswith("all 16 responses have the same reward")
    spread = torch.full((16,), reward)
    spread[3] += 1e-3
    assert signs(rollout, spread) == []


def test_what_any_step_showed_is_said_once_with_when():
    steps = [{"cut": "all cut at 8"}, {}, {"cut": "all cut at 9", "constant": "the same, 0.3"}, {}]
    assert said_of_steps(steps) == [
        "the same, 0.3 (at 1 of 4 steps, last at step 3)",
        "all cut at 9 (at 2 of 4 steps, last at step 3)",
    ]
    assert said_of_steps([{}, {}]) == []


def test_collapse():
    rollout = make_rollout([[0]] * 16, [[2] * 6 + [5]] * 16, [True] * 16, padding=0)
    (said,) = signs(rollout, torch.linspace(0.1, 0.3, 16))
    assert "collapsed: 100% of the last 16 responses" in said
    assert_no_way_back(said)


def assert_no_way_back(said):
    """Only the newest checkpoint is kept, and another learning rate makes another training."""
    assert "The policy that was kept is the one of this step" in said
    assert "run again: the training starts anew" in said
    assert "earlier checkpoint" not in said


def step(share, episodes):
    """Figures of a step in which nothing else shows."""
    return {
        "val/one_token_share": share,
        "val/episodes": float(episodes),
        "val/num_eos_tokens": 1.0,
        "objective/kl": 0.0,
        "reward/mean": 0.5,
        "reward/std": 0.1,
    }


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([(1.0, 1)], ""),  # a single response that is only the end token
        ([(1.0, 1)] * 15, ""),
        ([(1.0, 1)] * 16, "100% of the last 16 responses"),
        ([(0.0, 1)] * 9 + [(1.0, 1)] * 16, "100% of the last 16 responses"),
        ([(1.0, 1)] * 9 + [(0.0, 1)] * 2 + [(1.0, 1)] * 14, ""),  # 14 of 16
        ([(1.0, 3)] * 5, ""),
        ([(2 / 3, 3)] + [(1.0, 3)] * 5, "94% of the last 18 responses"),
        ([(1 / 3, 3)] + [(1.0, 3)] * 5, ""),  # 16 of 18
        ([(0.0, 64), (0.95, 64)], "95% of the last 64 responses"),  # a large batch is judged by itself
        ([(1.0, 64), (0.9, 64)], ""),
        ([(1.0, 16)], "100% of the last 16 responses"),
    ],
)
def test_a_collapse_is_told_by_sixteen_responses(steps, said):
    *earlier, last = [step(*facts) for facts in steps]
    found = warning_signs(last, CONFIG, earlier=earlier)
    assert set(found) == ({"collapsed"} if said else set())
    assert said in found.get("collapsed", "")


def test_an_exploded_divergence():
    """A policy that has become certain: log 6 per token and no more, but of 100 tokens."""
    roles = TabularRoles()
    with torch.no_grad():
        roles.logits.weight[0, 1] = roles.logits.weight[1, 0] = 30.0
    rollout = make_rollout([[0], [0]], [[1, 0] * 50, [1, 0] * 49 + [1, 5]], [False, True], padding=0)
    (said,) = signs(rollout.select(slice(0, 1)), torch.tensor([0.5]), roles)[:1]
    assert "KL has exploded: 179 nats" in said
    assert_no_way_back(said)
