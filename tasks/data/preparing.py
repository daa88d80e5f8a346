"""Stage: read the user's rows, check every one, take the subset that is asked for."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten

from pydantic import BaseModel

from tasks.core.errors import UserError
from tasks.core.examples import Example, write_rows
from tasks.core.references import DatasetRef
from tasks.core.stage import Report, Stage
from tasks.data.config import DataConfig
from tasks.data.gym import check_apart
from tasks.data.sound_rows import Located, cautions, fitting, read_cells, words
from tasks.data.subset import Stratum, shuffled, take_in_proportion, take_per_stratum
from tasks.problems.base import Problem, ProblemConfig
from tasks.problems.classification import Classification
from tasks.problems.load import load_problem, problem_code


class Selection(BaseModel):
    """The rows that were taken, and what was noticed on the way."""

    problem: ProblemConfig
    train: list[Example]
    test: list[Example]
    validation: list[Example]
    duplicates: int
    left_out: dict[str, int]


class DataInputs(BaseModel):
    """What the sources hold, independent of row order and file format, and the code of the user's problem."""

    train: str
    test: str
    validation: str
    code: str


class PreparedData(BaseModel):
    """The rows every later stage works on."""

    train: DatasetRef
    test: DatasetRef
    validation: DatasetRef | None
    problem: ProblemConfig
    """As configured, with the labels of the training rows (sorted) filled in."""
    duplicates: int
    """Training rows dropped because the very same row stands before them."""
    test_rows_in_train: int
    """Test rows that are also training rows, word for word: a warning, they are kept."""
    left_out: dict[str, int]
    """Rows of any split that were left out, by reason."""
    targets: dict[str, int]
    """Rows per label in the training subset; empty unless the problem is a classification."""

    def cautions(self) -> list[str]:
        """What a reader of the results should know."""
        found = cautions(self.left_out, "Rows of the data")
        if self.test_rows_in_train:
            both = f"{self.test_rows_in_train} of {self.test.rows} test rows"
            found.append(f"{both} are training rows too, word for word.")
        return found


def prepare(config: DataConfig, out: Path) -> PreparedData:
    """Read, check and choose the rows; write train.jsonl, test.jsonl and, if there is one, validation.jsonl.

    The same content gives the same files in whatever order the rows come. Raises UserError for everything a
    user can mend in data or configuration.
    """
    chosen = select(config)
    trained = {row.id for row in chosen.train}
    labelled = bool(chosen.problem.labels)
    return PreparedData(
        train=write_rows(out / "train.jsonl", chosen.train),
        test=write_rows(out / "test.jsonl", chosen.test),
        validation=write_rows(out / "validation.jsonl", chosen.validation) if chosen.validation else None,
        problem=chosen.problem,
        duplicates=chosen.duplicates,
        test_rows_in_train=sum(row.id in trained for row in chosen.test),
        left_out=chosen.left_out,
        targets=dict(sorted(Counter(row.target for row in chosen.train).items())) if labelled else {},
    )


def check(config: DataConfig, prompts: str = "") -> Selection:
    """The rows `prepare` writes, or UserError for all that it would refuse, and for tasks whose held-out rows are among
    others (the training rows, or those at `prompts`) by their seeds. Writes nothing."""
    held_out = {"data.validation": config.validation, "data.test": config.test}
    check_apart({"data.train": config.train, "prompts": prompts}, held_out)
    return select(config)


def select(config: DataConfig) -> Selection:
    """The rows `prepare` writes."""
    left_out: Counter[str] = Counter()
    splits = ["train", "test", *(["validation"] if config.validation else [])]
    read = {split: read_cells(config, split, left_out) for split in splits}
    unlabelled = _problem(config, [])
    fit = {
        split: fitting(config, unlabelled, rows, f"data.{split}", left_out) for split, rows in read.items()
    }
    train, test, validation = fit["train"], fit["test"], fit.get("validation", [])
    problem = _problem(config, train)
    for split, rows in fit.items():
        _check_labels(problem, split, rows)
    labelled = isinstance(problem, Classification)

    def stratum(row: Example) -> str:
        return row.target if labelled else ""

    unique = {row.id: row for _, row in train}
    pool, held_out = list(unique.values()), [row for _, row in validation]
    if config.validation_fraction and not validation:
        held_out = _hold_out(config, pool, stratum)
        held = {row.id for row in held_out}
        pool = [row for row in pool if row.id not in held]
    tested = [row for _, row in test]
    return Selection(
        problem=problem.config,
        train=_subset(config, pool, labelled, stratum),
        test=take_in_proportion(tested, config.test_rows or len(tested), config.seed, stratum),
        validation=shuffled(held_out, config.seed),
        duplicates=len(train) - len(unique),
        left_out=dict(left_out),
    )


