"""A comparison as a table, for a terminal."""

from __future__ import annotations

from typing import Any, Final

from langchain_mixture.evaluation.found import Found
from langchain_mixture.evaluation.needs import needed

_WIDTH: Final = 110
"""Columns of a table that is printed as text."""


def as_text(found: Found) -> str:
    """Return a comparison as plain text."""
    console = needed("rich.console").Console(
        width=_WIDTH, color_system=None, force_terminal=False, record=False, file=None
    )
    with console.capture() as captured:
        for part in _parts(found):
            console.print(part, soft_wrap=True)
    return str(captured.get()).rstrip()


def as_group(found: Found) -> Any:
    """Return a comparison as what rich prints."""
    return needed("rich.console").Group(*_parts(found))


def _parts(found: Found) -> list[Any]:
    text = needed("rich.text").Text
    return [
        *map(text, before(found)),
        *(text(str(verdict)) for verdict in found.verdicts.values()),
        *([_table(found)] if found.rows else []),
        *map(text, after(found)),
    ]


def before(found: Found) -> list[str]:
    """Return what must be known before anything is read."""
    lines = []
    if found.agreed is not None:
        lines.append(
            f"The judge agreed with itself on {found.agreed:.0%} of the answers; "
            "everything below rests on it."
        )
    if found.left:
        why = f": {found.stopped}" if found.stopped else ""
        n = len(found.questions)
        lines.append(f"Not finished, {n} of {n + found.left} questions{why}.")
    return [*lines, *found.notes]


def after(found: Found) -> list[str]:
    """Return the ceilings, and how many questions were rescued and broken."""
    lines = []
    for mixture in found.verdicts:
        line = (
            f"{mixture}: {len(found.rescued(mixture))} questions rescued, "
            f"{len(found.broken(mixture))} broken."
        )
        if ceiling := found.ceilings.get(mixture):
            low, high = ceiling.interval
            line += (
                f" No member is right on {ceiling.missed:.1%} [{low:.1%}, {high:.1%}]; "
                f"headroom over its best one {ceiling.headroom:.1%}"
            )
            realised = found.realised(mixture)
            if realised is not None:
                used = f"{realised:.0%}" if realised > 0 else "nothing"
                line += f", of which {used} was used"
            line += "."
        lines.append(line)
    if found.questions:
        missed, asked = len(found.missed), len(found.questions)
        lines.append(f"All miss {missed:,} of {asked:,} questions.")
    spent = "" if found.spent is None else f" for ${found.spent:,.4f}"
    lines.append(f"{found.calls:,} calls were made{spent}.")
    if found.failed:
        failed = ", ".join(f"{name}: {len(of)}" for name, of in found.failed.items())
        lines.append(
            "Without an answer, counted as wrong until a second run asks again: "
            f"{failed}."
        )
    return lines


def _table(found: Found) -> Any:
    table = needed("rich.table").Table(
        box=needed("rich.box").SIMPLE_HEAD, pad_edge=False
    )
    for name, align in columns(found):
        first = name == "candidate"
        table.add_column(
            name, justify=align, no_wrap=not first, min_width=16 if first else None
        )
    for row in found.rows:
        table.add_row(*cells(found, row))
    return table


def columns(found: Found) -> list[tuple[str, Any]]:
    """Return the names of the columns, and how each is aligned."""
    names = ["score", "difference", "calls", "tokens", "p50/p95 s"]
    if found.spent is not None:
        names += ["$/1,000", "$/right"]
    if found.failed:
        names.append("failed")
    return [("candidate", "left"), *((name, "right") for name in names)]


def cells(found: Found, row: dict[str, Any]) -> list[str]:
    """Return a row of the table as texts."""
    shares = all(0 <= one["score"] <= 1 for one in found.rows)
    times = 100 if shares else 1
    texts = [
        row["candidate"],
        f"{row['score'] * times:.1f}{'%' if shares else ''}",
        _difference(row, times),
        f"{row['calls']:.1f}",
        f"{row['tokens']:,.0f}",
        f"{row['p50']:.1f}/{row['p95']:.1f}",
    ]
    if found.spent is not None:
        cost = row["cost"]
        texts.append("no price" if cost is None else f"{cost * 1000:,.2f}")
        right = row["cost_per_right"]
        texts.append("" if right is None else f"{right:,.4f}")
    if found.failed:
        texts.append(str(row["failed"] or ""))
    return texts


def _difference(row: dict[str, Any], times: int) -> str:
    if row["interval"] is None:
        return "best single" if row["kind"] == "single" else ""
    low, high = (f"{end * times:+.1f}" for end in row["interval"])
    return f"{row['difference'] * times:+.1f} [{low}, {high}]"
