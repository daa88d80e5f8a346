"""What a training tells while it runs, and the checkpoints it can be resumed from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import UserError
from tasks.core.launching.termination import EndedEarly, heeding_termination
from tasks.core.stage import Report

if TYPE_CHECKING:
    from transformers import TrainerCallback


_WHOLE = "whole.json"  # written into a checkpoint after everything else: a torn one is never resumed from


def newest_whole(checkpoints: Path, arguments: Any = None) -> str | None:
    """The newest checkpoint that was written in full, to resume from; None when there is none.

    Raises UserError when the trainer's `arguments` share the training in another way than that checkpoint did, which
    cannot be read then: parts of ZeRO are of one number of processes and one stage. Without DeepSpeed any number of
    processes goes on from it.
    """
    whole = [path.parent for path in checkpoints.glob(f"checkpoint-*/{_WHOLE}")]
    if not whole:
        return None
    newest = max(whole, key=lambda path: int(path.name.split("-")[1]))
    before = str(json.loads((newest / _WHOLE).read_text(encoding="utf-8")).get("layout", ""))
    if arguments is not None and before != _layout(arguments):
        raise UserError(
            f"this training was shared {before or 'without DeepSpeed'} until it was interrupted, and cannot go on "
            f"{_layout(arguments) or 'without DeepSpeed'}",
            field="launch.processes",
            mend=f"start it in the same way again, or remove {checkpoints}, and it begins anew",
        )
    return str(newest)


def train_to_the_end(trainer: Any, checkpoints: Path) -> None:
    """Train, from the newest whole checkpoint on if there is one. Asked to end (SIGTERM) it ends behind a checkpoint of
    the step it is in, by an EndedEarly."""
    with heeding_termination() as asked:
        trainer.add_callback(_ending_when(asked))
        trainer.train(resume_from_checkpoint=newest_whole(checkpoints, trainer.args))


def _ending_when(asked: Callable[[], bool]) -> "TrainerCallback":
    from transformers import TrainerCallback

    class Ending(TrainerCallback):
        asked_at = 0

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if asked():
                self.asked_at = state.global_step
                control.should_save = True

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            # After the callback that marks the checkpoint as whole, which was added before.
            if self.asked_at == state.global_step:
                raise EndedEarly(f"asked to end; there is a checkpoint of step {state.global_step}")

    return Ending()


def _layout(arguments: Any) -> str:
    """How a training is shared, as far as its checkpoints hang on it."""
    if not arguments.deepspeed:
        return ""
    stage = arguments.hf_deepspeed_config.get_value("zero_optimization.stage", 0)
    return f"by ZeRO-{stage} among {arguments.world_size} processes"


def reporting(report: Report) -> "TrainerCallback":
    """A callback that passes figures and progress to `report`, and marks checkpoints that are written in full."""
    from transformers import TrainerCallback

    names = {"loss": "train/loss", "learning_rate": "train/learning_rate", "grad_norm": "train/grad_norm"}
    names |= {"eval_loss": "eval/loss"}

    class Reporting(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:
            figures = {names[key]: float(value) for key, value in logs.items() if key in names}
            if figures and state.is_world_process_zero:
                report({"step": state.global_step} | figures)
                text = f"loss {figures['train/loss']:.3f}" if "train/loss" in figures else ""
                report({"progress": [state.global_step, state.max_steps], "text": text})

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.is_world_process_zero:
                folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
                facts = {"step": state.global_step, "layout": _layout(args)}
                (folder / _WHOLE).write_text(json.dumps(facts), encoding="utf-8")

    return Reporting()
