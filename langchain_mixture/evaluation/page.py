"""A comparison as a page: one HTML file that needs no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from langchain_mixture.evaluation.found import Found
from langchain_mixture.evaluation.table import after, before, cells, columns
from langchain_mixture.seeing.page import rendered

SHOWN: Final = 50
"""Questions of each list that are written out, at most."""


def page(found: Found, *, whole: bool = True) -> str:
    """Return the page, or without `whole` what a notebook puts into its own."""
    lists = [
        (f"{title} by {mixture}", questions)
        for mixture in found.verdicts
        for title, questions in (
            ("Rescued", found.rescued(mixture)),
            ("Broken", found.broken(mixture)),
        )
    ]
    return rendered(
        Path(__file__).parent,
        "page.html.jinja",
        extra="evaluation",
        found=found,
        whole=whole,
        before=before(found),
        after=after(found),
        columns=[name for name, _ in columns(found)],
        rows=[(row, cells(found, row)) for row in found.rows],
        points=_points(found),
        lists=[*lists, ("Missed by all", found.missed)],
        shown=SHOWN,
    )


LEAST: Final = 0.2
"""How much of the scale from 0 to 1 the picture of shares covers, at least."""

_LEFT, _TOP, _WIDTH, _HEIGHT = 50.0, 10.0, 560.0, 240.0


def _points(found: Found) -> dict[str, Any]:
    """Place the candidates in a picture, score against cost (or tokens)."""
    rows = found.rows
    if not rows:
        return {}
    priced = all(row["cost"] is not None for row in rows)
    costs = [row["cost"] * 1000 if priced else row["tokens"] for row in rows]
    scores = [row["score"] for row in rows]
    most = max(costs) or 1.0
    low, high = min(scores), max(scores)
    shares = all(0 <= score <= 1 for score in scores)
    room = (high - low) * 0.15 or 0.05
    if shares:  # a point or two of a hundred must not look like a gulf
        room = max(room, (LEAST - (high - low)) / 2)
    low, high = low - room, high + room
    if shares:
        low, high = max(0.0, low), min(1.0, high)
    places = [
        {
            "x": round(_LEFT + _WIDTH * cost / most, 1),
            "y": round(_TOP + _HEIGHT * (high - score) / (high - low), 1),
            "row": row,
            "turned": cost / most > 0.6,  # else the name would leave the picture
        }
        for row, cost, score in zip(rows, costs, scores, strict=True)
    ]
    marks = [low + (high - low) * part / 4 for part in range(5)]
    return {
        "places": places,
        "across": "dollars per 1,000 answers" if priced else "tokens per answer",
        "most": f"{most:,.2f}" if priced else f"{most:,.0f}",
        "marks": [
            (
                round(_TOP + _HEIGHT * (high - mark) / (high - low), 1),
                f"{mark:.1%}" if shares else f"{mark:.2f}",
            )
            for mark in marks
        ],
    }
