"""What can go wrong, as a user sees it: every message names the fault and how to mend it."""


class UserError(Exception):
    """A mistake the user can mend: shown as one message without a traceback, exit code 2.

    `field` is the configuration field at fault ("data.train"), `fault` what is wrong, `mend` what to do.
    """

    def __init__(self, fault: str, *, field: str = "", mend: str = "") -> None:
        self.field, self.fault, self.mend = field, fault, mend
        super().__init__(f"{field}: {fault}" if field else fault, mend)

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        return f"{where}{self.fault}" + (f"\n  {self.mend}" if self.mend else "")

    def __reduce__(self) -> tuple[object, ...]:
        return _user_error, (self.fault, self.field, self.mend)


def _user_error(fault: str, field: str, mend: str) -> UserError:
    return UserError(fault, field=field, mend=mend)


class DamagedArtifact(Exception):
    """A stored artifact whose bytes are not those of its manifest; names the folder and the file."""

    def __init__(self, uri: str, file: str, reason: str) -> None:
        self.uri, self.file, self.reason = uri, file, reason
        super().__init__(uri, file, reason)

    def __str__(self) -> str:
        return f"damaged artifact {self.uri}: {self.file}: {self.reason}"


class StageFailed(Exception):
    """A stage's own process ended without a result; carries the tail of its log and, if known, the mend.

    `passing` is true when another try, which goes on from the last checkpoint, may well succeed.
    """

    def __init__(
        self, stage: str, reason: str, *, log_tail: str = "", mend: str = "", passing: bool = False
    ) -> None:
        self.stage, self.reason, self.log_tail, self.mend = stage, reason, log_tail, mend
        self.passing = passing
        super().__init__(stage, reason)

    def __str__(self) -> str:
        parts = [f"stage {self.stage}: {self.reason}"]
        if self.mend:
            parts.append(f"  {self.mend}")
        if self.log_tail:
            parts.append(
                "  the end of its log:\n" + "\n".join(f"    {line}" for line in self.log_tail.splitlines())
            )
        return "\n".join(parts)
