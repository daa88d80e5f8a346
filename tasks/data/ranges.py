"""Columns of a remote Parquet file, read by ranges: what is not asked for stays where it is."""

from collections.abc import Sequence

from tasks.core.errors import UserError
from tasks.core.refusals import error_code
from tasks.data.formats import Row
from tasks.data.sources import DataFile, mendable_source

RANGES_FROM = 4 << 20
"""Bytes from which a file is worth several requests."""


def by_ranges(file: DataFile, columns: Sequence[str]) -> bool:
    """Whether a file is read by ranges: remote, Parquet, not small, and some columns are enough."""
    return (
        bool(columns) and file.remote and file.size >= RANGES_FROM and file.name.lower().endswith(".parquet")
    )


def parquet_columns(file: DataFile, columns: Sequence[str], field: str) -> list[Row]:
    """The rows of a remote Parquet file with these columns only; with all of them when it lacks one, so that a message
    can name what there is. Raises UserError as reading the whole file does."""
    import pyarrow
    import pyarrow.parquet

    with mendable_source(file.name, field), file.files.open(file.path, "rb", cache_type="none") as source:
        try:
            parquet = pyarrow.parquet.ParquetFile(source, pre_buffer=True)
            there = set(columns) <= set(parquet.schema_arrow.names)
            values = parquet.read(columns=list(columns) if there else None).to_pylist()
        except (pyarrow.ArrowException, OSError) as error:
            if error_code(error) or isinstance(error, ConnectionError | PermissionError | TimeoutError):
                raise
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"{file.name} is not whole Parquet: {reason}", field=field, mend="write it again"
            ) from error
    return [(f"{file.name}, row {number}", value) for number, value in enumerate(values, 1)]
