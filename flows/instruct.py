"""Instruction data from a handful of seeds (survey: arXiv 2308.10792).

pool = seeds
until there are enough rows, or the budget is used up:
    ask for instructions: new tasks from eight shown ones   Self-Instruct
                          a row made harder, or broader     Evol-Instruct
                          the instruction for a text        backtranslation
                          a row in other words              paraphrase
    drop duplicates, failed evolutions, what resembles a test row
    have the others answered (a text's instruction: marked), drop refusals and low marks
    pool += kept
"""

from prefect import flow

from tasks.augment.teacher import TeacherConfig, load_teacher, locate_teacher
from tasks.core.flow_run import FlowConfig, FlowRun, check_run, open_run
from tasks.instruct import config, data, stage
from tasks.instruct.config import WritingConfig
from tasks.instruct.data import InstructDataConfig
from tasks.instruct.show import InstructFlowResult, show_instructions
from tasks.instruct.stage import WritingInputs


class InstructConfig(FlowConfig):
    """Write instruction data from seeds, by a mix of strategies, within a budget."""

    data: InstructDataConfig = InstructDataConfig()
    """The seeds, and what else is needed."""
    teacher: TeacherConfig = TeacherConfig()
    """The model that writes and answers."""
    writing: WritingConfig = WritingConfig()
    """How much, by which strategies, and what is kept."""


def check(settings: InstructConfig) -> None:
    """Everything that can be known to be wrong before a model is loaded. Raises UserError."""
    check_run(settings)
    config.check(settings.writing, bool(settings.data.texts))
    data.read(settings.data)
    locate_teacher(settings.teacher)


@flow(name="instruct")
def instruct(config: InstructConfig = InstructConfig()) -> InstructFlowResult:  # noqa: B008 - the model is frozen
    """Write instruction data from seeds, by a mix of strategies, within a budget."""
    check(config)
    with open_run("instruct", config) as run:
        return loop(run, config)


def loop(run: FlowRun, settings: InstructConfig) -> InstructFlowResult:
    """The algorithm; its rounds are in `tasks.instruct.writing`."""
    rows = run.stage(data.STAGE, settings.data, data.inputs(settings.data), label="data")
    run.dataset(rows.seeds, "seeds")
    teacher = load_teacher(run, settings.teacher)
    written = run.stage(
        stage.STAGE, settings.writing, WritingInputs(teacher=teacher, data=rows), label="write"
    )
    run.dataset(written.rows, "written")
    return show_instructions(run, settings.writing.rows, written)


CONFIG, FLOW = InstructConfig, instruct
