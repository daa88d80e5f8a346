"""What a loop asked of its teacher, iteration by iteration."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.core.examples import read_records
from tasks.report.records import IterationRecord


@dataclass
class Usage:
    """What one iteration asked of the teacher."""

    iteration: int
    requests: int = 0
    rows: int = 0
    failed: int = 0
    unreadable: int = 0
    cut: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


def teacher_usage(records: Sequence[IterationRecord]) -> tuple[list[Usage], list[tuple[str, int]]]:
    """The usage of every iteration that asked a teacher, and the errors with their counts, most first."""
    usages, errors = [], Counter[str]()
    for record in records:
        usage = Usage(record.number)
        for exchange in (line for ref in record.exchanges for line in read_records(ref)):
            failed = exchange["finish"] == "error"
            usage.requests += 1
            usage.rows += exchange["rows"]
            usage.failed += failed
            usage.unreadable += not failed and not exchange["rows"]
            usage.cut += exchange["finish"] == "length"
            usage.prompt_tokens += exchange["prompt_tokens"]
            usage.completion_tokens += exchange["completion_tokens"]
            if failed:
                errors[exchange["error"]] += 1
        if usage.requests:
            usages.append(usage)
    return usages, sorted(errors.items(), key=lambda item: (-item[1], item[0]))
