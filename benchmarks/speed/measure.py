"""How things are measured: in pairs, in shuffled order, by CPU time."""

from __future__ import annotations

import asyncio
import gc
import importlib.metadata
import os
import platform
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

Case: TypeAlias = Callable[[], Awaitable[Any] | Any]
"""What is measured: a function, or a coroutine function."""

PACKAGES = ("langchain-core", "langgraph", "langgraph-checkpoint-sqlite", "openai")


def rounds(
    cases: Mapping[str, Case],
    loop: asyncio.AbstractEventLoop,
    count: int,
    times: int = 1,
) -> dict[str, list[float]]:
    """Return the CPU milliseconds of each case, once a round.

    All cases run in each round, in a new order: what the machine does meanwhile falls
    on all alike. The first round only warms up.

    Args:
        cases: By name.
        loop: Runs those that are coroutine functions.
        count: Of rounds.
        times: How often a case runs in a round.
    """
    spent: dict[str, list[float]] = {name: [] for name in cases}
    order = list(cases)
    for round_ in range(count + 1):
        random.shuffle(order)
        for name in order:
            gc.collect()
            begun = time.process_time()
            for _ in range(times):
                if asyncio.iscoroutinefunction(cases[name]):
                    loop.run_until_complete(cases[name]())
                else:
                    cases[name]()
            if round_:
                spent[name].append((time.process_time() - begun) / times * 1000)
    return spent


def ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the median of the ratios, round by round."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table in Markdown; the first column is text, the others are numbers."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def load() -> str:
    """Return how busy the machine is: what runs or waits, on average of a minute."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def surroundings() -> str:
    """Return the date, and what was measured with."""
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in PACKAGES
    )
    today = datetime.now(UTC).date().isoformat()
    return f"{today}, Python {platform.python_version()}, {versions}"
