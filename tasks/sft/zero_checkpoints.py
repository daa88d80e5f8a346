"""Checkpoints of ZeRO, read by another number of processes than wrote them.

Every process keeps its part of the optimizer, so that a checkpoint is of as many processes as wrote it. DeepSpeed's
universal form (Lian et al., "Universal Checkpointing", arXiv 2406.18820) holds every parameter's state as a whole,
of which each process then takes its new part.
"""

import shutil
from argparse import Namespace
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

_LATEST = "latest_universal"  # written behind everything else


def make_universal(checkpoint: Path) -> None:
    """Put the universal form of a checkpoint beside its parts; nothing to do where it is there already."""
    if (checkpoint / _LATEST).exists():
        return
    import sys

    from deepspeed.checkpoint.ds_to_universal import main

    parts = checkpoint / (checkpoint / "latest").read_text(encoding="utf-8").strip()
    whole = parts.with_name(f"{parts.name}_universal")
    shutil.rmtree(whole, ignore_errors=True)  # of a conversion that was killed
    settings = Namespace(
        input_folder=str(parts),
        output_folder=str(whole),
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    with redirect_stdout(sys.stderr):
        main(settings)


def read_universal(checkpoint: Path, trainer: Any) -> None:
    """Let a trainer that goes on from this checkpoint read its universal form, which one process makes for all."""
    if trainer.args.process_index == 0:
        make_universal(checkpoint)
    trainer.accelerator.wait_for_everyone()
    trainer.args.hf_deepspeed_config.config["checkpoint"] = {"load_universal": True}
