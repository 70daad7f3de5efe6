"""Measures everything, and writes the page `docs/speed.md`.

python -m benchmarks.speed            # as `make bench`: under ten minutes
python -m benchmarks.speed quick      # fewer rounds: in a minute, for a look
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.speed import (
    clients,
    crowd,
    growth,
    imports,
    latency,
    overhead,
    size,
)
from benchmarks.speed.measure import surroundings

PAGE = Path(__file__).parents[2] / "docs" / "speed.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

SECTIONS: dict[str, tuple[Callable[..., Iterator[str]], int, int]] = {
    "Overhead": (overhead.report, 15, 3),
    "Latency": (latency.report, 15, 2),
    "Growth": (growth.report, 9, 2),
    "What a thread holds": (size.report, 200, 10),
    "A thousand at once": (crowd.report, 1000, 50),
    "Import": (imports.report, 9, 2),
    "Wide and many": (clients.report, 5, 1),
}
"""What measures each, and with how many rounds, turns or runs; fewer for a look."""


def main(argument: str = "") -> None:
    """Measure, print, and put it into the page."""
    parts: list[Any] = [f"Measured on {surroundings()}."]
    print(parts[0], flush=True)
    for title, (report, full, quick) in SECTIONS.items():
        for part in (
            f"### {title}",
            *report(quick if argument == "quick" else full),
        ):
            print(f"\n{part}", flush=True)
            parts.append(part)
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    measured = "\n\n".join(parts)
    PAGE.write_text(f"{before}{BEGIN}\n\n{measured}\n\n{END}{after}")


if __name__ == "__main__":
    main(*sys.argv[1:])
