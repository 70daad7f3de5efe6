"""What a mixture costs in CPU time, over a LangGraph written by hand, and others.

python -m benchmarks.speed.overhead [ROUNDS]
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from benchmarks.speed.measure import load, ratio, rounds, table
from benchmarks.speed.peers import PEERS, SHAPES, layers_of

WITH_SAVER = ("static", "create_mixture")
SYNC = ("bare calls", "static", "create_mixture", "ChatMixture")


def compared(
    loop: asyncio.AbstractEventLoop, names: Any, saver: Any, sync: bool, count: int
) -> dict[str, dict[str, tuple[float, float]]]:
    """Return for each shape and peer its ratio to `static`, and its milliseconds."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for name, shape in SHAPES.items():
        layers = layers_of(shape)
        cases = {peer: PEERS[peer](shape, layers, saver, sync) for peer in names}
        spent = rounds(cases, loop, count, times=1 if name == "P3" else 3)
        found[name] = {
            peer: (ratio(spent[peer], spent["static"]), sorted(ms)[len(ms) // 2])
            for peer, ms in spent.items()
        }
    return found


def written(title: str, found: dict[str, dict[str, tuple[float, float]]]) -> str:
    peers = next(iter(found.values()))
    rows = [
        [
            peer,
            *(f"{found[s][peer][0]:.2f} ({found[s][peer][1]:.1f} ms)" for s in found),
        ]
        for peer in peers
    ]
    return f"**{title}** ({load()})\n\n{table(['CPU over static', *found], rows)}"


async def _opened(stack: AsyncExitStack, folder: str) -> Any:
    path = str(Path(folder) / "threads.db")
    saver = await stack.enter_async_context(AsyncSqliteSaver.from_conn_string(path))
    await saver.setup()
    return saver


def report(count: int = 15) -> Iterator[str]:
    """Yield the parts of the page's section."""
    with asyncio.Runner() as runner, tempfile.TemporaryDirectory() as folder:
        loop = runner.get_loop()
        stack = AsyncExitStack()
        sqlite = loop.run_until_complete(_opened(stack, folder))
        savers = {"no checkpointer": None, "memory": InMemorySaver(), "SQLite": sqlite}
        for name, saver in savers.items():
            names = [*PEERS] if saver is None else WITH_SAVER
            found = compared(loop, names, saver, False, count)
            yield written(f"Async, {name}", found)
        loop.run_until_complete(stack.aclose())
        yield written("Sync", compared(loop, SYNC, None, True, count))


if __name__ == "__main__":
    for part in report(*map(int, sys.argv[1:])):
        print(part, end="\n\n", flush=True)
