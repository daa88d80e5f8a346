"""Where what a cached result refers to lies on this machine.

A result that another machine left names by path what never went into the store: the folder that a model was given as.
This run was given that model as well, and knows it by its digest, wherever it lies here.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from tasks.core.store import relocate

R = TypeVar("R", bound=BaseModel)


class Whereabouts:
    """The places that the results of a run have named, by the digest of what lies there."""

    def __init__(self) -> None:
        self._places: dict[str, str] = {}

    def here(self, result: R) -> R:
        """The result, its references to what is not here pointing to where this run has met the same content; the
        places of the others are remembered. What was met nowhere stays as it is, and `fetch` names it."""
        found = result.model_dump(mode="json")
        moved = dict(self._moved(found))
        for old, new in moved.items():
            found = relocate(found, old, new)
        return type(result).model_validate(found) if moved else result

    def _moved(self, value: Any) -> Iterator[tuple[str, str]]:
        if isinstance(value, list | dict):
            for item in value.values() if isinstance(value, dict) else value:
                yield from self._moved(item)
        if not isinstance(value, dict):
            return
        uri, digest = value.get("uri"), value.get("digest")
        if not isinstance(uri, str) or not isinstance(digest, str):
            return
        if "://" in uri or Path(uri).exists():
            self._places.setdefault(digest, uri)
        elif digest in self._places:
            yield uri, self._places[digest]
