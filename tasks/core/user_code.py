"""What a user's own code is, for cache keys: the module that is named, and what it imports from beside it."""

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

_OURS = ("tasks", "flows")
"""Packages of this project, whose code is in every stage's key already."""
_INSTALLED = ("site-packages", "dist-packages")


def user_code_digest(module: str, file: Path) -> str:
    """SHA-256 of the source of a module and of every module beside it that it imports, directly or not.

    `file` is the module's own. Beside it is what lies in the folder that the module was found in (of an installed
    package, the package alone). Nothing is imported. Code that is read or imported by a computed name is not seen.
    """
    package = file.name == "__init__.py"
    root = file.absolute().parents[module.count(".") + package]
    within = module.split(".")[0] if root.name in _INSTALLED else ""
    sources: dict[str, bytes] = {}
    waiting = [(module, file, package)]
    while waiting:
        name, path, package = waiting.pop()
        if name in sources:
            continue
        sources[name] = path.read_bytes()
        for imported in _imports(sources[name], name if package else name.rpartition(".")[0]):
            top = imported.split(".")[0]
            if top not in _OURS and within in ("", top) and (found := _source(root, imported)):
                waiting.append((imported, found, found.name == "__init__.py"))
    parts = (f"{name} {hashlib.sha256(sources[name]).hexdigest()}\n" for name in sorted(sources))
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def _imports(source: bytes, package: str) -> Iterator[str]:
    """Names that may be modules which a source imports, with the packages they are in; `package` is its own."""
    try:
        tree = ast.parse(source)
    except SyntaxError:  # importing it will say so
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in filter(None, names):
            parts = name.split(".")
            yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _source(root: Path, name: str) -> Path | None:
    place = root.joinpath(*name.split("."))
    candidates = (place / "__init__.py", place.with_name(f"{place.name}.py"))
    return next((path for path in candidates if path.is_file()), None)
