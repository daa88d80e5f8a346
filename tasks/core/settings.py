"""Where things are kept on this machine: one folder, `LOOPWRIGHT_HOME`, by default `.loopwright` in the current one."""

import os
import re
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError

_USER = re.compile(r"(\w://)[^/\s@]+@")


def home() -> Path:
    """The folder that holds the store, Prefect's database and MLflow's, unless each is pointed elsewhere."""
    return Path(os.environ.get("LOOPWRIGHT_HOME", ".loopwright")).absolute()


def cache_folder() -> Path:
    """Local copies of remote artifacts and the working folders of remote stores; safe to delete."""
    return home() / "cache"


def cache_limit() -> int | None:
    """Bytes that local copies of remote artifacts may take: LOOPWRIGHT_CACHE_GB (10^9 bytes each); None without it."""
    gigabytes = _number("LOOPWRIGHT_CACHE_GB", 0.0, least=0.0, most=1e9)
    return int(gigabytes * 10**9) or None


def transfers_at_once() -> int:
    """Requests to an object store that are under way at once in one copy of files: LOOPWRIGHT_TRANSFERS, or 8."""
    return int(_number("LOOPWRIGHT_TRANSFERS", 8, least=1, most=256))


def default_store() -> str:
    """The artifact store when the configuration names none."""
    return os.environ.get("LOOPWRIGHT_STORE", str(home() / "store"))


def default_tracking_uri() -> str:
    """MLflow's address when the configuration names none: `MLFLOW_TRACKING_URI`, or a SQLite file at home."""
    return os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{home() / 'mlflow.db'}")


def without_password(value: Any) -> Any:
    """A text, or what is made of texts, with addresses that name no user and no password (`postgresql://ann:…@host`)."""
    if isinstance(value, str):
        return _USER.sub(r"\1…@", value)
    if isinstance(value, dict):
        return {name: without_password(item) for name, item in value.items()}
    return [without_password(item) for item in value] if isinstance(value, list | tuple) else value


def _number(name: str, default: float, *, least: float, most: float) -> float:
    """A number of the environment. Raises UserError when it is none, or out of bounds."""
    text = os.environ.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise UserError(
            f"{text!r} is no number from {least:g} to {most:g}", field=name, mend=f"unset it for {default:g}"
        )
    return value


def set_environment() -> None:
    """Point Prefect at home and turn telemetry off, unless the user's environment says otherwise.

    Must run before Prefect is imported.
    """
    defaults = {
        "PREFECT_HOME": str(home() / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",  # the terminal has our own progress
        "DO_NOT_TRACK": "1",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    home().mkdir(parents=True, exist_ok=True)  # Prefect makes its own folder, but not the one above
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
