"""The FSDP configuration that the project ships, for a machine without GPUs."""

from pathlib import Path

import yaml

SHIPPED = Path(__file__).parents[1] / "infra" / "accelerate" / "fsdp.yaml"


def write_fsdp_config(path: Path) -> str:
    """Write it to `path`: processes on CPUs, in float32; all else is as it is shipped. Returns the path."""
    settings = yaml.safe_load(SHIPPED.read_text()) | {"use_cpu": True, "mixed_precision": "no"}
    path.write_text(yaml.safe_dump(settings))
    return str(path)
