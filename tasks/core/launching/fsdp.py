"""PyTorch's FSDP, where an accelerate configuration file asks for it."""

import os
from pathlib import Path

import yaml

from tasks.core.errors import UserError


def asks_for_fsdp(launcher: str, config_file: str) -> bool:
    """Whether trainings that are launched so are shared by FSDP; False for a file that is missing, which `check_launch`
    refuses, or no mapping. Raises UserError for a file that is no YAML."""
    if launcher != "accelerate" or not Path(config_file).is_file():
        return False
    try:
        settings = yaml.safe_load(Path(config_file).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(
            f"{config_file} is no YAML: {str(error).splitlines()[0]}",
            field="launch.config_file",
            mend="name a file that `accelerate config` has written",
        ) from error
    return isinstance(settings, dict) and settings.get("distributed_type") == "FSDP"


def in_fsdp() -> bool:
    """Whether accelerate's launcher has told this process to share its training by FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP") == "true"


def holds_a_part() -> bool:
    """Whether this is one of several processes that FSDP shares a model among. A stage that is no training runs in one
    process, launched as trainings are."""
    return in_fsdp() and int(os.environ.get("WORLD_SIZE", "1")) > 1
