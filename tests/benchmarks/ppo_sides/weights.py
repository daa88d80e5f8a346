"""Weights that both sides begin with: `python -m tests.benchmarks.ppo_sides.weights BASE FOLDER`."""

import sys
from pathlib import Path

from tasks.core.references import ModelRef
from tasks.reward_model.normalisation import Normalisation
from tests.benchmarks.ppo_sides.common import reference

SIZE = 0.02
"""Spread of the noise on adapters and value head, which takes the policy visibly away from the reference."""


def write_reward_adapter(base: ModelRef, folder: Path) -> None:
    """An untrained reward adapter with a random head, as the stage `reward_model` would write a trained one."""
    import torch
    from peft import get_peft_model

    from tasks.reward_model.classifier import HEAD, load_classifier
    from tasks.sft.adapter import AdapterConfig, lora_config

    torch.manual_seed(0)
    model = load_classifier(base, precision="float32", padding=0)
    get_peft_model(model, lora_config(AdapterConfig(), model, field="", head=HEAD)).save_pretrained(folder)
    Normalisation(low=-5.0, high=5.0, mean=0.0, std=1.0, answers=2, reference="nothing").save(folder)


def write_moved_adapters(base: ModelRef, folder: Path) -> None:
    """Policy and value adapters and a value head that have left their start. The head's bias stays 0: TRL has none."""
    import torch

    from tasks.ppo.full_models import load_roles
    from tasks.ppo.roles_config import RolesConfig
    from tasks.ppo.saving import save_trained_weights

    roles = load_roles(RolesConfig(value="adapter"), base, None)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, part in roles.trainable.items():
            if not name.endswith("bias"):
                part += SIZE * torch.randn(part.shape, generator=generator)
    save_trained_weights(roles, folder)


if __name__ == "__main__":
    write_reward_adapter(reference(sys.argv[1]), Path(sys.argv[2]) / "reward")
    write_moved_adapters(reference(sys.argv[1]), Path(sys.argv[2]) / "moved")
