"""The command line: `python -m flows` lists flows and commands, `python -m flows NAME …` runs one."""

import ast
import importlib
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tasks.core.command_line import fail, read_config
from tasks.core.errors import DamagedArtifact, StageFailed, UserError
from tasks.core.settings import set_environment
from tasks.core.temporary_server import tie_to_this_process

COMMANDS = {
    "compare": "tasks.compare.command:run_compare",
    "compress-text": "tasks.compress.command:run_compress_text",
    "plan": "tasks.plan.command:run_plan",
    "prune": "tasks.prune.command:run_prune",
}
"""Commands that are no flows, each with its function, which takes the arguments and returns the exit code."""


def flow_names() -> dict[str, str]:
    """Every flow with the first line of its module's docstring. A module of this package is a flow of its name."""
    files = sorted(Path(__file__).parent.glob("[a-z]*.py"))
    return {file.stem.replace("_", "-"): _first_line(file) for file in files}


def command_names() -> dict[str, str]:
    """Every command that is no flow, with the first line of its module's docstring."""
    root = Path(__file__).parents[1]
    files = {name: place.partition(":")[0].replace(".", "/") for name, place in COMMANDS.items()}
    return {name: _first_line(root / f"{file}.py") for name, file in files.items()}


def main(arguments: list[str]) -> int:
    """Run a command; returns its exit code."""
    flows, commands = flow_names(), command_names()
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, [*flows, *commands]))
        for names in (flows, commands):
            print("\n".join(f"{name:<{width}}  {words}" for name, words in names.items()))
        return 0
    name = arguments[0]
    try:
        if name not in flows and name not in commands:
            there = f"there are: {', '.join([*flows, *commands])}"
            raise UserError(f"there is no flow and no command {name}", mend=there)
        set_environment()
        if name in commands:
            return _command(name)(arguments[1:])
        module = _module(name)
        config = read_config(module.CONFIG, f"python -m flows {name}", arguments[1:])
        module.check(config)  # before Prefect starts, so that a mistake is answered at once
        _quiet_tracebacks()
        tie_to_this_process()
        # An orderly end, so that Prefect's temporary server ends as well; without it a SIGTERM would leave it behind.
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        result = module.FLOW(config)
    except (UserError, StageFailed, DamagedArtifact) as error:
        return fail(error)
    except KeyboardInterrupt:
        # What is left takes seconds; a second Ctrl-C would only tear it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("\ncancelled; the same command goes on from here", file=sys.stderr)
        return 130
    print(result.summary(), file=sys.stderr, flush=True)
    print(result.model_dump_json(), flush=True)
    return 0


def _module(flow: str) -> Any:
    return importlib.import_module(f"flows.{flow.replace('-', '_')}")


def _command(name: str) -> Callable[[Sequence[str]], int]:
    """The command's function; a plan needs to know the flows, which no task may import."""
    module, _, function = COMMANDS[name].partition(":")
    found: Callable[..., int] = getattr(importlib.import_module(module), function)
    return partial(found, flow_names(), lambda flow: _module(flow).CONFIG) if name == "plan" else found


def _first_line(file: Path) -> str:
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split("\n")[0]


_OF_CTRL_C = "Execution was aborted by an interrupt signal."
"""Prefect's words, once for every task and flow that ends with it."""


class _UnlessToldByMain(logging.Filter):
    """Keeps the errors that `main` prints itself out of the terminal; Prefect's own log has them with traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        error: Any = record.exc_info[1] if record.exc_info else None
        told = isinstance(error, UserError | StageFailed | DamagedArtifact | KeyboardInterrupt)
        return not told and _OF_CTRL_C not in record.getMessage()


def _quiet_tracebacks() -> None:
    from prefect.logging.configuration import setup_logging

    setup_logging()
    for handler in logging.root.handlers:
        handler.addFilter(_UnlessToldByMain())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
