"""The configurations that come along, by name: the presets of the forms."""

from pathlib import Path
from typing import Any

import yaml

from deployments.service.config import ROOT

CONFIGS = ROOT / "deployments" / "configs"


def read_presets(folder: Path = CONFIGS) -> dict[str, dict[str, Any]]:
    """Every configuration by its file's name without ending.

    prefect.yaml calls this as a build step, so that `{{ presets.demo }}` there is all of configs/demo.yaml.
    """
    files = sorted(folder.glob("*.yaml"))
    return {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in files}


def project_root() -> dict[str, str]:
    """The project's folder, for prefect.yaml as well."""
    return {"directory": str(ROOT)}
