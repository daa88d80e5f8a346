"""How heavily the divergence from the reference weighs: a constant, or steered towards a target."""

from typing import Any, Protocol

from tasks.ppo.config import PPOConfig

MOST_ERROR = 0.2
"""Relative errors beyond count as this much."""


class KLController(Protocol):
    """Gives the coefficient of the KL penalty."""

    coefficient: float

    def update(self, kl: float, episodes: int) -> None:
        """Take note of a step's mean KL per response (in nats), over so many responses."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on from here."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where another one was."""
        ...


class FixedKL:
    """A coefficient that stays."""

    def __init__(self, coefficient: float) -> None:
        self.coefficient = coefficient

    def update(self, kl: float, episodes: int) -> None:
        """Nothing changes."""

    def state_dict(self) -> dict[str, Any]:
        """The coefficient."""
        return {"coefficient": self.coefficient}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the coefficient of another one."""
        self.coefficient = state["coefficient"]


class AdaptiveKL(FixedKL):
    """Steers towards `target` nats per response by a log-space proportional controller (Ziegler et al. 2019, section
    2.2): e = clip((KL - target) / target, -0.2, 0.2), coefficient *= 1 + e * episodes / horizon.

    Their K_beta, 0.1 a step, is episodes / horizon here, so that it does not hang on the batch size.
    """

    def __init__(self, coefficient: float, *, target: float, horizon: int) -> None:
        super().__init__(coefficient)
        self.target, self.horizon = target, horizon

    def update(self, kl: float, episodes: int) -> None:
        """Raise the coefficient where the KL is above the target, lower it where it is below."""
        error = min(MOST_ERROR, max(-MOST_ERROR, kl / self.target - 1.0))
        self.coefficient *= 1.0 + error * episodes / self.horizon


def make_controller(config: PPOConfig) -> KLController:
    """The controller that the configuration asks for."""
    if config.kl_controller == "fixed":
        return FixedKL(config.kl_coefficient)
    return AdaptiveKL(config.kl_coefficient, target=config.kl_target, horizon=config.kl_horizon)
