"""Stage: keep or reject a teacher's candidates, and add what is kept to what was kept before."""

from collections import Counter
from pathlib import Path

from pydantic import BaseModel, Field

from tasks.core.examples import Example, read_examples, read_records, write_rows
from tasks.core.references import DatasetRef
from tasks.core.stage import Report, Stage
from tasks.filter.judged import choose_likeliest, keep_agreed, mean_probability
from tasks.filter.rules import FilterConfig, Rejection, filter_examples
from tasks.problems.base import ProblemConfig
from tasks.problems.load import load_problem


class FilterInputs(BaseModel):
    """The candidates and everything they are compared with."""

    candidates: DatasetRef
    wrong: DatasetRef
    """The rows they were written from."""
    kept: DatasetRef | None = None
    """Rows kept in earlier attempts of this iteration."""
    known: DatasetRef
    """All training rows."""
    test: DatasetRef
    problem: ProblemConfig
    judgements: list[DatasetRef] = Field(default_factory=list)
    """Predictions of the judges on the candidates."""
    labels: DatasetRef | None = None
    """The candidates with the labels that their teacher gives them when it is asked anew."""
    limit: int
    """Most rows kept per parent."""


class FilterStageResult(BaseModel):
    """`kept` holds the earlier attempts' rows as well; `counts` are those of this call."""

    kept: DatasetRef
    rejected: DatasetRef
    counts: dict[str, int]


def run(config: FilterConfig, inputs: FilterInputs, out: Path, report: Report) -> FilterStageResult:
    """Filter; of one parent's rows no more than `limit` are kept, the first ones."""
    kept = read_examples(inputs.kept) if inputs.kept else []
    outcome = filter_examples(
        config,
        read_examples(inputs.candidates),
        wrong=read_examples(inputs.wrong),
        kept=kept,
        known=read_examples(inputs.known),
        test=read_examples(inputs.test),
        problem=load_problem(inputs.problem),
    )
    passed, doubted, judged = outcome.kept, list[Rejection](), list[Rejection]()
    if inputs.labels:
        passed, doubted = keep_agreed(passed, read_records(inputs.labels))
    if inputs.judgements:
        answers = [{row["id"]: row["logprob"] for row in read_records(ref)} for ref in inputs.judgements]
        passed, judged = choose_likeliest(passed, mean_probability(answers), config.judged_share)
    per_parent = Counter(row.parent for row in kept)
    taken: list[Example] = []
    for row in passed:
        if per_parent[row.parent] < inputs.limit:
            per_parent[row.parent] += 1
            taken.append(row)
    counts = outcome.counts | {
        "kept": len(taken),
        "relabelled": len(doubted),
        "judged": len(judged),
        "surplus": len(passed) - len(taken),
    }
    return FilterStageResult(
        kept=write_rows(out / "kept.jsonl", [*kept, *taken]),
        rejected=write_rows(out / "rejected.jsonl", [*outcome.rejected, *doubted, *judged]),
        counts=counts,
    )


STAGE = Stage("filter", run, FilterConfig, FilterInputs, FilterStageResult)
