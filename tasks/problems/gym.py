"""Tasks of reasoning-gym, scored by their own verifiers."""

import functools
import os
import re
import warnings

from tasks.core.examples import Example, make_example
from tasks.problems.base import Draft, Score
from tasks.problems.classification import normal_form
from tasks.problems.labelled_lines import LabelledLines, first_paragraph
from tasks.rewards.sandboxed import Sandbox

TIME_LIMIT_S = 10.0
MEMORY_MB = 8192
"""Of address space: a formula such as 10**10**10 must not take the machine's."""

_STATED = re.compile(r"answer\s*(?:is\s*:?|:|=)", re.I)


def read_answer(completion: str, target: str) -> str | None:
    """The answer in a completion, or None when it is empty.

    The text of the last `<answer>…</answer>`; else what follows the first `####`, or the last "answer is" (without its
    full stop); else the whole text. Of that the first line, unless the target has several. What a model thinks
    (`<think>…</think>`) is no part of it, and a completion that is the target is the answer as it stands.
    """
    text = completion.rpartition("</think>")[2].strip()
    if text == target.strip():
        return text or None
    end = text.rfind("</answer>")
    begin = text.rfind("<answer>", 0, max(end, 0))
    stated = None
    if begin >= 0:
        text = text[begin + len("<answer>") : end]
    elif "####" in text:
        text = text.split("####", 1)[1]
    elif stated := list(_STATED.finditer(text)):
        text = text[stated[-1].end() :]
    text = text.strip()
    if "\n" not in target.strip():
        text = text.partition("\n")[0].strip()
        if stated and not target.endswith("."):
            text = text.removesuffix(".")
    return text or None


class Gym(LabelledLines):
    """A completion is worth what the task's own scorer gives its answer, in part where the task does so: many tasks
    give a wrong answer that contains the right one ("112" for "12") the share of it that is right.

    A row that a teacher wrote lacks what the scorer needs; it is scored as `exact_match`.
    """

    instruction = "Give only the answer."
    max_new_tokens = 64

    def score(self, example: Example, completion: str) -> Score:
        """The scorer's value in [0, 1]. No answer is worth 0, and so is one that the scorer hangs on or cannot read,
        which is told as a failure."""
        answer = read_answer(completion, example.target)
        if answer is None:
            return Score(value=0.0, answer=None)
        if "metadata" not in example.facts:
            return Score(value=float(normal_form(answer) == normal_form(example.target)), answer=answer)
        facts = example.facts
        outcome = _scorer(os.getpid()).call(
            facts["dataset"],
            facts["parameters"],
            example.input,
            example.target,
            facts["metadata"],
            answer,
            time_limit_s=TIME_LIMIT_S,
        )
        if outcome.failure:
            # Many scorers raise on a malformed answer; that all of them read right ones, a test makes sure. Without the
            # answer's own words the message is one and the same, and shown once.
            kind = "no answer in time" if outcome.failure == "timed_out" else outcome.reason.partition(":")[0]
            warnings.warn(f"the scorer of {facts['dataset']} fails on some answers: {kind}", stacklevel=2)
            reason = f"the scorer of {facts['dataset']}: {outcome.reason}"
            return Score(value=0.0, answer=answer, failure=outcome.failure, reason=reason)
        return Score(value=min(max(outcome.value, 0.0), 1.0), answer=answer)

    def fault(self, example: Example) -> str | None:
        """An empty input or answer."""
        return "the answer is empty" if not example.target.strip() else super().fault(example)

    def draft(self, row: dict[str, str], parent: Example) -> Draft:
        """An answer of several lines if the parent's is one, else the first line."""
        answer = row["answer"]
        several = "\n" in parent.target.strip()
        return Draft(
            input=row["question"], target=answer if several else first_paragraph(answer).partition("\n")[0]
        )

    def worked(self, parent: Example) -> tuple[Example, list[Example]]:
        """Short questions with one exact answer."""
        return (
            make_example("How many letters e are in the word sleeve?", "3"),
            [
                make_example("How many letters o are in the word cocoon?", "3"),
                make_example("Sort these words by the alphabet: plum, fig, pear", "fig, pear, plum"),
            ],
        )


@functools.cache
def _scorer(process: int) -> Sandbox:
    """This process's scorer, which ends with it; a fork must not speak into its parent's pipe."""
    return Sandbox("tasks.problems.gym_task:score", memory_mb=MEMORY_MB)
