"""How long the import takes, over that of LangGraph.

python -m benchmarks.speed.imports [ROUNDS]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.speed.measure import load, table

PROGRAM = "import time, {}; print(time.process_time())"


def taken(package: str) -> float:
    """Return the CPU seconds of a new process that imports a package."""
    command = [sys.executable, "-c", PROGRAM.format(package)]
    # Else each process compiles what it imports.
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, capture_output=True, check=True, env=env)
    return float(done.stdout)


def report(count: int = 9) -> Iterator[str]:
    """Yield the parts of the page's section."""
    taken("langchain_mixture")  # compiles
    pairs = [
        (taken("langgraph.graph"), taken("langchain_mixture")) for _ in range(count)
    ]
    ratio = statistics.median(ours / theirs for theirs, ours in pairs)
    ours = statistics.median(ours for _, ours in pairs)
    yield table(
        ["`import langchain_mixture`", "CPU over `import langgraph.graph`", "s"],
        [[f"({load()})", f"{ratio:.2f}", f"{ours:.2f}"]],
    )


if __name__ == "__main__":
    for part in report(*map(int, sys.argv[1:])):
        print(part, end="\n\n", flush=True)
