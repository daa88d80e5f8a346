"""PyTorch's FSDP, where an accelerate configuration file asks for it."""

import os
from pathlib import Path

import yaml


def asks_for_fsdp(launcher: str, config_file: str) -> bool:
    """Whether trainings that are launched so are shared by FSDP; False for a file that is missing or no mapping, of
    which the launcher says more."""
    if launcher != "accelerate" or not Path(config_file).is_file():
        return False
    settings = yaml.safe_load(Path(config_file).read_text(encoding="utf-8"))
    return isinstance(settings, dict) and settings.get("distributed_type") == "FSDP"


def in_fsdp() -> bool:
    """Whether accelerate's launcher has told this process to share its training by FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP") == "true"
