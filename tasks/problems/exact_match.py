"""Exact match: the whole answer is the target, up to case, white space and surrounding punctuation."""

from tasks.core.examples import Example, make_example
from tasks.problems.base import Draft, Score
from tasks.problems.classification import normal_form
from tasks.problems.labelled_lines import LabelledLines, first_paragraph


class ExactMatch(LabelledLines):
    """A completion is right when its normal form equals the target's (see `normal_form`): all of it counts,
    so an answer followed by an explanation is wrong.
    """

    instruction = "Give the answer and nothing else."

    def score(self, example: Example, completion: str) -> Score:
        """1 on equality of normal forms; an empty completion has no answer."""
        answer = completion.strip()
        right = bool(answer) and normal_form(answer) == normal_form(example.target)
        return Score(value=float(right), answer=answer or None)

    def fault(self, example: Example) -> str | None:
        """An empty input or answer."""
        return "the answer is empty" if not example.target.strip() else super().fault(example)

    def draft(self, row: dict[str, str], parent: Example) -> Draft:
        """The answer ends at its first blank line."""
        return Draft(input=row["question"], target=first_paragraph(row["answer"]))

    def worked(self, parent: Example) -> tuple[Example, list[Example]]:
        """Opposites of words."""
        return (
            make_example("What is the opposite of hot?", "cold"),
            [
                make_example("Which word means the contrary of narrow?", "wide"),
                make_example("Name the opposite of early.", "late"),
            ],
        )
