"""How often one policy's answer is preferred to another's."""

from collections.abc import Sequence
from math import sqrt

from pydantic import BaseModel

from tasks.core.errors import UserError

_QUANTILE = 1.959963984540054  # of the standard normal distribution, for 95 %


class WinRate(BaseModel):
    """The share of prompts that the second policy wins, with its 95 % interval; a tie is half a win."""

    prompts: int
    wins: int
    ties: int
    rate: float
    low: float
    high: float


def win_rate(first: Sequence[float], second: Sequence[float]) -> WinRate:
    """Compare what a judge gives two policies' answers, prompt by prompt; the interval is Wilson's (1927).

    Raises UserError when there is no prompt.
    """
    if not first:
        raise UserError("there is no prompt to compare policies on", field="data.test", mend="add test rows")
    wins = sum(one < two for one, two in zip(first, second, strict=True))
    ties = sum(one == two for one, two in zip(first, second, strict=True))
    prompts = len(first)
    rate = (wins + ties / 2) / prompts
    spread = _QUANTILE**2 / prompts
    middle = (rate + spread / 2) / (1 + spread)
    reach = _QUANTILE * sqrt(rate * (1 - rate) / prompts + spread / (4 * prompts)) / (1 + spread)
    return WinRate(
        prompts=prompts,
        wins=wins,
        ties=ties,
        rate=rate,
        low=max(0.0, middle - reach),
        high=min(1.0, middle + reach),
    )
