"""One frozen base in memory, four roles: policy, value and reward are adapters on it, the reference is it alone."""

from typing import Any

from tasks.core.errors import UserError
from tasks.core.models import end_of_turn, load_model, load_tokenizer
from tasks.core.references import ModelRef
from tasks.core.store import fetch
from tasks.ppo.adapted_linear import fuse_adapters
from tasks.ppo.adapters import AdapterSwitch
from tasks.ppo.backbone import Backbone, enable_checkpointing
from tasks.ppo.heads import RewardRole, value_head
from tasks.ppo.mixed_precision import computing
from tasks.ppo.roles import LanguageModelRoles
from tasks.ppo.roles_config import RolesConfig, check
from tasks.reward_model.classifier import HEAD
from tasks.reward_model.normalisation import read_normalisation
from tasks.sft.adapter import lora_config

POLICY, VALUE, REWARD = "policy", "value", "reward"


def check_bases(base: ModelRef, reward: ModelRef | None) -> None:
    """Raise UserError unless `base` is a full model and the adapter `reward` was trained on that very model."""
    if base.base is not None:
        raise UserError(
            f"{_name(base)} is an adapter: with adapters off, the reference would be the model beneath it",
            field="policy.model",
            mend="merge it into its base first (the stage `merge`)",
        )
    if reward is None:
        return
    if reward.base is None:
        raise UserError(
            f"the reward model {_name(reward)} has full weights of its own and cannot share the policy's base",
            field="reward_model",
            mend="train it with `method: lora` on the policy's base, or score with it apart from the policy",
        )
    if reward.base.digest != base.digest:
        raise UserError(
            f"the reward adapter was trained on {_name(reward.base)}, but the policy's base is {_name(base)}",
            field="reward_model",
            mend="train the reward model on the policy's base, or give one of full weights (merge the adapter into its "
            "own base): it reads the responses as texts",
        )


def load_shared_base(
    config: RolesConfig, base: ModelRef, reward: ModelRef | None, *, temperature: float = 1.0
) -> LanguageModelRoles:
    """The roles on one copy of `base`, a full model into which SFT is merged; it is the reference.

    `reward` is the adapter of a reward model trained on the same base, or None when rewards come from elsewhere.
    Raises UserError for another base, naming both.
    """
    import torch
    from peft import get_peft_model

    check(config)
    check_bases(base, reward)
    causal = load_model(base, precision=config.precision, four_bit=config.method == "qlora")
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        # Both before the first is added: then the matrices no longer have their own names.
        adapter = lora_config(config.adapter, causal, field="roles.adapter.modules")
        own = lora_config(config.value_adapter or config.adapter, causal, field="roles.value_adapter.modules")
        peft = get_peft_model(causal, adapter, adapter_name=POLICY)
        if config.value == "adapter":
            peft.add_adapter(VALUE, own)
    network = peft.get_base_model()
    rewarded = _add_reward(peft, reward, base) if reward is not None else None
    fuse_adapters(peft)
    switch = AdapterSwitch(peft)
    peft.eval()
    trainable = {}
    for name, parameter in peft.named_parameters():
        role = next((role for role in (POLICY, VALUE) if f".{role}." in name), None)
        parameter.requires_grad_(role is not None)
        if role is not None:
            trainable[f"{role}.{name}"] = parameter
    if config.gradient_checkpointing:
        enable_checkpointing(network, context_fn=switch.checkpoint_contexts)
    body = network.base_model
    value = Backbone(body, switch.to(VALUE)) if config.value == "adapter" else None
    head = value_head(network)
    if config.value == "model":
        value, own_weights = load_value_model(config, base)
        trainable |= own_weights
    trainable |= {f"value.head.{name}": parameter for name, parameter in head.named_parameters()}
    reward_role = RewardRole(Backbone(body, switch.to(REWARD)), *rewarded) if rewarded is not None else None
    return LanguageModelRoles(
        model=network,
        policy=Backbone(body, switch.to(POLICY)),
        value=value,
        reference=Backbone(body, switch.to(None)),
        reference_model=network,
        reward=reward_role,
        head=head,
        trainable=trainable,
        temperature=temperature,
        trunk_gradient=config.trunk_gradient,
        adapters=peft,
    )


def load_value_model(config: RolesConfig, base: ModelRef) -> tuple[Backbone, dict[str, Any]]:
    """A full model that is trained as the value function, beginning as `base`, and its parameters by name.

    They are float32; the model computes in `config.precision`.
    """
    model = load_model(base, precision="float32").eval()
    body = model.base_model  # the output layer is let go
    if config.gradient_checkpointing:
        enable_checkpointing(model)
    role = computing(model, config.precision)
    return Backbone(body, role), {f"value.model.{name}": part for name, part in body.named_parameters()}


def _add_reward(peft: Any, reward: ModelRef, base: ModelRef) -> tuple[Any, Any, int, int | None]:
    """Put the reward model's adapter beside the others; its head, normalisation, end of turn and context."""
    import torch
    from peft import PeftConfig, set_peft_model_state_dict
    from peft.utils import load_peft_weights

    folder = fetch(reward)
    normalisation = read_normalisation(folder)
    adapter = PeftConfig.from_pretrained(folder)
    # As saved it belongs to a classifier, whose head it holds as a module trained whole.
    adapter.modules_to_save, adapter.task_type, adapter.inference_mode = None, "CAUSAL_LM", True
    weights = load_peft_weights(folder, device="cpu")
    (name,) = (name for name in weights if name.endswith(f".{HEAD}.weight"))
    matrix = weights.pop(name)
    network = peft.get_base_model()
    head = torch.nn.Linear(matrix.shape[1], 1, bias=False, device=network.device, dtype=torch.float32)
    head.weight.requires_grad_(False).copy_(matrix)
    peft.add_adapter(REWARD, adapter)
    outcome = set_peft_model_state_dict(peft, weights, adapter_name=REWARD)
    missing = [key for key in outcome.missing_keys if f".{REWARD}." in key]
    if missing or outcome.unexpected_keys:
        raise UserError(
            f"the adapter of the reward model {reward.uri} does not fit {_name(base)}: "
            f"{(missing or outcome.unexpected_keys)[0]}",
            field="reward_model",
            mend="train the reward model again on this base",
        )
    context = getattr(network.config.get_text_config(decoder=True), "max_position_embeddings", None)
    return head, normalisation, end_of_turn(load_tokenizer(base)), context


def _name(ref: ModelRef) -> str:
    return f"{ref.facts.get('name', ref.uri)} (digest {ref.digest[:12]})"
