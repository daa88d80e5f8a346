"""Whether we compute what TRL did: `python -m tests.benchmarks.ppo_sides.agreement BASE FOLDER`.

From the tokens that TRL sampled and the scores that it gave, with the weights that it had in each epoch. All responses
are equally long: of padding TRL makes something else.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.ppo_sides.common import (
    CLIP,
    EPOCHS,
    KL_COEFFICIENT,
    VALUE_CLIP,
    Turns,
    load_tokenizer,
    reference,
)
from tests.benchmarks.ppo_sides.ours import settings
from tests.benchmarks.ppo_sides.witness import COMPUTED, LOSSES

if TYPE_CHECKING:
    from torch import Tensor


def compute(base: str, folder: Path, peer: dict[str, "Tensor"]) -> dict[str, "Tensor"]:
    """What the peer computed, by the same names."""
    import torch
    from safetensors.torch import load_file

    from tasks.ppo.experience import gather_experience
    from tasks.ppo.full_models import load_roles
    from tasks.ppo.losses import approximate_kl, clipped_policy_loss, clipped_value_loss, log_ratio
    from tasks.ppo.masked import token_mean
    from tasks.ppo.reward_signal import kl_k1, token_rewards
    from tasks.ppo.roles_config import RolesConfig
    from tasks.ppo.rollout import Rollout
    from tasks.ppo.saving import load_trained_weights

    roles = load_roles(RolesConfig(value="adapter"), reference(base), None)
    load_trained_weights(roles, folder)
    padding = load_tokenizer(base).pad_token_id
    responses = peer["responses"]
    if bool((responses == padding).any()):
        sys.exit("a response holds the token that stands for padding")
    rollout = Rollout(
        peer["prompts"],
        peer["prompts"] != padding,
        responses,
        torch.ones_like(responses, dtype=torch.bool),
        torch.zeros(len(responses), dtype=torch.bool),
    )
    mask, scores = rollout.mask, peer["scores"]
    experience, _ = gather_experience(
        roles, rollout, scores, settings(1, len(rollout)), kl_coefficient=KL_COEFFICIENT
    )
    old, other = experience.log_probabilities, roles.reference(rollout)
    kl = kl_k1(old, other, mask)
    found = {
        "logprobs": old,
        "ref_logprobs": other,
        "kl": kl,
        "scores": scores,
        "values": experience.values,
        "rewards": token_rewards(kl, scores, mask, KL_COEFFICIENT),
        "advantages": experience.advantages,
        "returns": experience.returns,
    }
    rows: list[list[Tensor]] = []
    gradient: Tensor | None = None
    for epoch in range(EPOCHS):
        weights = load_file(folder / f"epoch-{epoch}.safetensors")
        with torch.no_grad():
            for name, part in roles.trainable.items():
                if name in weights:
                    part.copy_(weights[name])
        new, entropies = roles.policy(rollout)
        policy = clipped_policy_loss(new, old, experience.advantages, mask, clip=CLIP)
        if not epoch:
            names = [name for name in weights if name.startswith("policy.")]
            mine = torch.autograd.grad(
                policy.loss, [roles.trainable[name] for name in names], retain_graph=True
            )
            gradient = torch.cat([part.flatten() for part in mine])
            peer["gradient"] = torch.cat([weights[f"gradient of {name}"].flatten() for name in names])
        value = clipped_value_loss(
            roles.values(rollout), experience.values, experience.returns, mask, clip=VALUE_CLIP
        )
        rows.append(
            [
                policy.loss,
                value.loss,
                policy.clipped,
                value.clipped,
                approximate_kl(new, old, mask),
                token_mean(log_ratio(new, old, mask).exp(), mask),
                token_mean(entropies, mask),
            ]
        )
    table = torch.stack([torch.stack(row) for row in rows]).detach()
    assert gradient is not None
    return found | dict(zip(LOSSES, table.T, strict=True)) | {"gradient": gradient}


def main() -> None:
    """Tell the largest difference of each quantity, its largest size on TRL's side, and the number of its figures."""
    from safetensors.torch import load_file

    turns = Turns()
    folder = Path(sys.argv[2])
    peer = load_file(folder / "peer.safetensors")
    found = compute(sys.argv[1], folder, peer)
    for name in (*COMPUTED, *LOSSES, "gradient"):
        ours, theirs = found[name].detach().double(), peer[name].double()
        turns.tell(
            what=name,
            difference=float((ours - theirs).abs().max()),
            largest=float(theirs.abs().max()),
            figures=theirs.numel(),
        )


if __name__ == "__main__":
    main()
