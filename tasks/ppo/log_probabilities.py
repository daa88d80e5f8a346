"""Log-probabilities and entropies of chosen tokens from hidden states, without keeping logits of the vocabulary.

The logits of a batch take tokens x vocabulary numbers, in float32, and autograd would keep several copies of them:
with a vocabulary of 100,000 they may outweigh the layers' activations. Where the head is frozen, the gradient of a
token's log-probability with respect to its hidden state is a single vector, which is computed with the logits, a chunk
of tokens at a time; the logits are then thrown away.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

from tasks.core.errors import UserError
from tasks.ppo.matrix_products import times, times_transposed

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 1 << 24
"""Logits in memory at once: 64 MiB in float32."""


class Vocabulary:
    """The output layer of a causal language model and how it makes logits of hidden states.

    Raises UserError for an architecture that does something else with them than is known here.
    """

    def __init__(self, model: Any) -> None:
        self._head = model.get_output_embeddings()
        config = model.config.get_text_config(decoder=True)
        self._factor = getattr(config, "logit_scale", None) or 1.0  # Cohere
        self._factor /= getattr(config, "logits_scaling", None) or 1.0  # Granite
        self._cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2 and later
        self._check(model)

    def log_probabilities(
        self, hidden: "Tensor", tokens: "Tensor", temperature: float, *, entropy_gradient: bool = True
    ) -> tuple["Tensor", "Tensor"]:
        """Of `tokens` [N] after hidden states [N, d]: log-probability and entropy [N], in float32, of the distribution
        that is sampled from at `temperature`: softmax(logits / t) (Huang et al. 2024, section 3.1).

        Without `entropy_gradient` the entropies carry none, which saves a product with the head per token.
        """
        if temperature <= 0:
            raise ValueError(f"a temperature of {temperature} gives no distribution")
        if self._is_plain():
            scale = self._factor / temperature
            found: tuple[Tensor, Tensor] = _function().apply(
                hidden, self._head.weight, tokens, scale, entropy_gradient
            )
            return found
        logits = self._logits(hidden).float() / temperature
        scores = logits.log_softmax(dim=-1)
        entropies = -(scores.exp() * scores).sum(dim=-1)
        chosen = scores.gather(1, tokens[:, None]).squeeze(1)
        return chosen, entropies if entropy_gradient else entropies.detach()

    def _logits(self, hidden: "Tensor") -> "Tensor":
        import torch

        logits = self._head(hidden.to(self._head.weight.dtype)) * self._factor
        return logits if self._cap is None else torch.tanh(logits / self._cap) * self._cap

    def _is_plain(self) -> bool:
        """The head is one frozen matrix that lies here as a whole (and is not, say, a shard of DeepSpeed's)."""
        import torch

        head = self._head
        return (
            type(head) is torch.nn.Linear
            and head.bias is None
            and not head.weight.requires_grad
            and head.weight.numel() == head.in_features * head.out_features
            and self._cap is None
        )

    def _check(self, model: Any) -> None:
        import torch

        with torch.no_grad():
            ids = torch.tensor([[0, 1, 2, 3]], device=model.device)
            expected = model(input_ids=ids, use_cache=False).logits[0].float()
            hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
            found = self._logits(hidden).float()
        if not torch.allclose(found, expected, rtol=1e-2, atol=1e-2):
            raise UserError(
                f"{type(model).__name__} makes its logits in a way that is not known here",
                field="policy.model",
                mend="take a decoder such as Llama, Qwen, Mistral or Gemma",
            )


@cache
def _function() -> Any:
    import torch

    class ChosenTokens(torch.autograd.Function):
        """With p = softmax(s W h) and H its entropy: d log p(y) / dh = s W^T (1_y - p), and
        dH / dh = -s W^T (p (log p + H))."""

        @staticmethod
        def forward(
            ctx: Any,
            hidden: "Tensor",
            weight: "Tensor",
            tokens: "Tensor",
            scale: float,
            entropy_gradient: bool,
        ) -> tuple["Tensor", "Tensor"]:
            needed = ctx.needs_input_grad[0]
            parts: list[tuple[Tensor, ...]] = []
            rows = max(1, CHUNK // len(weight))
            for states, chosen in zip(hidden.split(rows), tokens.split(rows), strict=True):
                scores = times_transposed(states.to(weight.dtype), weight).float().mul_(scale)
                scores -= scores.logsumexp(dim=-1, keepdim=True)
                log_probability = scores.gather(1, chosen[:, None]).squeeze(1)
                p = scores.exp()
                entropy = -(p * scores).sum(dim=-1)
                part: tuple[Tensor, ...] = (log_probability, entropy)
                if needed:
                    if entropy_gradient:
                        of_entropy = scores.add_(entropy[:, None]).mul_(p)
                        part += (times(of_entropy.to(weight.dtype), weight).float().mul_(-scale),)
                    p.neg_().scatter_add_(1, chosen[:, None], torch.ones_like(chosen[:, None], dtype=p.dtype))
                    part += (times(p.to(weight.dtype), weight).float().mul_(scale),)
                parts.append(part)
            log_probabilities, entropies, *gradients = (torch.cat(part) for part in zip(*parts, strict=True))
            ctx.save_for_backward(*gradients)
            ctx.dtype = hidden.dtype
            if not entropy_gradient:
                ctx.mark_non_differentiable(entropies)
            return log_probabilities, entropies

        @staticmethod
        def backward(ctx: Any, of_chosen: "Tensor", of_entropy: "Tensor") -> tuple[Any, ...]:
            *entropy, chosen = ctx.saved_tensors
            gradient = of_chosen[:, None] * chosen
            if entropy:
                gradient = torch.addcmul(gradient, of_entropy[:, None], entropy[0])
            return gradient.to(ctx.dtype), None, None, None, None

    return ChosenTokens
