"""A policy that is a table: what follows a token depends on that token alone. With rollouts of it."""

import torch

from tasks.ppo.rollout import Rollout, make_rollout

WORDS, END = 6, 5
"""Tokens 0 to 4, and the one that ends a response."""


class TabularRoles:
    """Logits and values by the token before, in two embeddings; the reference is uniform."""

    def __init__(self, *, seed: int = 0, spread: float = 0.0, dtype: torch.dtype = torch.float32) -> None:
        generator = torch.Generator().manual_seed(seed)
        table = spread * torch.randn(WORDS, WORDS, generator=generator)
        self.logits = torch.nn.Embedding.from_pretrained(table.to(dtype), freeze=False)
        worth = spread * torch.randn(WORDS, 1, generator=generator)
        self.worth = torch.nn.Embedding.from_pretrained(worth.to(dtype), freeze=False)

    def policy(self, rollout: Rollout):
        scores = self.logits(before(rollout)).log_softmax(-1)
        chosen = scores.gather(2, rollout.responses[:, :, None]).squeeze(2)
        entropies = -(scores.exp() * scores).sum(-1)
        return chosen.masked_fill(~rollout.mask, 0.0), entropies.masked_fill(~rollout.mask, 0.0)

    def values(self, rollout: Rollout):
        return self.worth(before(rollout)).squeeze(2).masked_fill(~rollout.mask, 0.0)

    def reference(self, rollout: Rollout):
        uniform = torch.full(rollout.mask.shape, 1 / WORDS, dtype=self.logits.weight.dtype).log()
        return uniform.masked_fill(~rollout.mask, 0.0)

    def rewards(self, rollout: Rollout):
        return order_kept(rollout)

    def policy_parameters(self):
        return list(self.logits.parameters())

    def value_parameters(self):
        return list(self.worth.parameters())

    def sample(self, starts: list[int], limit: int, generator: torch.Generator) -> Rollout:
        """A response to each prompt, which is a single token."""
        responses = []
        with torch.no_grad():
            for start in starts:
                tokens = [start]
                while len(tokens) <= limit and (tokens[-1] != END or len(tokens) == 1):
                    chances = self.logits.weight[tokens[-1]].softmax(-1)
                    tokens.append(int(torch.multinomial(chances, 1, generator=generator)))
                responses.append(tokens[1:])
        return make_rollout(
            [[start] for start in starts], responses, [row[-1] == END for row in responses], padding=0
        )


def before(rollout: Rollout) -> torch.Tensor:
    """The token before each response token [B, R]."""
    return torch.cat([rollout.prompts[:, -1:], rollout.responses[:, :-1]], 1)


def order_kept(rollout: Rollout) -> torch.Tensor:
    """The share of a response's tokens that are the next after the one before them, [B]; 1 is best."""
    right = (rollout.responses == before(rollout) + 1) & rollout.mask
    return right.sum(1).float() / rollout.mask.sum(1)


def some_rollout() -> Rollout:
    """Five responses of 1 to 5 tokens, two of them cut."""
    return make_rollout(
        [[0], [1, 2], [3], [4], [2]],
        [[1, 2, 5], [3, 3, 0, 1, 2], [5], [0, 1, 1, 4, 4], [2, 5]],
        [True, False, True, False, True],
        padding=0,
    )


def wider(rollout: Rollout) -> Rollout:
    """The same with more padding on both sides, of other tokens."""
    pad = torch.nn.functional.pad
    return Rollout(
        prompts=pad(rollout.prompts, (3, 0), value=4),
        prompt_mask=pad(rollout.prompt_mask, (3, 0)),
        responses=pad(rollout.responses, (0, 2), value=3),
        mask=pad(rollout.mask, (0, 2)),
        ended=rollout.ended,
    )


SCORES = torch.tensor([0.9, 0.1, 0.5, 0.0, 1.0])
