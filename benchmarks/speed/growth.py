"""How the overhead grows with the calls of a step, and with the steps.

python -m benchmarks.speed.growth [ROUNDS]
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.speed.measure import load, ratio, rounds, table
from benchmarks.speed.peers import PEERS, layers_of

SIZES: dict[str, list[tuple[str, int]]] = {
    **{f"{n} wide": [("propose", n), ("aggregate", 1)] for n in (6, 32, 128, 256)},
    **{
        f"{n} layers of 6": [
            ("propose", 6),
            *[("synthesize", 6)] * (n - 1),
            ("aggregate", 1),
        ]
        for n in (8, 32)
    },
}


def report(count: int = 9) -> Iterator[str]:
    """Yield the parts of the page's section."""
    rows: list[list[Any]] = []
    with asyncio.Runner() as runner:
        for name, shape in SIZES.items():
            layers = layers_of(shape)
            cases, builds = {}, {}
            for peer in ("static", "create_mixture"):
                begun = time.process_time()
                cases[peer] = PEERS[peer](shape, layers, None, False)
                builds[peer] = (time.process_time() - begun) * 1000
            spent = rounds(cases, runner.get_loop(), count)
            calls = sum(size for _, size in shape)
            ours, static = spent["create_mixture"], spent["static"]
            rows.append(
                [
                    name,
                    f"{ratio(ours, static):.2f}",
                    f"{statistics.median(ours) / calls * 1000:.0f}",
                    f"{statistics.median(static) / calls * 1000:.0f}",
                    f"{builds['create_mixture']:.0f}",
                    f"{builds['static']:.0f}",
                ]
            )
    head = [
        "Async, no checkpointer",
        "CPU over static",
        "µs a call",
        "static, µs a call",
    ]
    yield f"({load()})"
    yield table([*head, "build, ms", "static, build, ms"], rows)


if __name__ == "__main__":
    for part in report(*map(int, sys.argv[1:])):
        print(part, end="\n\n", flush=True)
