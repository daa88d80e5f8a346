"""Roles on the tiny model whose adapters have left their start, a rollout of uneven lengths, and the long way to its
log-probabilities."""

from typing import Any

import torch

from tasks.core.references import ModelRef
from tasks.ppo.full_models import load_roles
from tasks.ppo.roles import LanguageModelRoles
from tasks.ppo.roles_config import RolesConfig
from tasks.ppo.rollout import Rollout, make_rollout

PROMPTS = [[5, 6, 7, 8, 9, 10, 11, 12], [20, 21, 22], [30, 31, 32, 33, 34]]
RESPONSES = [[40, 41, 3], [50, 51, 52, 53, 54], [3]]  # 3 is <|im_end|>
ENDED = [True, False, True]


def rollout(prompts=PROMPTS, responses=RESPONSES, ended=ENDED) -> Rollout:
    """By default three prompts and responses of different lengths, one cut."""
    return make_rollout(prompts, responses, ended, padding=0)


def wider(batch: Rollout) -> Rollout:
    """The same with more padding on both sides, of other tokens."""
    rows = len(batch)
    left, right = torch.full((rows, 3), 17), torch.full((rows, 2), 18)
    no = torch.zeros
    return Rollout(
        prompts=torch.cat([left, batch.prompts], 1),
        prompt_mask=torch.cat([no(rows, 3, dtype=torch.bool), batch.prompt_mask], 1),
        responses=torch.cat([batch.responses, right], 1),
        mask=torch.cat([batch.mask, no(rows, 2, dtype=torch.bool)], 1),
        ended=batch.ended,
    )


def roles_on(base: ModelRef, reward: ModelRef | None = None, *, moved: bool = True, **changes: Any):
    """Roles on a model; `moved` puts noise on all that is trained, as if some steps had been made."""
    options = {"temperature": changes.pop("temperature", 1.0)}
    roles = load_roles(RolesConfig(**changes), base, reward, **options)
    if moved:
        move(roles)
    return roles


def move(roles: LanguageModelRoles, only: str = "", size: float = 0.05, seed: int = 0) -> None:
    """Add noise to the trained parameters whose names begin with `only`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, part in roles.trainable.items():
            if name.startswith(only):
                part += size * torch.randn(part.shape, generator=generator)


def naive(model: Any, batch: Rollout, temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities and entropies by plain forwards of a causal model, a row at a time, all logits."""
    found, entropies = torch.zeros(batch.mask.shape), torch.zeros(batch.mask.shape)
    for row, response in enumerate(batch.response_tokens()):
        prompt = batch.prompts[row][batch.prompt_mask[row]].tolist()
        with torch.no_grad():
            logits = model(torch.tensor([prompt + response])).logits[0].double() / temperature
        scores = logits.log_softmax(-1)
        for place, token in enumerate(response):
            at = scores[len(prompt) - 1 + place]
            found[row, place], entropies[row, place] = at[token], -(at.exp() * at).sum()
    return found, entropies


def gradients(roles: LanguageModelRoles) -> dict[str, torch.Tensor]:
    """A copy of all gradients, by name; they are cleared."""
    found = {name: part.grad.clone() for name, part in roles.trainable.items() if part.grad is not None}
    for part in roles.trainable.values():
        part.grad = None
    return found
