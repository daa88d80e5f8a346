"""What a disk or an object store refuses, as messages that name the mend."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from tasks.core.errors import UserError

_KEYS = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"


@contextmanager
def mendable(root: str, field: str = "store") -> Iterator[None]:
    """Turn the refusals of what lies at `root`, a folder or an address, into UserErrors of the field.

    What passes (500, 503, a connection that is cut) has been tried again by those who transfer before it comes here. A
    file that is not there stays a FileNotFoundError, unless the bucket is not there either.
    """
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except (OSError, BotoCoreError, ClientError) as error:
        code = error_code(error)
        if code == "NoSuchBucket":
            raise UserError(
                f"{root} cannot be used: the bucket does not exist",
                field=field,
                mend="check the spelling; a bucket has to exist",
            ) from error
        if code == "RequestTimeTooSkewed":
            raise clocks_apart(root, field) from error
        if isinstance(error, FileNotFoundError):
            raise
        if isinstance(error, PermissionError | NoCredentialsError) or code in _FORBIDDEN:
            raise UserError(
                f"no permission to write to {root}: {error}",
                field=field,
                mend=f"give a folder you own, or credentials for the bucket ({_KEYS})",
            ) from error
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"the disk beneath {root} is full", field=field, mend="free some space, or give another store"
            ) from error
        if "://" in root or not isinstance(error, OSError):
            raise UserError(
                f"{root} does not answer: {error}",
                field=field,
                mend="check that the object store runs and is reachable (AWS_ENDPOINT_URL)",
            ) from error
        if error.errno in (errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise UserError(
                f"{root} cannot be written to: {error.strerror}", field=field, mend="give a folder you own"
            ) from error
        raise


def error_code(error: BaseException | None) -> str:
    """What an object store called its refusal ("NoSuchBucket"); empty for every other error.

    s3fs makes Python's errors of such answers and keeps the answer as their cause.
    """
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            code = str(response.get("Error", {}).get("Code", ""))
            return "RequestTimeTooSkewed" if code == "403" and _apart(response) else code
        error = error.__cause__ or error.__context__
    return ""


def _apart(response: dict[str, Any]) -> bool:
    """Whether the server's clock is further from ours than S3 allows; a refused HEAD has no text that would say so."""
    told = response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    try:
        return abs(parsedate_to_datetime(told) - datetime.now(UTC)) > timedelta(minutes=15)
    except (TypeError, ValueError):
        return False


_FORBIDDEN = {
    "403",
    "AccessDenied",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
}


def clocks_apart(root: str, field: str) -> UserError:
    """The message for RequestTimeTooSkewed."""
    return UserError(
        f"{root} refuses what this machine signs: its clock and the server's are too far apart",
        field=field,
        mend="set the clock of this machine (timedatectl set-ntp true), or the server's",
    )
