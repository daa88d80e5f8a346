"""Data sets of the Hugging Face hub."""

import re
from typing import Any

from tasks.core.errors import UserError
from tasks.data.formats import Row

PREFIX = "hub:"
_ADDRESS = re.compile(
    r"hub:(?P<name>[\w.-]+/[\w.-]+)(?:/(?P<configuration>[\w.-]+))?(?::(?P<split>[\w.-]+))?"
)


def read_hub(address: str, field: str, split: str) -> list[Row]:
    """The rows of hub:owner/name, hub:owner/name:split or hub:owner/name/configuration:split.

    `split` is taken when the address names none. Class numbers become the names of their classes, -1 (the
    hub's "not labelled") an empty cell. Raises UserError for what cannot be loaded.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise UserError(
            f"{address} is no hub address",
            field=field,
            mend="write hub:owner/name, hub:owner/name:split or hub:owner/name/configuration:split",
        )
    from datasets import ClassLabel, load_dataset
    from datasets.exceptions import DatasetsError

    try:
        loaded = load_dataset(match["name"], match["configuration"], split=match["split"] or split)
    except (DatasetsError, OSError, ValueError) as error:
        raise UserError(
            f"{address} cannot be loaded: {error}",
            field=field,
            mend="check owner, name, split and the network; a configuration is hub:owner/name/configuration",
        ) from error
    classes = {name: kind for name, kind in loaded.features.items() if isinstance(kind, ClassLabel)}

    def named(row: dict[str, Any]) -> dict[str, Any]:
        numbers = {name: row[name] for name in classes}
        return row | {
            name: None if n in (None, -1) else classes[name].int2str(n) for name, n in numbers.items()
        }

    return [(f"{address}, row {number}", named(row)) for number, row in enumerate(loaded, 1)]
