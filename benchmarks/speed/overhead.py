"""What a mixture costs in CPU time, over a LangGraph written by hand, and others.

python -m benchmarks.speed.overhead [ROUNDS]
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from benchmarks.speed.measure import load, ratio, rounds, table
from benchmarks.speed.peers import PEERS, QUESTION, SHAPES, layers_of, steps_of
from langchain_mixture import run as run_mixture

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


def against_mixture_llm(loop: asyncio.AbstractEventLoop, count: int) -> str:
    """Compare `run` with mixture-llm's, by the function client that both take."""
    import mixture_llm

    async def client(
        model: str,  # noqa: ARG001  # these four say what kind of client it is
        messages: Any,  # noqa: ARG001
        temp: float,  # noqa: ARG001
        max_tokens: int,  # noqa: ARG001
    ) -> tuple[str, int, int]:
        return "An ion is an atom with a charge.", 9, 5

    rows = []
    for name in ("P1", "P2"):
        shape = SHAPES[name]
        sizes = [[f"{k}-{i}" for i in range(n)] for k, (_, n) in enumerate(shape)]
        steps = steps_of(shape, sizes)  # type: ignore[arg-type]  # names will do
        theirs = [
            getattr(mixture_llm, type(step).__name__)(
                *([layer] if len(layer) > 1 else layer)
            )
            for step, layer in zip(steps, sizes, strict=True)
        ]

        async def ours(steps: Any = steps) -> Any:
            return await run_mixture(steps, QUESTION[0].text, client)

        async def other(steps: Any = theirs) -> Any:
            return await mixture_llm.run(steps, QUESTION[0].text, client)

        spent = rounds({"ours": ours, "theirs": other}, loop, count, times=3)
        found = ratio(spent["ours"], spent["theirs"])
        rows.append([name, f"{found:.2f}", f"{sorted(spent['ours'])[count // 2]:.1f}"])
    head = ["`run` with a function client", "CPU over mixture-llm", "ms"]
    return table(head, rows)


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
        if importlib.util.find_spec("mixture_llm"):
            yield against_mixture_llm(loop, count)


if __name__ == "__main__":
    for part in report(*map(int, sys.argv[1:])):
        print(part, end="\n\n", flush=True)
