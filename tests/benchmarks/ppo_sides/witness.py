"""Gives TRL's trainer the weights that ours begins with, and writes down what it computes of them."""

import itertools
import sys
from pathlib import Path
from typing import Any

COMPUTED = ("logprobs", "ref_logprobs", "kl", "scores", "values", "rewards", "advantages", "returns")
LOSSES = ("pg_loss", "vf_loss", "pg_clipfrac", "vf_clipfrac", "approxkl", "ratio", "entropy")
LEARNING_RATE = 1e-3
"""So high that the losses of the later epochs are clipped."""


def begin_with(trainer: Any, folder: Path) -> None:
    """Put the adapters in `folder` into policy and value model, and save the weights of each of the coming epochs.

    Of the value model the head alone is trained, so that those are few.
    """
    import torch
    from safetensors.torch import load_file, save_file

    from tasks.ppo.saving import FILE
    from tasks.sft.adapter import AdapterConfig

    ours, scale = load_file(folder / FILE), AdapterConfig().alpha / AdapterConfig().rank
    policy, value = dict(trainer.policy_model.named_parameters()), trainer.value_model
    value.requires_grad_(False)
    value.score.requires_grad_(True)
    trained: dict[str, Any] = {"value.head.weight": value.score.weight}
    with torch.no_grad():
        for name, part in ours.items():
            role, _, path = name.partition(".")
            if role == "policy":
                trained[name] = policy[path.replace(".policy.", ".default.")]
            elif path.endswith(".lora_A.value.weight"):
                up = ours[name.replace("lora_A", "lora_B")]
                module = path.removeprefix("base_model.model.").removesuffix(".lora_A.value.weight")
                value.get_submodule(module).weight += scale * (up @ part)
        for name, part in trained.items():
            part.copy_(ours[name])
    optimizer, steps = trainer.optimizer.optimizer, itertools.count()

    def note(*_: Any) -> None:
        epoch = next(steps)
        weights = {name: part.detach().clone() for name, part in trained.items()}
        if epoch == 0:
            weights |= {f"gradient of {name}": part.grad.clone() for name, part in trained.items()}
        save_file(weights, folder / f"epoch-{epoch}.safetensors")

    for group in optimizer.param_groups:
        group["lr"] = LEARNING_RATE
    optimizer.register_step_pre_hook(note)


def save_computed(folder: Path) -> None:
    """Write what the `train` that has called this holds in its variables to `folder`/peer.safetensors."""
    from safetensors.torch import save_file

    frame = sys._getframe()
    while frame.f_code.co_name != "train":
        assert frame.f_back is not None
        frame = frame.f_back
    held, width = frame.f_locals, frame.f_locals["context_length"]
    found = {name: held[name] for name in COMPUTED}
    found |= {name: held[f"{name}_stats"].flatten() for name in LOSSES}
    found |= {"prompts": held["query_responses"][:, :width], "responses": held["query_responses"][:, width:]}
    save_file(
        {name: part.detach().clone().contiguous() for name, part in found.items()},
        folder / "peer.safetensors",
    )
