"""Label or judge rows with a teacher, many in one prompt (BatchPrompt, arXiv 2309.00384).

for round in 1 … rounds:
    permute the rows that are not settled, cut them into batches
    one prompt per batch: numbered inputs in, numbered answers out
    rows without a readable answer are asked alone
    a row is settled when two rounds in a row were confident of the same answer
label = the vote over a row's rounds
"""

from typing import Any

from prefect import flow

from tasks.augment.teacher import TeacherConfig, load_teacher, locate_teacher
from tasks.core.flow_run import FlowConfig, FlowRun, check_run, open_run
from tasks.label import choosing, config, data, stage
from tasks.label.choosing import AutoConfig, choose
from tasks.label.config import LabellingConfig
from tasks.label.data import LabelDataConfig
from tasks.label.show import LabelFlowResult, show_labels
from tasks.label.stage import LabelInputs
from tasks.plan.fits import check_asked


class LabelConfig(FlowConfig):
    """Label rows with batched prompts, in several rounds and orders, by a vote."""

    data: LabelDataConfig = LabelDataConfig()
    """The rows, and what counts as an answer."""
    teacher: TeacherConfig = TeacherConfig()
    """The model that labels."""
    labelling: LabellingConfig = LabellingConfig()
    """How it is asked."""
    auto: AutoConfig = AutoConfig()
    """Batch size and rounds by trying them out."""


def check(settings: LabelConfig) -> None:
    """Everything that can be known to be wrong before a model is loaded. Raises UserError."""
    check_run(settings)
    config.check(settings.labelling)
    choosing.check(settings.auto, bool(settings.data.examples))
    data.read(settings.data)
    teacher = locate_teacher(settings.teacher)
    check_asked(settings, teacher.weights(), teacher.engine, field="teacher.model")


@flow(name="label")
def label(config: LabelConfig = LabelConfig()) -> LabelFlowResult:  # noqa: B008 - the model is frozen
    """Label rows with batched prompts, in several rounds and orders, by a vote."""
    check(config)
    with open_run("label", config) as run:
        return loop(run, config)


def loop(run: FlowRun, settings: LabelConfig) -> LabelFlowResult:
    """The algorithm; its rounds are in `tasks.label.rounds`."""
    rows = run.stage(data.STAGE, settings.data, data.inputs(settings.data), label="data")
    run.dataset(rows.rows, "rows")
    teacher, labelling, trials = load_teacher(run, settings.teacher), settings.labelling, list[Any]()
    if settings.auto.on:
        labelling, trials = choose(run, settings.auto, labelling, teacher, rows)
    asked = LabelInputs(
        teacher=teacher,
        rows=rows.rows,
        demonstrations=rows.demonstrations,
        problem=rows.problem,
        known=rows.known,
    )
    return show_labels(run, labelling, trials, run.stage(stage.STAGE, labelling, asked, label="label"))


CONFIG, FLOW = LabelConfig, label
