"""What a training tells while it runs, and the checkpoints it can be resumed from."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.stage import Report

if TYPE_CHECKING:
    from transformers import TrainerCallback


_WHOLE = "whole.json"  # written into a checkpoint after everything else: a torn one is never resumed from


def newest_whole(checkpoints: Path) -> str | None:
    """The newest checkpoint that was written in full, to resume from; None when there is none."""
    whole = [path.parent for path in checkpoints.glob(f"checkpoint-*/{_WHOLE}")]
    return str(max(whole, key=lambda path: int(path.name.split("-")[1]))) if whole else None


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
                (folder / _WHOLE).write_text(json.dumps({"step": state.global_step}), encoding="utf-8")

    return Reporting()
