"""What infra/ gives to containers, as it is run here: Compose files with their variables filled in, and a container's
command as a process of this machine."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
INFRA = ROOT / "infra"
COMPOSE = INFRA / "compose" / "compose.yaml"

SECRETS = {
    name: f"a{name.lower().replace('_', '')}1"
    for name in re.findall(r"^(\w+)=", (INFRA / "compose" / "example.env").read_text(), re.MULTILINE)
}
"""A value for every variable of infra/compose/example.env."""
SECRETS["PREFECT_SERVER_API_AUTH_STRING"] = "ann:secretofprefect"


def compose_stack(variables: Mapping[str, str], file: Path = COMPOSE) -> dict[str, Any]:
    """The Compose file with `${NAME:?message}` and `${NAME:-value}` filled in; KeyError where there is no value."""

    def fill(found: re.Match[str]) -> str:
        name, kind, text = found.groups()
        return variables.get(name, text) if kind == "-" else variables[name]

    text = re.sub(r"\$\{(\w+):([-?])([^}]*)\}", fill, file.read_text(encoding="utf-8"))
    content: dict[str, Any] = yaml.safe_load(text)
    return content


def start_command(
    command: Sequence[str], environment: Mapping[str, str], replaced: Mapping[str, str], log: Path
) -> "subprocess.Popen[bytes]":
    """Start a container's command in the project's folder; what only a container has is replaced in its words and
    variables: addresses of services, folders, ports. Output goes to `log`."""

    def here(text: str) -> str:
        for given, ours in replaced.items():
            text = text.replace(given, ours)
        return text

    programs = Path(sys.executable).parent
    kept = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
    ours = {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    with log.open("wb") as file:
        return subprocess.Popen(
            [here(word) for word in command],
            cwd=ROOT,
            env=kept | {name: here(value) for name, value in environment.items()} | ours,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
