"""Rewards per token, advantages and returns: by hand, and against loops over plain Python numbers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ppo.advantages import generalised_advantages, whiten
from tasks.ppo.masked import masked_moments, token_mean
from tasks.ppo.reward_signal import kl_k1, kl_k3, last_token, shape_scores, token_rewards
from tasks.ppo.running_moments import RunningMoments

MASK = torch.tensor([[True, True, True], [True, False, False]])


def close(found, expected, tolerance: float = 1e-12) -> bool:
    return torch.allclose(
        found.double(), torch.as_tensor(expected, dtype=torch.float64), rtol=0, atol=tolerance
    )


def batch(seed: int, *shape: int) -> tuple[torch.Tensor, ...]:
    """Policy, reference, values [B, R] and scores [B] in double precision, with a mask of random lengths and garbage
    at the padding."""
    generator = torch.Generator().manual_seed(seed)
    rows, width = shape
    numbers = [torch.randn(rows, width, generator=generator, dtype=torch.float64) for _ in range(3)]
    lengths = torch.randint(1, width + 1, (rows,), generator=generator)
    mask = torch.arange(width) < lengths[:, None]
    return (
        *[part.masked_fill(~mask, 1e6) for part in numbers],
        torch.randn(rows, generator=generator).double(),
        mask,
    )


def test_kl_estimators_by_hand():
    policy = torch.tensor([[-1.0, -2.0, -0.5], [-1.0, 9.0, 9.0]], dtype=torch.float64)
    reference = torch.tensor([[-1.5, -1.0, -0.5], [-3.0, -9.0, -9.0]], dtype=torch.float64)
    assert close(kl_k1(policy, reference, MASK), [[0.5, -1.0, 0.0], [2.0, 0.0, 0.0]])
    k3 = [[math.exp(-0.5) - 0.5, math.e - 2.0, 0.0], [math.exp(-2.0) + 1.0, 0.0, 0.0]]
    assert close(kl_k3(policy, reference, MASK), k3)


def test_both_estimators_have_the_divergence_as_their_mean():
    """Over all tokens, weighted by the policy's probabilities, exactly; k3 is never negative."""
    generator = torch.Generator().manual_seed(3)
    policy, reference = torch.randn(2, 1, 50, generator=generator, dtype=torch.float64).log_softmax(-1)
    mask = torch.ones(1, 50, dtype=torch.bool)
    exact = torch.nn.functional.kl_div(reference, policy, log_target=True, reduction="sum")
    for estimate in (kl_k1, kl_k3):
        assert close((policy.exp() * estimate(policy, reference, mask)).sum(), exact)
    assert bool((kl_k3(policy, reference, mask) >= 0).all())
    assert bool((kl_k1(policy, reference, mask) < 0).any())


def test_one_hopeless_token_does_not_make_the_reported_divergence_infinite():
    found = kl_k3(torch.tensor([[-2000.0]]), torch.tensor([[-1.0]]), torch.ones(1, 1, dtype=torch.bool))
    assert bool(found.isfinite())
    assert float(found) > 1e8


def test_token_rewards_by_hand():
    kl = torch.tensor([[0.5, -1.0, 0.25], [2.0, 7.0, 7.0]])
    found = token_rewards(kl, torch.tensor([1.0, -3.0]), MASK, 0.1)
    assert close(found, [[-0.05, 0.1, 0.975], [-3.2, 0.0, 0.0]], 1e-6)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ([1, 1, 1], [0, 0, 1]),  # cut: no padding follows
        ([1, 1, 0], [0, 1, 0]),
        ([1, 0, 0], [1, 0, 0]),
        ([0, 0, 0], [0, 0, 0]),
    ],
)
def test_the_score_stands_at_the_last_valid_token(mask, expected):
    assert last_token(torch.tensor([mask]).bool()).int().tolist() == [expected]


def test_scores_are_normalised_clipped_and_then_penalised():
    scores, ended = torch.tensor([2.0, 4.0, 12.0]), torch.tensor([True, False, True])
    assert shape_scores(scores, ended).tolist() == [2.0, 4.0, 12.0]
    assert shape_scores(scores, ended, missing_eos_penalty=1.5, clip=3.0).tolist() == [2.0, 1.5, 3.0]
    std = math.sqrt(28.0)  # of 2, 4, 12: mean 6, squares 16 + 4 + 36 over 2
    found = shape_scores(
        scores, ended, missing_eos_penalty=1.0, normalise="standardise", moments=RunningMoments()
    )
    assert close(found, [-4 / std, -2 / std - 1.0, 6 / std], 1e-6)
    found = shape_scores(scores, ended, normalise="scale", clip=1.0, moments=RunningMoments())
    assert close(found, [2 / std, 4 / std, 1.0], 1e-6)
    with pytest.raises(ValueError, match="moments"):
        shape_scores(scores, ended, normalise="scale")


@pytest.mark.parametrize(("normalise", "expected"), [("scale", [0.7, 0.7]), ("standardise", [0.0, 0.0])])
def test_constant_scores_are_not_divided_by_nothing(normalise, expected):
    moments, ended = RunningMoments(), torch.tensor([True, True])
    for _ in range(3):
        found = shape_scores(torch.tensor([0.7, 0.7]), ended, normalise=normalise, moments=moments)
        assert close(found, expected, 1e-6)


