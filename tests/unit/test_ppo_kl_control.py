"""The coefficient of the KL penalty, and settings that contradict each other."""

import math

import pytest

from tasks.core.errors import UserError
from tasks.ppo.config import PPOConfig, check
from tasks.ppo.kl_control import AdaptiveKL, FixedKL, make_controller


def test_a_fixed_coefficient_stays():
    controller = make_controller(PPOConfig(kl_coefficient=0.3))
    controller.update(1e9, 64)
    assert isinstance(controller, FixedKL)
    assert controller.coefficient == 0.3


@pytest.mark.parametrize(
    ("kl", "factor"),
    [
        (6.0, 1.0),
        (6.6, 1 + 0.1 * 0.1),
        (5.4, 1 - 0.1 * 0.1),
        (60.0, 1 + 0.2 * 0.1),  # bounded at 0.2
        (-3.0, 1 - 0.2 * 0.1),
    ],
)
def test_the_adaptive_coefficient_by_hand(kl, factor):
    """1,000 responses of a horizon of 10,000 are the K_beta of 0.1 in the paper."""
    controller = AdaptiveKL(0.5, target=6.0, horizon=10_000)
    controller.update(kl, 1000)
    assert controller.coefficient == pytest.approx(0.5 * factor)


@pytest.mark.parametrize("start", [1e-3, 10.0])
def test_the_adaptive_controller_brings_a_toy_to_its_target(start):
    """The policy that maximises score - beta KL is reference * exp(score / beta); here the score is 1 for one of 100
    tokens. Its KL falls with beta, and the controller finds the beta at which it is the target."""

    def kl_at(beta: float) -> float:
        odds = math.exp(min(1 / beta, 500.0))
        p = odds / (odds + 99)
        return p * math.log(100 * p) + (1 - p) * math.log(max(1 - p, 1e-300) * 100 / 99)

    controller = AdaptiveKL(start, target=2.0, horizon=1000)
    for _ in range(800):
        controller.update(kl_at(controller.coefficient), 64)
    assert kl_at(controller.coefficient) == pytest.approx(2.0, rel=0.01)


def test_a_controller_goes_on_from_its_state():
    config = PPOConfig(kl_controller="adaptive", kl_target=1.0)
    one, other = make_controller(config), make_controller(config)
    assert isinstance(one, AdaptiveKL)
    for kl in (3.0, 0.2, 1.1):
        one.update(kl, 64)
    other.load_state_dict(one.state_dict())
    for controller in (one, other):
        controller.update(0.7, 64)
    assert one.coefficient == other.coefficient != config.kl_coefficient


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"batch_size": 8, "minibatch_size": 16}, "ppo.minibatch_size"),
        ({"kl_controller": "adaptive", "kl_coefficient": 0.0}, "ppo.kl_coefficient"),
        ({"kl_controller": "adaptive", "kl_horizon": 10}, "ppo.kl_horizon"),
    ],
)
def test_contradictions_are_refused(changes, field):
    with pytest.raises(UserError) as error:
        check(PPOConfig(**changes))
    assert error.value.field == field
    assert error.value.mend


def test_defaults_agree_and_reinforce_needs_no_minibatch():
    check(PPOConfig())
    check(PPOConfig(algorithm="reinforce", batch_size=4))


@pytest.mark.parametrize(("episodes", "steps"), [(0, 200), (1, 1), (64, 1), (65, 2)])
def test_episodes_are_rounded_up_to_batches(episodes, steps):
    assert PPOConfig(episodes=episodes).total_steps() == steps
