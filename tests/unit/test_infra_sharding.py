"""DeepSpeed and accelerate files, read by the libraries they are for."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.core.launching.zero import LAYOUTS, read_deepspeed
from tests.containers import INFRA, ROOT

DEEPSPEED = sorted((INFRA / "deepspeed").glob("*.json"))

READ_DEEPSPEED = """
import json, sys
from transformers import TrainingArguments
from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig
from deepspeed import DeepSpeedConfig
from types import SimpleNamespace

arguments = TrainingArguments(output_dir=sys.argv[2], per_device_train_batch_size=4, gradient_accumulation_steps=2,
                              max_grad_norm=0.5, learning_rate=1e-3, report_to="none")
read = HfTrainerDeepSpeedConfig(sys.argv[1])
read.trainer_config_process(arguments)
model = SimpleNamespace(config=SimpleNamespace(hidden_size=64))
read.trainer_config_finalize(arguments, model, 100)
config = DeepSpeedConfig(read.config)
zero = config.zero_config
print(json.dumps({
    "stage": int(zero.stage), "overlap": zero.overlap_comm, "clip": config.gradient_clipping,
    "batch": config.train_micro_batch_size_per_gpu, "accumulation": config.gradient_accumulation_steps,
    "optimizer_on": zero.offload_optimizer and zero.offload_optimizer.device, "auto": read.mismatches,
    "parameters_on": zero.offload_param and zero.offload_param.device,
    "gathers": zero.gather_16bit_weights_on_model_save,
}))
"""

READ_ACCELERATE = """
import json, os, sys
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_multi_gpu_env

arguments = launch_command_parser().parse_args([f"--config_file={sys.argv[1]}", "--num_processes=8", "script.py"])
arguments, *_ = _validate_launch_command(arguments)
os.environ |= prepare_multi_gpu_env(arguments)
plugin = FullyShardedDataParallelPlugin()
print(json.dumps({
    "processes": arguments.num_processes, "use_fsdp": arguments.use_fsdp,
    "precision": os.environ["ACCELERATE_MIXED_PRECISION"],
    "version": plugin.fsdp_version, "reshard": plugin.reshard_after_forward, "saved": plugin.state_dict_type.name,
    "wraps": plugin.auto_wrap_policy.__name__, "offload": type(plugin.cpu_offload).__name__,
}))
"""


def test_the_files_say_what_the_names_stand_for():
    """So that a file to begin from differs from `training.deepspeed=zero3` in nothing yet."""
    assert {path.stem: json.loads(path.read_text()) for path in DEEPSPEED} == {
        name: read_deepspeed(name) for name in LAYOUTS
    }


def read(program: str, *words: str | Path) -> dict[str, Any]:
    """What a program prints last, run in a process of its own: both libraries look at the environment on import."""
    environment = os.environ | {
        "DS_ACCELERATOR": "cpu",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = [sys.executable, "-c", program, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("file", DEEPSPEED, ids=lambda file: file.stem)
def test_deepspeed_reads_every_file_as_transformers_fills_it_in(file: Path, tmp_path: Path) -> None:
    stage = int(file.stem.removeprefix("zero")[0])
    offloaded = "cpu" if file.stem.endswith("offload") else None
    found = read(READ_DEEPSPEED, file, tmp_path)
    assert found.pop("overlap") is True
    assert found.pop("gathers") is (stage == 3)  # or only placeholders would be saved
    assert found == {
        "stage": stage,
        "clip": 0.5,
        "batch": 4,
        "accumulation": 2,
        "optimizer_on": offloaded,
        "parameters_on": offloaded,
        "auto": [],
    }


@pytest.mark.slow
def test_accelerate_reads_the_fsdp_file_as_its_launcher_does() -> None:
    assert read(READ_ACCELERATE, INFRA / "accelerate" / "fsdp.yaml") == {
        "processes": 8,
        "use_fsdp": True,
        "precision": "bf16",
        "version": 2,
        "reshard": True,
        "saved": "FULL_STATE_DICT",
        "wraps": "transformer_auto_wrap_policy",
        "offload": "OffloadPolicy",
    }


def test_the_two_stages_of_zero_are_as_they_are_named() -> None:
    stages = {file.stem: json.loads(file.read_text())["zero_optimization"]["stage"] for file in DEEPSPEED}
    assert stages == {"zero2": 2, "zero3": 3, "zero3-offload": 3}
