"""Several faults of one kind in one message."""

from collections.abc import Sequence

from tasks.core.errors import UserError

MOST_SHOWN = 5


def refuse(faults: Sequence[str], *, field: str, mend: str) -> None:
    """Raise UserError naming the first faults and how many there are; do nothing without any."""
    if not faults:
        return
    more = [f"and {len(faults) - MOST_SHOWN} more"] if len(faults) > MOST_SHOWN else []
    raise UserError("\n    ".join([*faults[:MOST_SHOWN], *more]), field=field, mend=mend)
