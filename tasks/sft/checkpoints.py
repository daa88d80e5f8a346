"""What a training tells while it runs, and the checkpoints it can be resumed from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.core.errors import UserError
from tasks.core.launching.fsdp import holds_a_part
from tasks.core.launching.termination import EndedEarly, heeding_termination
from tasks.core.stage import Report
from tasks.sft.zero_checkpoints import read_universal

if TYPE_CHECKING:
    from transformers import TrainerCallback


_WHOLE = "whole.json"  # written into a checkpoint after everything else: a torn one is never resumed from


class _Sharing(NamedTuple):
    """How a training is shared, as far as its checkpoints hang on it: ZeRO's stage, 0 for none, its processes, and
    whether FSDP shares it."""

    stage: int
    processes: int
    fsdp: bool = False

    def __str__(self) -> str:
        kind = f"ZeRO-{self.stage}" if self.stage else "FSDP" if self.fsdp else ""
        return f"by {kind} among {self.processes} processes" if kind else "without DeepSpeed and FSDP"


def newest_whole(checkpoints: Path) -> Path | None:
    """The newest checkpoint that was written in full, to resume from; None when there is none."""
    whole = [path.parent for path in checkpoints.glob(f"checkpoint-*/{_WHOLE}")]
    return max(whole, key=lambda path: int(path.name.split("-")[1])) if whole else None


def train_to_the_end(
    trainer: Any, checkpoints: Path, *, field: str = "training.deepspeed", every: int = 1
) -> None:
    """Train, from the newest whole checkpoint on if there is one. Asked to end (SIGTERM) it ends behind a checkpoint of
    the step it is in, by an EndedEarly; where a training can only go on from a multiple of `every` steps, of the next
    one.

    Any number of processes goes on from a checkpoint, but only with the stage of ZeRO that it was written with, and
    with FSDP only from one of FSDP. Raises UserError, which names `field`, for another.
    """
    if newest := newest_whole(checkpoints):
        before, now = _read_sharing(newest), _sharing(trainer.args)
        if (before.stage, before.fsdp) != (now.stage, now.fsdp):
            raise UserError(
                f"this training was shared {before} until it was interrupted, and cannot go on {now}",
                field=field,
                mend=f"start it with the same DeepSpeed or FSDP again, or remove {checkpoints}, and it begins anew",
            )
        if now.stage and before.processes != now.processes:
            read_universal(newest, trainer)
    with heeding_termination() as asked:
        trainer.add_callback(_ending_when(asked, every))
        trainer.train(resume_from_checkpoint=str(newest) if newest else None)


def _ending_when(asked: Callable[[], bool], every: int) -> "TrainerCallback":
    from transformers import TrainerCallback

    class Ending(TrainerCallback):
        asked_at = 0

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step % every == 0 and asked():
                self.asked_at = state.global_step
                control.should_save = True

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            # After the callback that marks the checkpoint as whole, which was added before.
            if self.asked_at == state.global_step:
                raise EndedEarly(f"asked to end; there is a checkpoint of step {state.global_step}")

    return Ending()


def _sharing(arguments: Any) -> _Sharing:
    stage = (
        arguments.hf_deepspeed_config.get_value("zero_optimization.stage", 0) if arguments.deepspeed else 0
    )
    return _Sharing(stage, arguments.world_size, holds_a_part())


def _read_sharing(checkpoint: Path) -> _Sharing:
    facts = json.loads((checkpoint / _WHOLE).read_text(encoding="utf-8"))
    return _Sharing(facts.get("stage", 0), facts.get("processes", 1), facts.get("fsdp", False))


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
                facts = {"step": state.global_step, **_sharing(args)._asdict()}
                (folder / _WHOLE).write_text(json.dumps(facts), encoding="utf-8")

    return Reporting()
