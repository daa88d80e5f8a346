"""A plan as text: a row per stage, and a line per device."""

from collections.abc import Iterable, Sequence

from tasks.plan.devices import DEVICES, Verdict
from tasks.plan.estimate import Estimate
from tasks.plan.memory import GB, PARTS, needed
from tasks.plan.speed import SPEEDS
from tasks.plan.stages import StagePlan
from tasks.plan.storage import Stored
from tasks.plan.traffic import Traffic

_NARROWEST = 6


def stage_table(stages: Sequence[StagePlan], separate: StagePlan | None) -> str:
    """GB of each part at each stage's fullest moment; beneath a line what four separate models would take."""
    heads = ["GB", *PARTS, "sum", "fullest when"]
    rows = [_row(stage) for stage in stages]
    apart = [_row(separate)] if separate else []
    first = max(len(row[0]) for row in [heads, *rows, *apart])
    lines = [_line(row, first) for row in (heads, *rows)]
    if apart:
        lines += ["-" * len(lines[0]), *(_line(row, first) for row in apart)]
    return "\n".join(lines)


def host_lines(stages: Sequence[StagePlan], devices: int) -> list[str]:
    """What stages keep in the main memory of the machine beside so many devices; nothing where nothing is offloaded."""
    return [
        f"{stage.name} offloads {stage.memory.host / GB:,.1f} GB for each device, in all "
        f"{stage.memory.host * devices / GB:,.1f} GB of main memory"
        for stage in stages
        if stage.memory.host
    ]


def verdict_line(verdict: Verdict) -> str:
    """What a device holds, and what to change."""
    device = f"{verdict.gigabytes:g} GB"
    if verdict.fits:
        return f"{device:>7}  holds every stage"
    words = f"{device:>7}  too small for {', '.join(verdict.too_large)}"
    if verdict.flags:
        words += f"; with {' '.join(verdict.flags)} it holds "
        words += "them" if not verdict.hopeless else "all but " + ", ".join(verdict.hopeless)
    elif verdict.hopeless:
        words += "; no setting known here is enough: several devices, or a smaller model"
    return words


ASSUMED = (
    "Counted from rows and tokens as given (see --help), with 35 % of a device's peak in training, 40 % where prompts "
    "are read, half of its bandwidth where tokens are written, and prices of an hour of "
    + ", ".join(f"${speed.price:g} ({speed.name})" for speed in SPEEDS.values())
    + "."
)


def estimate_line(estimate: Estimate) -> str:
    """Hours and dollars on one kind of device, and how to ask for the layout."""
    device = f"{estimate.device:>12} "
    if estimate.layout is None:
        return f"{device} its trainings fit in no layout that is known here"
    many = estimate.layout.devices
    words = f"{device} {many} x {estimate.gigabytes:.0f} GB: {estimate.total:,.1f} hours"
    words += f", ${estimate.dollars:,.0f}" if estimate.dollars else ""
    longest = sorted(estimate.hours, key=lambda stage: -estimate.hours[stage])[:3]
    words += " (" + ", ".join(f"{stage} {estimate.hours[stage]:,.1f}" for stage in longest) + ")"
    if estimate.host:
        words += f"; {estimate.host / GB:,.0f} GB of main memory"
    if estimate.flags:
        words += f"; {' '.join(estimate.flags)}"
    if estimate.spread:
        words += "; spread by a server or vLLM: " + ", ".join(
            f"{stage} over {over}" for stage, over in estimate.spread.items()
        )
    if estimate.too_large:
        words += f"; too large for the one device that does it alone: {', '.join(estimate.too_large)}"
    return words


def stored_line(parts: Iterable[Stored]) -> str:
    """What a call of every stage leaves and holds."""
    every = list(parts)
    left, held = (
        sum(part.model for part in every),
        max((part.checkpoints for part in every), default=0.0),
    )
    return (
        f"Store: {left / GB:.2f} GB from one call of every stage (a loop leaves as much again in every iteration); "
        f"checkpoints take {held / GB:.2f} GB of disk."
    )


def traffic_line(run: Traffic) -> str:
    """What a run on a store on S3 sends and reads."""
    words = f"With a store on S3 the whole run sends {run.results / GB:,.2f} GB of models"
    if run.mirrored:
        words += f" and {run.checkpoints / GB:,.2f} GB of checkpoints ({run.mirrored}, mirrored as they are written)"
    return f"{words}, and every machine reads {run.read / GB:,.2f} GB: {run.total / GB:,.2f} GB with one machine."


def comparison(rows: Sequence[tuple[str, Sequence[StagePlan], StagePlan | None]]) -> str:
    """A Markdown table of several models: GB that a GPU has to have for the stages of each, the reserve included."""
    names = [stage.name for stage in rows[0][1]]
    extra = ["PPO with four models"] if rows[0][2] else []
    lines = ["| model | " + " | ".join([*names, "smallest GPU", *extra]) + " |"]
    lines.append("|---" + "|---:" * (len(names) + 1 + len(extra)) + "|")
    for model, stages, separate in rows:
        sizes = [needed(stage.memory.total) / GB for stage in stages]
        cells = [f"{size:.1f}" for size in sizes]
        smallest = next((f"{size} GB" for size in DEVICES if max(sizes) <= size), "none")
        apart = [f"{needed(separate.memory.total) / GB:.1f}"] if separate else []
        lines.append(f"| {model} | " + " | ".join([*cells, smallest, *apart]) + " |")
    return "\n".join(lines)


def _row(stage: StagePlan) -> list[str]:
    sizes = [*(getattr(stage.memory, name) for name in PARTS), stage.memory.total]
    return [stage.name, *(f"{size / GB:.2f}" if size else "" for size in sizes), stage.memory.moment]


def _line(cells: Sequence[str], first: int) -> str:
    name, *figures, moment = cells
    widths = [max(_NARROWEST, len(part)) for part in (*PARTS, "sum")]
    columns = [f"{figure:>{width}}" for figure, width in zip(figures, widths, strict=True)]
    return " ".join([f"{name:<{first}}", *columns]) + f"  {moment}"
