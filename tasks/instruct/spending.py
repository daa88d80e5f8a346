"""A generator that ends cleanly at a budget, and what it has spent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tasks.core.generators.base import Completion, Generator, Prompt, Sampling, Usage
from tasks.instruct.config import BudgetConfig


@dataclass
class Spending:
    """Asks a generator in groups of `at_once` prompts, and before each whether the budget allows it.

    `spent` is what earlier attempts used. Tokens of an answer are known when it is there: a group may exceed a limit
    on tokens or money by what its own answers are longer than those before.
    """

    generator: Generator
    budget: BudgetConfig
    spent: Usage
    at_once: int = 8

    @property
    def usage(self) -> Usage:
        """All that was used so far, that of earlier attempts included."""
        own = self.generator.usage
        return Usage(**{name: getattr(self.spent, name) + getattr(own, name) for name in Usage.model_fields})

    @property
    def money(self) -> float:
        """What the tokens so far cost."""
        used = self.usage
        return (
            used.prompt_tokens * self.budget.input_price + used.completion_tokens * self.budget.output_price
        ) / 1e6

    def ask(
        self, prompts: Sequence[Prompt], sampling: Sampling, streams: Sequence[int], watch: Callable[[], None]
    ) -> list[Completion]:
        """A completion for each of the prompts, in their order, as far as the budget allows: fewer are an end of it."""
        answers: list[Completion] = []
        while len(answers) < len(prompts):
            count = min(self.at_once, len(prompts) - len(answers))
            if self.budget.calls:
                count = min(count, self.budget.calls - self.usage.calls)
            if count <= 0 or self.limit():
                break
            part = slice(len(answers), len(answers) + count)
            answers += self.generator.generate(prompts[part], sampling, streams=streams[part])
            watch()
        return answers

    def limit(self) -> str:
        """The limit that is reached, or that one more request of the mean size would exceed; empty without one."""
        used = self.usage
        tokens = used.prompt_tokens + used.completion_tokens
        more = 1 + 1 / max(used.calls, 1)
        if self.budget.calls and used.calls >= self.budget.calls:
            return f"{self.budget.calls} calls"
        if self.budget.tokens and tokens * more > self.budget.tokens:
            return f"{self.budget.tokens} tokens"
        if self.budget.money and self.money * more > self.budget.money:
            return f"{self.budget.money:g} in money"
        return ""