def _problem(config: DataConfig, train: Located) -> Problem:
    named = ProblemConfig(name=config.problem, instruction=config.instruction)
    named = named.model_copy(update={"code": problem_code(named)})
    problem = load_problem(named)
    if isinstance(problem, Classification):
        labels = tuple(sorted({row.target for _, row in train}))
        problem = load_problem(named.model_copy(update={"labels": labels}))
    return problem


def _check_labels(problem: Problem, split: str, rows: Located) -> None:
    labels = set(problem.config.labels)
    unseen = sorted({row.target for _, row in rows} - labels) if labels else []
    if unseen:
        raise UserError(
            f"labels that no training row has: {_listed(unseen)}",
            field=f"data.{split}",
            mend=f"the training rows have {_listed(sorted(labels))}; add rows of the new ones to data.train "
            f"or take them out of data.{split}; if these are no labels, choose another --data.problem=NAME",
        )


def _hold_out(config: DataConfig, pool: Sequence[Example], stratum: Stratum) -> list[Example]:
    count = round(config.validation_fraction * len(pool))
    if not 0 < count < len(pool):
        raise UserError(
            f"{config.validation_fraction} of {len(pool)} rows leaves validation or training without rows",
            field="data.validation_fraction",
            mend="give more rows, another fraction, or 0",
        )
    taken = take_in_proportion(pool, count, config.seed, stratum)
    # A label whose only row is held out would be one that nothing is learned of.
    drawn = set(map(id, taken))
    left = {stratum(row) for row in pool if id(row) not in drawn}
    held_out: list[Example] = []
    for row in taken:
        if stratum(row) in left:
            held_out.append(row)
        left.add(stratum(row))
    if not held_out:
        raise UserError(
            "every label has one row alone, and none to spare for validation",
            field="data.validation_fraction",
            mend="give more rows, or 0 with data.validation=FILE",
        )
    return held_out


def _subset(config: DataConfig, pool: Sequence[Example], labelled: bool, stratum: Stratum) -> list[Example]:
    if config.seed_per_label and config.seed_rows:
        raise UserError(
            "seed_per_label is set as well", field="data.seed_rows", mend="set one of the two, the other to 0"
        )
    if config.seed_per_label:
        if not labelled:
            raise UserError(
                f"the problem {config.problem!r} has no labels",
                field="data.seed_per_label",
                mend="use data.seed_rows",
            )
        counts = Counter(row.target for row in pool)
        few = [
            f"{label} ({counts[label]})" for label in sorted(counts) if counts[label] < config.seed_per_label
        ]
        if few:
            raise UserError(
                f"{config.seed_per_label} rows per label are wanted, these labels have fewer: {_listed(few)}",
                field="data.seed_per_label",
                mend="ask for fewer, or add rows of these labels",
            )
        return take_per_stratum(pool, config.seed_per_label, config.seed, stratum)
    if config.seed_rows > len(pool):
        raise UserError(
            f"{config.seed_rows} rows are wanted, there are {len(pool)} different ones",
            field="data.seed_rows",
            mend="ask for fewer, or 0 for all",
        )
    return take_in_proportion(pool, config.seed_rows or len(pool), config.seed, stratum)


def _listed(names: Sequence[str]) -> str:
    shown = [shorten(name, 40, placeholder="…") for name in names[:10]]
    return ", ".join(shown) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def content_of(config: DataConfig, split: str, *, field: str = "", answered: bool = True) -> str:
    """A digest of what a split's rows say, in whatever order they come, and of how many have cells at fault."""
    faulty: Counter[str] = Counter()
    located = read_cells(config, split, faulty, field=field, answered=answered)
    # Beside what the id hangs on, a verifier's facts: another penalty is another task of the same words.
    lines = sorted(
        row.id + (json.dumps(row.facts, sort_keys=True) if row.facts else "") for _, row in located
    )
    return hashlib.sha256("".join([*lines, words(faulty)]).encode()).hexdigest()


def inputs(config: DataConfig) -> DataInputs:
    """What the stage's cache key depends on beside its configuration. Raises UserError as reading does."""

    def content(split: str) -> str:
        return content_of(config, split) if getattr(config, split) else ""

    code = problem_code(ProblemConfig(name=config.problem))
    return DataInputs(
        train=content("train"), test=content("test"), validation=content("validation"), code=code
    )


def run(config: DataConfig, inputs: DataInputs, out: Path, report: Report) -> PreparedData:
    """`prepare` as a stage."""
    return prepare(config, out)


STAGE = Stage("data", run, DataConfig, DataInputs, PreparedData)
