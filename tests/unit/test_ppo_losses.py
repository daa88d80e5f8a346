"""The losses: by hand, against loops over plain Python numbers, and in parts."""

import math

import pytest
import torch

from tasks.ppo.losses import approximate_kl, clipped_policy_loss, clipped_value_loss, reinforce_loss

ALL = torch.ones(1, 4, dtype=torch.bool)


def row(*numbers: float) -> torch.Tensor:
    return torch.tensor([numbers], dtype=torch.float64)


def test_the_policy_loss_by_hand():
    new = row(*map(math.log, (1.5, 1.5, 0.5, 0.5))).requires_grad_()
    found = clipped_policy_loss(new, row(0, 0, 0, 0), row(1, -1, 1, -1), ALL, clip=0.2)
    # A gain is bounded at 1.2, a loss is not; a fall of a good token's chance is not, of a bad one's at 0.8.
    assert float(found.loss.detach()) == pytest.approx((-1.2 + 1.5 - 0.5 + 0.8) / 4)
    assert float(found.clipped) == 0.5
    found.loss.backward()
    assert new.grad.tolist() == [pytest.approx([0.0, 1.5 / 4, -0.5 / 4, 0.0])]


def test_the_value_loss_by_hand():
    new = row(1.0, 0.1, -1.0, 0.5).requires_grad_()
    found = clipped_value_loss(new, row(0, 0, 0, 0), row(2.0, 1.0, 0.5, 0.5), ALL, clip=0.2)
    # Clipped to 0.2, 0.1, -0.2, 0.2: (1.8², 0.9², 0.7², 0.3²) against (1², 0.9², 1.5², 0²).
    assert float(found.loss.detach()) == pytest.approx(0.5 * (1.8**2 + 0.9**2 + 1.5**2 + 0.3**2) / 4)
    assert float(found.clipped) == 0.5
    found.loss.backward()
    assert new.grad.tolist() == [pytest.approx([0.0, -0.9 / 4, -1.5 / 4, 0.0])]
    plain = clipped_value_loss(new, row(0, 0, 0, 0), row(2.0, 1.0, 0.5, 0.5), ALL, clip=0.0)
    assert float(plain.loss.detach()) == pytest.approx(0.5 * (1 + 0.81 + 2.25) / 4)
    assert float(plain.clipped) == 0.0


def test_reinforce_and_the_move_by_hand():
    new = row(-1.0, -2.0, -3.0, -4.0).requires_grad_()
    loss = reinforce_loss(new, row(1.0, -1.0, 0.5, 0.0), ALL).loss
    assert float(loss.detach()) == pytest.approx((1.0 - 2.0 + 1.5) / 4)
    loss.backward()
    assert new.grad.tolist() == [[-0.25, 0.25, -0.125, 0.0]]
    moved = approximate_kl(row(-1.0, -2.0, 0, 0), row(-1.5, 0.0, 0, 0), ALL)
    assert float(moved) == pytest.approx(0.5 * (0.25 + 4.0) / 4)


def test_the_first_step_is_the_policy_gradient():
    """Where the policy is the one that sampled, the gradient of the clipped loss is that of -log p A."""
    new, _, advantages, _, mask = numbers(0)
    gradients = []
    for loss in (
        clipped_policy_loss(new, new.detach(), advantages, mask, clip=0.2).loss,
        reinforce_loss(new, advantages, mask).loss,
    ):
        (gradient,) = torch.autograd.grad(loss, new)
        gradients.append(gradient)
    assert torch.allclose(*gradients, atol=1e-12)


def numbers(seed: int):
    """New and old numbers, advantages, returns [6, 5] and a mask; garbage at the padding."""
    generator = torch.Generator().manual_seed(seed)
    parts = torch.randn(4, 6, 5, generator=generator, dtype=torch.float64)
    lengths = torch.randint(1, 6, (6,), generator=generator)
    mask = torch.arange(5) < lengths[:, None]
    new, old, advantages, returns = parts.masked_fill(~mask, 50.0)
    return new.requires_grad_(), old, advantages, returns, mask


def naive(new, old, advantages, returns, mask, clip=0.2):
    """All figures, by loops."""
    policy = clipped = value = cut = moved = tokens = 0.0
    for n, o, a, g, valid in zip(
        *(part.flatten().tolist() for part in (new, old, advantages, returns, mask)), strict=True
    ):
        if not valid:
            continue
        ratio = math.exp(n - o)
        bounded = min(max(ratio, 1 - clip), 1 + clip)
        policy += -min(ratio * a, bounded * a)
        clipped += bounded * a < ratio * a
        near = min(max(n, o - clip), o + clip)
        value += max((n - g) ** 2, (near - g) ** 2) / 2
        cut += (near - g) ** 2 > (n - g) ** 2
        moved += (n - o) ** 2 / 2
        tokens += 1
    return [total / tokens for total in (policy, clipped, value, cut, moved)]


def figures(new, old, advantages, returns, mask, tokens=None):
    policy = clipped_policy_loss(new, old, advantages, mask, clip=0.2, tokens=tokens)
    value = clipped_value_loss(new, old, returns, mask, clip=0.2, tokens=tokens)
    moved = approximate_kl(new, old, mask, tokens=tokens)
    return [policy.loss, policy.clipped, value.loss, value.clipped, moved]


@pytest.mark.parametrize("seed", range(5))
def test_all_figures_agree_with_loops(seed):
    batch = numbers(seed)
    assert [float(figure.detach()) for figure in figures(*batch)] == pytest.approx(naive(*batch))


@pytest.mark.parametrize("cut", [[6], [3, 3], [1, 5], [1, 1, 1, 1, 1, 1]])
def test_parts_of_a_minibatch_add_up_to_the_whole(cut):
    """Figures and gradients, although the parts have unequal numbers of valid tokens."""
    new, *others, mask = numbers(7)
    whole = figures(new, *others, mask)
    (expected,) = torch.autograd.grad(whole[0] + 0.1 * whole[2], new)
    total, gradient = torch.zeros(5, dtype=torch.float64), torch.zeros_like(new)
    for part in zip(*(tensor.split(cut) for tensor in (new, *others, mask)), strict=True):
        found = figures(*part, tokens=mask.sum())
        total += torch.stack(found).detach()
        gradient += torch.autograd.grad(found[0] + 0.1 * found[2], new)[0]
    assert torch.allclose(total, torch.stack(whole).detach(), atol=1e-12)
    assert torch.allclose(gradient, expected, atol=1e-12)
    assert not gradient[~mask].any()
