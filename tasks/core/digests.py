"""SHA-256 of files, folders and code."""

import ast
import hashlib
import importlib.util
import re
import sys
from functools import lru_cache
from pathlib import Path

_CHUNK = 1 << 22
_hashed: dict[
    tuple[str, int, int, int], str
] = {}  # a file already hashed by this process and not touched since


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    state = path.stat()
    identity = (str(path.resolve()), state.st_ino, state.st_size, state.st_mtime_ns)
    if identity not in _hashed:
        with path.open("rb") as file:
            _hashed[identity] = hashlib.file_digest(file, "sha256").hexdigest()
    return _hashed[identity]


def folder_files(folder: Path) -> list[Path]:
    """Every file beneath a folder, sorted by its relative path."""
    return sorted(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda p: p.relative_to(folder).as_posix()
    )


def folder_digest(folder: Path) -> str:
    """SHA-256 over the names and digests of a folder's files; where the folder lies does not matter."""
    lines = [f"{path.relative_to(folder).as_posix()} {file_digest(path)}\n" for path in folder_files(folder)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def path_digest(path: Path) -> str:
    """The digest of a file or of a folder."""
    return folder_digest(path) if path.is_dir() else file_digest(path)


# Modules that move, launch, log or show; what a stage computes does not depend on them.
_PLUMBING = {
    "artifacts",
    "command_line",
    "errors",
    "flow_result",
    "flow_run",
    "launching",
    "progress",
    "settings",
}
_PLUMBING |= {"stage", "store", "tracking"}


@lru_cache
def code_digest(module: str) -> str:
    """SHA-256 of a module's code and of every module of this project it imports, directly or not.

    Comments, blank lines and formatting do not count; a change in what a stage computes makes a new cache key.
    A module that is only named in a text ("tasks.problems.numeric:Numeric"), to be imported when it is chosen,
    counts as imported; page templates beside a module belong to it.
    """
    package = module.split(".")[0]
    seen: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen or name.removeprefix("tasks.core.").split(".")[0] in _PLUMBING:
            continue
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        seen[name] = ast.unparse(tree)
        templates = [path for path in Path(spec.origin).parent.iterdir() if path.suffix in (".jinja", ".css")]
        seen |= {f"{name} {path.name}": path.read_text(encoding="utf-8") for path in templates}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names if alias.name.split(".")[0] == package]
            elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == package:
                submodules = [f"{node.module}.{alias.name}" for alias in node.names]
                waiting += [node.module, *(name for name in submodules if _is_module(name))]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                waiting += re.findall(rf"^({package}(?:\.\w+)+):\w+$", node.value)
    text = "".join(f"{name}\n{seen[name]}\n" for name in sorted(seen))
    return hashlib.sha256(text.encode()).hexdigest()


def _is_module(name: str) -> bool:
    try:
        return name in sys.modules or importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the parent is a module, not a package: the name is one of its attributes
        return False
