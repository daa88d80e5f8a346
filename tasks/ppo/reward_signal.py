"""From one score per response to a reward per token: the score at the end, a penalty on the divergence all along."""

from typing import TYPE_CHECKING, Literal

from tasks.ppo.running_moments import RunningMoments

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST_STD = 1e-6
"""Scores that vary less are taken to be all the same."""
LARGEST_LOG_RATIO = 20.0
"""Beyond it `kl_k3` no longer grows: one token would make the mean infinite."""


def kl_k1(policy: "Tensor", reference: "Tensor", mask: "Tensor") -> "Tensor":
    """The estimator log(policy) - log(reference) of KL(policy || reference) per token [B, R]; 0 at padding.

    Unbiased for tokens drawn from the policy, and what the reward is made of (Ziegler et al. 2019, eq. 2). A single
    token's may be negative.
    """
    return (policy - reference).masked_fill(~mask, 0.0)


def kl_k3(policy: "Tensor", reference: "Tensor", mask: "Tensor") -> "Tensor":
    """The estimator r - 1 - log r with r = reference / policy, per token [B, R]; 0 at padding.

    As unbiased as `kl_k1`, never negative and of less variance while the two are close (Schulman 2020, "Approximating
    KL divergence"): for reports.
    """
    log_ratio = (reference - policy).masked_fill(~mask, 0.0)
    return log_ratio.clamp(max=LARGEST_LOG_RATIO).expm1() - log_ratio.clamp(max=LARGEST_LOG_RATIO)


def last_token(mask: "Tensor") -> "Tensor":
    """True at the last valid token of every row [B, R], where `mask` has one run of valid tokens per row."""
    import torch

    followed = torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], dim=1)
    return mask & ~followed


def token_rewards(kl: "Tensor", scores: "Tensor", mask: "Tensor", coefficient: float) -> "Tensor":
    """-coefficient * kl at every valid token, and the score [B] on top at the last one: [B, R], 0 at padding.

    Ziegler et al. 2019, section 2.1; Huang et al. 2024, "the score of the reward model only at the last token".
    """
    penalties = (-coefficient * kl).masked_fill(~mask, 0.0)
    return penalties + scores[:, None] * last_token(mask)


def shape_scores(
    scores: "Tensor",
    ended: "Tensor",
    *,
    missing_eos_penalty: float = 0.0,
    normalise: Literal["none", "scale", "standardise"] = "none",
    clip: float = 0.0,
    moments: RunningMoments | None = None,
) -> "Tensor":
    """What of the scores [B] goes into the reward: brought to unit spread, clipped, less the penalty if not ended.

    `scale` divides by the running standard deviation, `standardise` takes the running mean off first; this batch is
    taken into `moments` before. While all scores have been the same there is nothing to divide by, and they are left
    at their scale. `clip` bounds the result to [-clip, clip]; 0 leaves it. The penalty comes last, so that it keeps its
    size. Raises ValueError for a normalisation without `moments`.
    """
    if normalise != "none":
        if moments is None:
            raise ValueError("scores cannot be normalised without running moments")
        moments.add(scores)
        if normalise == "standardise":
            scores = scores - moments.mean
        if moments.std > SMALLEST_STD:
            scores = scores / moments.std
    if clip:
        scores = scores.clamp(-clip, clip)
    return scores - missing_eos_penalty * (~ended).to(scores.dtype)
