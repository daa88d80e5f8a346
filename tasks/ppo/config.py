"""How a policy is optimised."""

from typing import Literal

from pydantic import Field

from tasks.core.config import PLACEMENT, Config
from tasks.core.errors import UserError


class PPOConfig(Config):
    """How the policy is optimised by reinforcement learning."""

    algorithm: Literal["ppo", "reinforce", "rloo", "grpo"] = "ppo"
    """Proximal policy optimisation, or the policy gradient with a learned baseline that PERL trains with: one optimizer
    step per batch, so that `epochs`, `minibatch_size`, `clip`, `value_clip`, `lam` and `target_kl` have no meaning;
    or RLOO and GRPO, which compare several responses to a prompt (`group`) and have no value function."""
    steps: int = Field(200, ge=1, le=1_000_000)
    """Batches: every step samples responses to one and learns from them."""
    episodes: int = Field(0, ge=0, le=1_000_000_000)
    """Responses in all, rounded up to whole batches; 0 leaves it to `steps`."""
    batch_size: int = Field(64, ge=1, le=65_536)
    """Responses per step, over all processes."""
    minibatch_size: int = Field(16, ge=1, le=65_536)
    """Responses per optimizer step, over all processes."""
    micro_batch_size: int = Field(8, ge=1, le=4096, json_schema_extra=PLACEMENT)
    """Responses per forward pass and process. Lower it when memory runs out: the result is the same."""
    epochs: int = Field(4, ge=1, le=100)
    """Passes over a batch."""
    max_new_tokens: int = Field(64, ge=1, le=32_768)
    """Longest response in tokens."""
    temperature: float = Field(1.0, gt=0.0, le=5.0)
    """Responses are sampled at it, and log-probabilities are those of that distribution."""
    policy_learning_rate: float = Field(5e-5, gt=0.0, le=1.0)
    """Rate of the policy at the start. Full fine-tuning wants less (1e-6) than an adapter."""
    value_learning_rate: float = Field(2e-4, gt=0.0, le=1.0)
    """Rate of what the value function alone trains, at the start."""
    schedule: Literal["linear", "constant"] = "linear"
    """Both rates fall to 0 over the steps, or stay."""
    adam_epsilon: float = Field(1e-5, gt=0.0, le=1.0)
    """Epsilon of the optimizer (AdamW); 1e-5 is that of the first RLHF code (Huang et al. 2024)."""
    max_grad_norm: float = Field(1.0, ge=0.0, le=1e6)
    """Longer gradients are shortened to it; 0 leaves them."""
    clip: float = Field(0.2, gt=0.0, lt=1.0)
    """A token's probability ratio has no more effect beyond 1 ± this."""
    value_clip: float = Field(0.2, ge=0.0, le=1000.0)
    """Values have no more effect beyond so much from where they were; 0 lets them."""
    value_coefficient: float = Field(0.1, ge=0.0, le=100.0)
    """Weight of the value loss beside the policy's."""
    entropy_coefficient: float = Field(0.0, ge=0.0, le=10.0)
    """Weight of the entropy bonus, which keeps the policy from settling too early."""
    gamma: float = Field(1.0, gt=0.0, le=1.0)
    """Discount of rewards per token."""
    lam: float = Field(0.95, ge=0.0, le=1.0)
    """Generalised advantage estimation: 0 trusts the values, 1 the rewards alone."""
    whiten: bool = True
    """Bring a batch's advantages to variance 1."""
    whiten_mean: bool = True
    """And to mean 0."""
    kl_controller: Literal["fixed", "adaptive"] = "fixed"
    """Keep the coefficient of the KL penalty, or steer it so that the KL becomes `kl_target`."""
    kl_coefficient: float = Field(0.05, ge=0.0, le=100.0)
    """Reward taken off per nat by which a token is likelier than under the reference; with `adaptive` at the start."""
    kl_target: float = Field(6.0, gt=0.0, le=1e6)
    """KL from the reference in nats per response, for `adaptive`."""
    kl_horizon: int = Field(10_000, ge=1, le=1_000_000_000)
    """Responses over which `adaptive` makes up for an error; more is slower."""
    kl_alarm: float = Field(100.0, gt=0.0, le=1e6)
    """A KL above this many nats per response is reported as an explosion."""
    target_kl: float = Field(0.1, ge=0.0, le=1e6)
    """Leave a batch once the policy has moved so far on it (nats per token, `policy/approxkl`); 0 never does."""
    missing_eos_penalty: float = Field(0.0, ge=0.0, le=1e6)
    """Taken off the score of a response that was cut at `max_new_tokens`."""
    normalise_scores: Literal["none", "scale", "standardise"] = "none"
    """Take scores as they are, divide them by their running standard deviation, or take off their mean before."""
    score_clip: float = Field(0.0, ge=0.0, le=1e6)
    """Bound scores to ± this, after normalisation; 0 leaves them."""
    deepspeed: str = Field("", json_schema_extra=PLACEMENT)
    """ZeRO, for adapters and several processes: `zero2`, `zero3`, or a DeepSpeed configuration file; empty, or one
    process, trains without."""
    seed: int = Field(0, ge=0, le=2**31)
    """Seed of the sampling and of the order of minibatches."""

    def total_steps(self) -> int:
        """Steps of the whole training."""
        return -(-self.episodes // self.batch_size) if self.episodes else self.steps


def check_processes(config: PPOConfig, processes: int, *, field: str = "ppo") -> None:
    """Raise UserError where so many processes cannot have equal shares of a batch and of a minibatch."""
    sizes = {"batch_size": config.batch_size, "minibatch_size": config.minibatch_size}
    if config.algorithm != "ppo":  # the others know no minibatches
        del sizes["minibatch_size"]
    for name, size in sizes.items():
        if size % processes:
            raise UserError(
                f"{processes} processes cannot share {size} responses evenly",
                field=f"{field}.{name}",
                mend=f"set it to a multiple of {processes}, or change launch.processes",
            )


def check(config: PPOConfig, *, field: str = "ppo", processes: int = 1) -> None:
    """Raise UserError for settings that contradict each other, before anything is loaded. `field` is where `config`
    stands in the flow's configuration, `processes` how many train together."""
    check_processes(config, processes, field=field)
    if config.algorithm == "ppo" and config.minibatch_size > config.batch_size:
        raise UserError(
            f"a minibatch of {config.minibatch_size} is more than the batch of {config.batch_size}",
            field=f"{field}.minibatch_size",
            mend=f"set it to {config.batch_size} or less",
        )
    if config.kl_controller == "adaptive":
        if config.kl_coefficient == 0:
            raise UserError(
                "a coefficient of 0 stays 0, whatever it is multiplied with",
                field=f"{field}.kl_coefficient",
                mend="start above 0, or set kl_controller to fixed",
            )
        if config.kl_horizon < config.batch_size:
            raise UserError(
                f"one batch of {config.batch_size} responses is longer than the horizon of {config.kl_horizon}",
                field=f"{field}.kl_horizon",
                mend="set it to a hundred batches or so",
            )
