"""The four roles of RLHF as an update sees them, and language models that play them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tasks.core.errors import UserError
from tasks.ppo.backbone import Backbone
from tasks.ppo.heads import RewardRole
from tasks.ppo.log_probabilities import Vocabulary
from tasks.ppo.rollout import Rollout

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter


class Roles(Protocol):
    """Policy, value function, reference and reward. All tensors are float32; what stands at padding is 0."""

    def policy(self, rollout: Rollout) -> tuple["Tensor", "Tensor"]:
        """Log-probabilities and entropies of the response tokens, both [B, R], with gradients."""
        ...

    def values(self, rollout: Rollout) -> "Tensor":
        """The value before each response token [B, R], with gradients."""
        ...

    def reference(self, rollout: Rollout) -> "Tensor":
        """The log-probabilities [B, R] under the model that training started from, without gradients."""
        ...

    def rewards(self, rollout: Rollout) -> "Tensor":
        """The learned reward of each response [B], without gradients."""
        ...

    def policy_parameters(self) -> list["Parameter"]:
        """What the policy loss trains."""
        ...

    def value_parameters(self) -> list["Parameter"]:
        """What the value loss alone trains."""
        ...


@dataclass
class Trunk:
    """The policy's hidden states of one rollout, until its values have been computed from them."""

    rollout: Rollout
    hidden: "Tensor"
    versions: int
    """Rises with every change of the policy's parameters."""


class LanguageModelRoles:
    """Language models in the four roles: adapters on one frozen base (`load_shared_base`) or full models.

    Gradients are those of this process: where several train together, average them over the processes before the
    optimizer's step.
    """

    def __init__(
        self,
        *,
        model: Any,
        policy: Backbone,
        value: Backbone | None,
        reference: Backbone,
        reference_model: Any,
        reward: RewardRole | None,
        head: Any,
        trainable: dict[str, "Parameter"],
        temperature: float,
        trunk_gradient: bool,
        adapters: Any = None,
    ) -> None:
        self.model = model
        """The causal language model that samples, inside of `sampling`."""
        self.adapters = adapters
        """The PEFT model around it that holds the adapters; None for full models."""
        self.head = head
        self.trainable = trainable
        """All that is trained, by names that begin with `policy.` or `value.`."""
        self.temperature = temperature
        self.entropy_gradient = True
        """Whether entropies carry gradients; without, which suits an entropy bonus of 0, the policy is cheaper."""
        self._policy, self._value, self._reference, self._reward = policy, value, reference, reward
        self._vocabulary = Vocabulary(model)
        self._reference_vocabulary = Vocabulary(reference_model)
        self._trunk_gradient = trunk_gradient
        self._trunk: Trunk | None = None

    @property
    def sampling(self) -> Any:
        """The context in which `model` is the policy."""
        return self._policy.role

    @property
    def value_on_trunk(self) -> bool:
        """Whether values are computed from the policy's hidden states, in one graph with it."""
        return self._value is None

    def policy(self, rollout: Rollout) -> tuple["Tensor", "Tensor"]:
        """Log-probabilities and entropies of the response tokens, both [B, R], with gradients.

        With a value head on the trunk, `values` of the very same rollout, called next, is computed from this pass.
        Then both belong to one graph: add the losses before going back through it.
        """
        hidden = self._policy.before_responses(rollout)
        if self._value is None:
            self._trunk = Trunk(rollout, hidden, self._versions())
        with self._policy.role:  # a head that trains computes as it does where responses are sampled
            found = self._vocabulary.log_probabilities(
                hidden,
                rollout.responses[rollout.mask],
                self.temperature,
                entropy_gradient=self.entropy_gradient,
            )
        return _placed(found[0], rollout), _placed(found[1], rollout)

    def values(self, rollout: Rollout) -> "Tensor":
        """The value before each response token [B, R], with gradients."""
        hidden = self._trunk_of(rollout) if self._value is None else self._value.before_responses(rollout)
        return _placed(self.head(hidden.float()).squeeze(1), rollout)

    def reference(self, rollout: Rollout) -> "Tensor":
        """The log-probabilities [B, R] under the model that training started from, without gradients."""
        import torch

        with torch.no_grad():
            hidden = self._reference.before_responses(rollout)
            found, _ = self._reference_vocabulary.log_probabilities(
                hidden, rollout.responses[rollout.mask], self.temperature
            )
        return _placed(found, rollout)

    def rewards(self, rollout: Rollout) -> "Tensor":
        """The reward model's reward of each response [B], in [0, 1], without gradients."""
        return self._reward_role()(rollout)

    def raw_rewards(self, rollout: Rollout) -> "Tensor":
        """The same before it is normalised and clipped to [0, 1]."""
        return self._reward_role().raw(rollout)

    def policy_parameters(self) -> list["Parameter"]:
        """What the policy loss trains."""
        return [part for name, part in self.trainable.items() if name.startswith("policy.")]

    def value_parameters(self) -> list["Parameter"]:
        """What the value loss alone trains."""
        return [part for name, part in self.trainable.items() if name.startswith("value.")]

    def _reward_role(self) -> RewardRole:
        if self._reward is None:
            raise UserError(
                "there is no reward model", field="reward.by", mend="train one, or choose problem"
            )
        return self._reward

    def _trunk_of(self, rollout: Rollout) -> "Tensor":
        import torch

        kept, self._trunk = self._trunk, None
        gradient = torch.is_grad_enabled() and self._trunk_gradient
        if (
            kept is not None
            and kept.rollout is rollout
            and kept.versions == self._versions()
            and (kept.hidden.requires_grad or not gradient)
        ):
            hidden = kept.hidden
        else:
            with torch.set_grad_enabled(gradient):
                hidden = self._policy.before_responses(rollout)
        return hidden if gradient else hidden.detach()

    def _versions(self) -> int:
        return sum(parameter._version for parameter in self.policy_parameters())


def _placed(numbers: "Tensor", rollout: Rollout) -> "Tensor":
    """Numbers of the valid tokens, row by row, where they belong in [B, R]."""
    return numbers.new_zeros(rollout.mask.shape).masked_scatter(rollout.mask, numbers)
