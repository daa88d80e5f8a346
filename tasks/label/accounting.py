"""What labelling cost, and what it would have cost to ask for every row alone."""

from collections.abc import Sequence

from pydantic import BaseModel

from tasks.core.generators.base import Usage
from tasks.label.config import LabellingConfig
from tasks.label.rounds import Round


class Cost(BaseModel):
    """Calls, tokens and seconds of all rounds, beside calls and tokens of one prompt per row.

    `single_prompt_tokens` is an estimate: the prompts' tokens as counted beforehand, times what was used over what had
    been counted of the prompts that were sent. Seconds of rounds that an earlier, killed attempt asked are in it.
    """

    calls: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    rows: int
    single_prompt_tokens: int

    @property
    def calls_saved(self) -> float:
        """The share of the calls that single prompting would have made; negative when there were more."""
        return 1 - self.calls / self.rows if self.rows else 0.0

    @property
    def prompt_tokens_saved(self) -> float:
        """The share of the prompt tokens that single prompting would have used; negative when there were more."""
        return 1 - self.prompt_tokens / self.single_prompt_tokens if self.single_prompt_tokens else 0.0

    def money(self, config: LabellingConfig) -> float:
        """What the tokens cost at the prices of today: a labelling that is found in the store may have had others."""
        prompts = self.prompt_tokens * config.input_price
        return (prompts + self.completion_tokens * config.output_price) / 1e6

    def metrics(self) -> dict[str, float]:
        """The figures by their names in MLflow."""
        return {
            "label/calls": float(self.calls),
            "label/calls_saved": self.calls_saved,
            "label/prompt_tokens": float(self.prompt_tokens),
            "label/prompt_tokens_saved": self.prompt_tokens_saved,
            "label/completion_tokens": float(self.completion_tokens),
            "label/seconds": self.seconds,
        }


def cost_of(rounds: Sequence[Round], *, rows: int, single_tokens: int) -> Cost:
    """The cost of `rounds` over `rows` rows, whose single prompts have `single_tokens` tokens by the same count."""
    used = Usage()
    for one in rounds:
        used = Usage(**{name: getattr(used, name) + getattr(one.usage, name) for name in Usage.model_fields})
    counted = sum(one.counted_tokens for one in rounds)
    scale = used.prompt_tokens / counted if counted and used.prompt_tokens else 1.0
    return Cost(
        calls=used.calls,
        prompt_tokens=used.prompt_tokens,
        completion_tokens=used.completion_tokens,
        seconds=sum(one.seconds for one in rounds),
        rows=rows,
        single_prompt_tokens=round(single_tokens * scale),
    )
