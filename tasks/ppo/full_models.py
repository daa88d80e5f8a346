"""Full fine-tuning with a whole model in each role: what the shared base is compared with (PERL, arXiv 2403.10704)."""

from typing import Any

from tasks.core.errors import UserError
from tasks.core.models import end_of_turn, load_model, load_tokenizer
from tasks.core.references import ModelRef
from tasks.core.store import fetch
from tasks.ppo.backbone import Backbone, enable_checkpointing
from tasks.ppo.heads import RewardRole, value_head
from tasks.ppo.mixed_precision import computing
from tasks.ppo.roles import LanguageModelRoles
from tasks.ppo.roles_config import RolesConfig, check
from tasks.ppo.shared_base import check_bases, load_shared_base, load_value_model
from tasks.reward_model.classifier import HEAD, load_classifier
from tasks.reward_model.normalisation import read_normalisation
from tasks.reward_model.tokens import padding_token


def load_full_models(
    config: RolesConfig, base: ModelRef, reward: ModelRef | None, *, temperature: float = 1.0
) -> LanguageModelRoles:
    """The roles by full models: the policy and (unless `value: trunk`) the value function trained whole, a frozen
    copy of `base` as the reference, and the reward model, whose tokens have to be those of `base`.

    What is trained is held in float32 and computes in `config.precision`, in which the frozen models are held.
    """
    check(config)
    check_bases(base, None)
    policy = load_model(base, precision="float32").eval()
    reference = load_model(base, precision=config.precision).eval().requires_grad_(False)
    trainable = {f"policy.{name}": parameter for name, parameter in policy.named_parameters()}
    if config.gradient_checkpointing:
        enable_checkpointing(policy)
    value, head = None, value_head(policy)
    if config.value != "trunk":
        value, own_weights = load_value_model(config, base)
        trainable |= own_weights
    trainable |= {f"value.head.{name}": parameter for name, parameter in head.named_parameters()}
    return LanguageModelRoles(
        model=policy,
        policy=Backbone(policy.base_model, computing(policy, config.precision)),
        value=value,
        reference=Backbone(reference.base_model),
        reference_model=reference,
        reward=_reward_role(config, base, reward) if reward is not None else None,
        head=head,
        trainable=trainable,
        temperature=temperature,
        trunk_gradient=config.trunk_gradient,
    )


def load_roles(
    config: RolesConfig, base: ModelRef, reward: ModelRef | None, *, temperature: float = 1.0
) -> LanguageModelRoles:
    """The roles as `config.method` says. See `load_shared_base` and `load_full_models`."""
    load = load_full_models if config.method == "full" else load_shared_base
    return load(config, base, reward, temperature=temperature)


def _reward_role(config: RolesConfig, base: ModelRef, ref: ModelRef) -> RewardRole:
    import torch

    tokenizer = load_tokenizer(base)
    if load_tokenizer(ref).get_vocab() != tokenizer.get_vocab():
        raise UserError(
            f"the reward model {ref.uri} has other tokens than the policy",
            field="reward_model",
            mend="score with it apart from the policy, by text",
        )
    normalisation = read_normalisation(fetch(ref))
    model: Any = load_classifier(
        ref.base or ref, precision=config.precision, padding=padding_token(tokenizer)
    )
    if ref.base is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, fetch(ref)).merge_and_unload()
    model.eval().requires_grad_(False)
    head = getattr(model, HEAD).float()  # 8 bits of mantissa would make equals of different rewards
    context = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    if torch.cuda.is_available():
        model = model.to("cuda")
    return RewardRole(Backbone(model.base_model), head, normalisation, end_of_turn(tokenizer), context)
