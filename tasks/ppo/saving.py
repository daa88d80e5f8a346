"""What was trained, to and from files: exactly for a resume, and as a model for everyone else."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.digests import folder_digest
from tasks.core.errors import DamagedArtifact
from tasks.core.models import tidy_model
from tasks.core.references import ModelRef
from tasks.ppo.roles import LanguageModelRoles
from tasks.ppo.shared_base import POLICY

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILE = "trained.safetensors"


def save_trained_weights(roles: LanguageModelRoles, folder: Path) -> None:
    """Write the policy's and the value function's trained weights, heads included, to `folder`/trained.safetensors."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: part.detach().contiguous() for name, part in roles.trainable.items()}
    save_file(weights, folder / FILE)


def load_trained_weights(roles: LanguageModelRoles, folder: Path) -> None:
    """Put the saved weights, bit for bit, into roles loaded with the same configuration.

    Raises DamagedArtifact when they are those of other roles.
    """
    import torch
    from safetensors.torch import load_file

    weights = load_file(folder / FILE)
    here = {name: (part.shape, part.dtype) for name, part in roles.trainable.items()}
    there = {name: (part.shape, part.dtype) for name, part in weights.items()}
    if here != there:
        differing = sorted(name for name in here | there if here.get(name) != there.get(name))
        raise DamagedArtifact(str(folder), FILE, f"it is of other roles: {differing[0]}")
    with torch.no_grad():
        for name, part in roles.trainable.items():
            part.copy_(weights[name])


def save_policy(
    roles: LanguageModelRoles, tokenizer: "PreTrainedTokenizerBase", folder: Path, base: ModelRef
) -> ModelRef:
    """Write the policy to `folder` as a model: an adapter on `base`, or full weights."""
    shutil.rmtree(folder, ignore_errors=True)  # what an attempt that was killed here has left
    if roles.adapters is None:
        roles.model.save_pretrained(folder)
    else:
        roles.adapters.save_pretrained(folder, selected_adapters=[POLICY])
        for file in (folder / POLICY).iterdir():
            file.replace(folder / file.name)
        (folder / POLICY).rmdir()
    tokenizer.save_pretrained(folder)
    lies_on = None if roles.adapters is None else base
    tidy_model(folder, lies_on)
    return ModelRef(uri=str(folder), digest=folder_digest(folder), base=lies_on, facts=base.facts)
