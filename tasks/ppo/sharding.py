"""DeepSpeed's ZeRO around adapters on one frozen base: stage 2 spreads gradients and optimizer over the processes,
stage 3 the weights as well, the frozen ones too."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tasks.core.errors import UserError
from tasks.core.launching.zero import build_operator, read_deepspeed
from tasks.ppo.config import PPOConfig
from tasks.ppo.masked import process_count
from tasks.ppo.processes import process_number
from tasks.ppo.roles import LanguageModelRoles
from tasks.ppo.roles_config import RolesConfig

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

_STAGES = (2, 3)
_MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's state of a parameter, beside the number of its steps."""


def read_zero(name: str, *, field: str = "ppo.deepspeed") -> dict[str, Any]:
    """The section `zero_optimization` of a layout's name or file; the others are decided by our own settings.

    Raises UserError for a file that is missing or no JSON object, and for what is not known to work here.
    """
    zero: dict[str, Any] = read_deepspeed(name, field=field)["zero_optimization"]
    if zero.get("stage") not in _STAGES:
        raise UserError(f"{name} asks for stage {zero.get('stage')}", field=field, mend="take stage 2 or 3")
    offloaded = sorted(part for part in zero if part.startswith("offload"))
    if offloaded:
        raise UserError(
            f"{name} asks for {offloaded[0]}, which is not supported", field=field, mend="take zero3"
        )
    return zero


def check(config: PPOConfig, roles: RolesConfig, processes: int, *, field: str = "ppo.deepspeed") -> None:
    """Raise UserError for what cannot be trained with `config.deepspeed`, before anything is loaded."""
    if not config.deepspeed:
        return
    read_zero(config.deepspeed, field=field)
    if processes == 1:  # which has nobody to share with, and trains without
        return
    if roles.method != "lora" or roles.value == "model":
        raise UserError(
            "DeepSpeed shards one base with adapters on it, no other models beside it",
            field=field,
            mend="set method to lora and value to adapter or trunk, or train without DeepSpeed",
        )
    if config.algorithm == "ppo" and config.batch_size % config.minibatch_size:
        raise UserError(
            f"minibatches of {config.minibatch_size} do not divide a batch of {config.batch_size}: processes would "
            "need different numbers of passes",
            field=field,
            mend="change ppo.minibatch_size",
        )


class ShardedOptimizer:
    """An optimizer whose gradients and state, and with stage 3 also the weights, lie in parts on all processes.

    All processes have to make the same calls, forward passes included.
    """

    def __init__(self, roles: LanguageModelRoles, optimizer: "Optimizer", file: str, most: float) -> None:
        import deepspeed
        from torch.nn import ModuleList

        self._optimizer = optimizer
        self._parameters = [part for group in optimizer.param_groups for part in group["params"]]
        build_operator()
        self._engine, *_ = deepspeed.initialize(
            model=ModuleList([roles.adapters, roles.head]),
            optimizer=optimizer,
            config={
                # Nothing is fetched ahead: what takes a shortcut where a weight lies here whole would meet weights that
                # are about to go away again.
                "zero_optimization": read_zero(file) | {"stage3_prefetch_bucket_size": 0},
                "gradient_clipping": most,
                "train_micro_batch_size_per_gpu": 1,  # of no effect: it is the update that makes micro batches
                "gradient_accumulation_steps": 1,
                "managed_gradient_accumulation": False,
                "zero_force_ds_cpu_optimizer": False,
                "steps_per_print": 1 << 40,
            },
        )

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of the optimizer beneath, whose learning rates are those that count."""
        return self._optimizer.param_groups

    def state_dict(self) -> dict[str, Any]:
        """The whole state by the parameters' numbers, as the optimizer beneath would have it in a lone process."""
        from deepspeed.utils import safe_get_full_optimizer_state

        step = next(
            (state["step"] for part in self._parts() if (state := self._optimizer.state.get(part))), None
        )
        if step is None:
            return {"state": {}}
        self._link_state()
        return {
            "state": {
                number: {"step": step.cpu().clone()}
                | {name: safe_get_full_optimizer_state(parameter, name) for name in _MOMENTS}
                for number, parameter in enumerate(self._parameters)
            }
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a whole state: each process takes its parts of it."""
        import torch

        whole: dict[int, dict[str, Tensor]] = state["state"]
        if not whole:
            return
        step = next(iter(whole.values()))["step"].cpu()
        for part in self._parts():
            empty = {name: torch.zeros_like(part) for name in _MOMENTS}
            self._optimizer.state[part] = {"step": step.clone()} | empty
        self._link_state()
        for number, parameter in enumerate(self._parameters):
            for name in _MOMENTS:
                if number in whole:  # one that never had a gradient has no state
                    self._set_state(parameter, whole[number][name].to(self._engine.device), name)

    def _set_state(self, parameter: "Tensor", value: "Tensor", name: str) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state
        from torch.nn.functional import pad

        if self._engine.zero_optimization_stage() == 2:
            safe_set_full_optimizer_state(parameter, value, name)
            return
        # DeepSpeed's own way to the parts of stage 3 fails where the processes do not divide the parameter.
        size: int = parameter.ds_tensor.numel()
        whole = pad(value.flatten(), (0, size * process_count() - value.numel()))
        begin = size * process_number()
        safe_set_local_optimizer_state(parameter, whole[begin : begin + size], name)

    def _link_state(self) -> None:
        """Let each parameter find its piece of the state. DeepSpeed does that behind the first step of the first group
        of parameters, when the others have no state yet."""
        if self._engine.zero_optimization_stage() == 2:
            self._engine.optimizer._hp_optimizer_states_linked = False
            self._engine.optimizer._lazy_init_hp_params_optimizer_state()

    def _parts(self) -> "list[Tensor]":
        """What the optimizer beneath sees of the trained weights: flat pieces in float32, of this process alone."""
        zero = self._engine.optimizer
        if self._engine.zero_optimization_stage() == 3:
            return list(zero.fp32_partitioned_groups_flat)
        return list(zero.single_partition_of_fp32_groups)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Nothing is left to clear: a step is made of all gradients there are."""

    def backward(self, loss: "Tensor") -> None:
        """Add the gradients of a loss that was divided by the tokens of all processes."""
        self._engine.backward(loss * process_count())  # it takes their mean

    def step(self) -> "Tensor":
        """Change the weights; the norm that the gradient had before it was clipped."""
        import torch

        self._engine.step()
        return torch.as_tensor(self._engine.get_global_grad_norm(), dtype=torch.float32)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """All weights in every process: to sample, where processes need different numbers of passes, and to save."""
        import deepspeed
        from trl.models.utils import add_hooks, remove_hooks

        if self._engine.zero_optimization_stage() < 3:
            yield
            return
        with deepspeed.zero.GatheredParameters(list(self._engine.module.parameters())):
            remove_hooks(self._engine)
            yield
            add_hooks(self._engine)


def whole_weights(optimizer: Any) -> Any:
    """A context in which this process holds all weights, sharded or not."""
    from contextlib import nullcontext

    return optimizer.whole() if isinstance(optimizer, ShardedOptimizer) else nullcontext()