def test_running_moments_are_those_of_all_numbers_and_go_on_from_their_state():
    numbers = 1000.0 + torch.randn(100, generator=torch.Generator().manual_seed(0)).double()
    moments = RunningMoments()
    assert (moments.count, moments.std) == (0, 0.0)
    for part in numbers.split([1, 40, 0, 9, 50]):
        going_on = RunningMoments()
        going_on.load_state_dict(moments.state_dict())
        going_on.add(part)
        moments = going_on
    assert moments.count == 100
    assert moments.mean == pytest.approx(float(numbers.mean()), rel=1e-12)
    assert moments.std == pytest.approx(float(numbers.std()), rel=1e-9)


def test_advantages_by_hand():
    rewards = torch.tensor([[1.0, 0.0, 2.0], [3.0, 9.0, 9.0]])
    values = torch.tensor([[0.5, 1.0, 1.5], [1.0, 9.0, 9.0]])
    # gamma 0.5, lam 0.5. Deltas: 2 - 1.5 = 0.5; 0 + 0.75 - 1 = -0.25; 1 + 0.5 - 0.5 = 1
    advantages, returns = generalised_advantages(rewards, values, MASK, gamma=0.5, lam=0.5)
    third, second = 0.5, -0.25 + 0.25 * 0.5
    first = 1.0 + 0.25 * second
    assert close(advantages, [[first, second, third], [2.0, 0.0, 0.0]])
    assert close(returns, [[first + 0.5, second + 1.0, 2.0], [3.0, 0.0, 0.0]])


def naive_advantages(rewards, values, length, gamma, lam):
    """Equation 16 of Schulman et al. 2016 as it is printed: every advantage a sum over all later deltas."""
    worth = [*values[:length], 0.0]
    deltas = [rewards[t] + gamma * worth[t + 1] - worth[t] for t in range(length)]
    return [
        sum((gamma * lam) ** (later - t) * deltas[later] for later in range(t, length)) for t in range(length)
    ]


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10_000), gamma=st.floats(0.1, 1.0), lam=st.floats(0.0, 1.0), width=st.integers(1, 9)
)
def test_advantages_agree_with_the_printed_sum_whatever_stands_at_padding(seed, gamma, lam, width):
    rewards, _, values, _, mask = batch(seed, 4, width)
    advantages, returns = generalised_advantages(rewards, values, mask, gamma=gamma, lam=lam)
    for row, length in enumerate(mask.sum(1).tolist()):
        expected = naive_advantages(rewards[row].tolist(), values[row].tolist(), length, gamma, lam)
        padding = [0.0] * (width - length)
        assert close(advantages[row], expected + padding, 1e-9)
        fitted = [a + v for a, v in zip(expected, values[row].tolist(), strict=False)]
        assert close(returns[row], fitted + padding, 1e-9)


def test_with_lam_1_the_return_is_the_discounted_sum_of_the_rewards_to_come():
    rewards, _, values, _, mask = batch(1, 6, 5)
    _, returns = generalised_advantages(rewards, values, mask, gamma=0.9, lam=1.0)
    for row, length in enumerate(mask.sum(1).tolist()):
        for t in range(length):
            expected = sum(0.9 ** (k - t) * float(rewards[row, k]) for k in range(t, length))
            assert float(returns[row, t]) == pytest.approx(expected)


def test_whitening_by_hand():
    numbers = torch.tensor([[1.0, 2.0, 3.0], [6.0, 99.0, 99.0]], dtype=torch.float64)
    mean, variance = masked_moments(numbers, MASK)  # of 1, 2, 3, 6
    assert (float(mean), float(variance)) == (3.0, pytest.approx(14 / 3))
    std = math.sqrt(14 / 3)
    assert close(whiten(numbers, MASK), [[-2 / std, -1 / std, 0], [3 / std, 0, 0]], 1e-8)
    kept = whiten(numbers, MASK, shift_mean=False)
    assert close(kept, [[3 - 2 / std, 3 - 1 / std, 3], [3 + 3 / std, 0, 0]], 1e-8)


@pytest.mark.parametrize("shift", [True, False])
def test_a_lone_token_and_equal_ones_are_whitened_to_numbers(shift):
    lone = torch.tensor([[True, False, False], [False, False, False]])
    numbers = torch.full((2, 3), 4.0)
    for mask in (lone, MASK, torch.zeros_like(MASK)):
        assert close(whiten(numbers, mask, shift_mean=shift), mask * (0.0 if shift else 4.0), 1e-4)


def test_wider_padding_changes_nothing():
    policy, reference, values, scores, mask = batch(2, 5, 4)
    narrow = signal(policy, reference, values, scores, mask)
    wide = signal(
        *(torch.nn.functional.pad(part, (0, 3), value=-7.0) for part in (policy, reference, values)),
        scores,
        torch.nn.functional.pad(mask, (0, 3)),
    )
    for before, after in zip(narrow, wide, strict=True):
        assert torch.equal(before, after[:, :4])
        assert not after[:, 4:].any()


def signal(policy, reference, values, scores, mask):
    rewards = token_rewards(kl_k1(policy, reference, mask), scores, mask, 0.1)
    advantages, returns = generalised_advantages(rewards, values, mask, gamma=0.99, lam=0.9)
    return rewards, advantages, returns, whiten(advantages, mask)


def test_a_mean_over_tokens_counts_valid_ones_alone():
    numbers = torch.tensor([[1.0, 2.0, 3.0], [6.0, math.nan, math.inf]])
    assert float(token_mean(numbers, MASK)) == 3.0
    assert float(token_mean(numbers, MASK, 12)) == 1.0
    assert float(token_mean(numbers, torch.zeros_like(MASK))) == 0.0
