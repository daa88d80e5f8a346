"""Scorers of reasoning-gym that evaluate the answer as Python, made to evaluate nothing but values and formulas.

An answer is a model's text: `__import__("os").system(…)` must stay a wrong answer.
"""

import ast
import functools
import importlib
import re
from typing import Any

LITERAL = (
    "algorithmic.binary_matrix",
    "algorithmic.spiral_matrix",
    "algorithmic.string_insertion",
    "games.n_queens",
)
"""Modules that call `eval` on an answer, to read a list."""
FORMULA = (
    "algebra.intermediate_integration",
    "algebra.polynomial_multiplication",
    "algebra.simple_integration",
    "games.countdown",
    "games.puzzle24",
)
"""Modules that call sympy's `parse_expr` on an answer, which calls `eval`."""

LONGEST_FORMULA = 1000
_FUNCTIONS = "a?(sin|cos|tan|cot|sec|csc)h?|exp|log|ln|sqrt|[aA]bs|pi"
_FORMULA = re.compile(rf"(\s|[-+*/^(),]|(\d+(\.\d*)?|\.\d+)(?![\w.])|\b([A-Za-z]|{_FUNCTIONS})\b)*", re.ASCII)


@functools.cache
def disarm() -> None:
    """Replace `eval` and `parse_expr` where the scorers of this process look them up."""
    import sympy

    module: Any
    for name in LITERAL:
        module = importlib.import_module(f"reasoning_gym.{name}")
        module.eval = ast.literal_eval
    parse = plain_only(sympy.parse_expr)
    sympy.parse_expr = parse
    for name in FORMULA:
        module = importlib.import_module(f"reasoning_gym.{name}")
        if hasattr(module, "parse_expr"):
            module.parse_expr = parse


def plain_only(parse: Any) -> Any:
    """`parse` for formulas alone: it raises ValueError for anything `is_formula` does not take."""

    @functools.wraps(parse)
    def checked(text: str, *arguments: Any, **options: Any) -> Any:
        if not is_formula(text):
            raise ValueError("no formula")
        return parse(text, *arguments, **options)

    return checked


def is_formula(text: str) -> bool:
    """Whether `text` is made of numbers, one-letter variables, common functions and operators only.

    No attribute, no quotation mark, no other name: nothing in it can call into Python.
    """
    return len(text) <= LONGEST_FORMULA and _FORMULA.fullmatch(text) is not None
