"""Many mixtures at once in one process: throughput and memory.

python -m benchmarks.speed.crowd [HOW_MANY]
python -m benchmarks.speed.crowd HOW_MANY PEER    # one of them, as JSON
"""

from __future__ import annotations

import asyncio
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.speed.measure import load, table
from benchmarks.speed.peers import PEERS, SHAPES, layers_of


async def run(count: int, peer: str) -> dict[str, float]:
    """Run P2 so many times at once, with models that take 200 ms."""
    shape = SHAPES["P2"]
    one = PEERS[peer](shape, layers_of(shape, delay=0.2), None, False)
    await one()
    begun, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(one() for _ in range(count)))
    return {
        "cpu": time.process_time() - begun,
        "wall": time.perf_counter() - wall,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def report(count: int = 1000, pairs: int = 3) -> Iterator[str]:
    """Yield the parts of the page's section."""
    found: dict[str, list[dict[str, float]]] = {"static": [], "create_mixture": []}
    for _ in range(pairs):  # each in a process of its own, for its memory
        for peer, results in found.items():
            command = [sys.executable, "-m", "benchmarks.speed.crowd", f"{count}", peer]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            results.append(json.loads(done.stdout))
    static = found["static"]
    rows = []
    for peer, results in found.items():
        middle = {
            key: statistics.median(
                one[key] / other[key]
                for one, other in zip(results, static, strict=True)
            )
            for key in ("cpu", "memory")
        }
        spent = statistics.median(one["cpu"] for one in results)
        memory = statistics.median(one["memory"] for one in results)
        rows.append(
            [
                peer,
                f"{1 / middle['cpu']:.2f} ({count / spent:.0f} a second)",
                f"{middle['memory']:.2f} ({memory:.0f} MB)",
            ]
        )
    yield f"({load()})"
    head = [
        f"{count} of P2 at once",
        "throughput over static",
        "peak memory over static",
    ]
    yield table(head, rows)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(asyncio.run(run(int(sys.argv[1]), sys.argv[2]))))
    else:
        for part in report(*map(int, sys.argv[1:])):
            print(part, end="\n\n", flush=True)
