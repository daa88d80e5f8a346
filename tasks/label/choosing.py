"""How large a batch and how many rounds it takes: tried out on rows whose labels are known (`auto`)."""

from collections.abc import Sequence

from pydantic import BaseModel, Field

from tasks.augment.teacher import Teacher
from tasks.core.config import Config
from tasks.core.errors import UserError
from tasks.core.run import Run
from tasks.label.config import LabellingConfig
from tasks.label.data import LabelData
from tasks.label.stage import STAGE, LabelInputs, LabelResult


class AutoConfig(Config):
    """Let batch size and rounds be chosen on labelled rows: the fewest prompt tokens for a stated loss."""

    on: bool = False
    """Try settings out before labelling; needs `data.examples`."""
    most_loss: float = Field(0.02, ge=0.0, le=1.0)
    """The accuracy that may be lost against a prompt for every row alone, as a share."""
    batch_sizes: tuple[int, ...] = Field((8, 16, 32), min_length=1)
    """Batch sizes that are tried."""
    rounds: tuple[int, ...] = Field((1, 3, 5), min_length=1)
    """Numbers of rounds that are tried."""


class Trial(BaseModel):
    """A setting, how right it was, and what it cost."""

    batch_size: int
    rounds: int
    accuracy: float
    calls_per_row: float
    prompt_tokens_per_row: float


def check(config: AutoConfig, has_examples: bool) -> None:
    """Raise UserError for a choice that has nothing to choose by, or settings that cannot be tried."""
    if not config.on:
        return
    if not has_examples:
        raise UserError(
            "settings are to be tried out, but there are no labelled rows",
            field="data.examples",
            mend="give some with --data.examples=FILE --data.target=COLUMN, or --auto.on=false",
        )
    if any(rounds % 2 == 0 or not 0 < rounds < 100 for rounds in config.rounds):
        raise UserError(
            f"{config.rounds} are not all odd", field="auto.rounds", mend="take odd numbers, such as 1, 3, 5"
        )
    if any(not 1 < size <= 1000 for size in config.batch_sizes):
        raise UserError(
            f"{config.batch_sizes} are not all batches",
            field="auto.batch_sizes",
            mend="take sizes from 2 to 1000",
        )


def choose(
    run: Run, config: AutoConfig, labelling: LabellingConfig, teacher: Teacher, data: LabelData
) -> tuple[LabellingConfig, list[Trial]]:
    """The labelling with the cheapest batch size and number of rounds whose accuracy on the sample is at most
    `most_loss` below that of single prompts; single prompts when no setting is. The trials in the order of trying.

    A batch size is asked the most rounds once: what fewer rounds would have decided is part of it.
    """
    assert data.sample is not None
    asked = LabelInputs(
        teacher=teacher,
        rows=data.sample,
        demonstrations=data.demonstrations,
        problem=data.problem,
        known=True,
    )
    trials: list[Trial] = []
    for size, rounds in [(1, (1,)), *((size, tuple(sorted(config.rounds))) for size in config.batch_sizes)]:
        setting = labelling.model_copy(update={"batch_size": size, "rounds": rounds[-1]})
        words = "alone" if size == 1 else f"in batches of {size}"
        result = run.stage(STAGE, setting, asked, label=f"try rows {words}")
        trials += [trial_of(size, number, result) for number in rounds]
    best = cheapest(trials, config.most_loss)
    return labelling.model_copy(update={"batch_size": best.batch_size, "rounds": best.rounds}), trials


def trial_of(batch_size: int, rounds: int, result: LabelResult) -> Trial:
    """What a labelling of known rows was after so many of its rounds."""
    done, rows = result.rounds[:rounds], result.rows.rows
    used = sum(one.usage.calls for one in done), sum(one.usage.prompt_tokens for one in done)
    return Trial(
        batch_size=batch_size,
        rounds=rounds,
        accuracy=done[-1].right or 0.0,
        calls_per_row=used[0] / rows,
        prompt_tokens_per_row=used[1] / rows,
    )


def cheapest(trials: Sequence[Trial], most_loss: float) -> Trial:
    """Of the trials that are at most `most_loss` worse than the first, the one with the fewest prompt tokens a row, and
    of these the one with the fewest calls."""
    least = trials[0].accuracy - most_loss - 1e-9
    good = [one for one in trials if one.accuracy >= least]
    return min(good, key=lambda one: (one.prompt_tokens_per_row, one.calls_per_row))
