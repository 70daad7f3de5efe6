"""What a thread holds: bytes of one run, of a long conversation, and big answers.

python -m benchmarks.speed.size [TURNS]
"""

from __future__ import annotations

import asyncio
import random
import string
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from benchmarks.speed.measure import load, ratio, rounds, table
from benchmarks.speed.peers import PEERS, SHAPES, layers_of

LENGTH = 2000
"""Characters of an answer."""


def words(length: int) -> str:
    """Return text that does not repeat itself."""
    return "".join(random.choices(string.ascii_lowercase + " ", k=length))


async def saved(
    peer: str, shape: Any, runs: int, thread: str | None
) -> tuple[int, float]:
    """Return the bytes that SQLite holds after some runs, and the CPU seconds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "threads.db"
        async with AsyncSqliteSaver.from_conn_string(str(path)) as saver:
            await saver.setup()
            layers = layers_of(shape, words(LENGTH))
            run = PEERS[peer](shape, layers, saver, False, thread)
            begun = time.process_time()
            for _ in range(runs):
                await run()
            spent = time.process_time() - begun
            size = 0
            for query in (
                "SELECT SUM(LENGTH(checkpoint) + LENGTH(metadata)) FROM checkpoints",
                "SELECT SUM(LENGTH(value)) FROM writes",
            ):
                async with saver.conn.execute(query) as cursor:
                    row = await cursor.fetchone()
                    size += row[0] if row else 0
        return size, spent


async def one_run() -> str:
    """Compare the bytes of a run of P2 with those of its answers."""
    shape = SHAPES["P2"]
    payload = LENGTH * sum(size for _, size in shape) * 10
    rows = [
        [peer, f"{(await saved(peer, shape, 10, None))[0] / payload:.1f}"]
        for peer in ("static", "create_mixture")
    ]
    return table(["SQLite, P2, answers of 2 kB", "bytes over the answers"], rows)


async def conversation(turns: int) -> str:
    """Compare the bytes and the CPU time of many turns on one thread."""
    rows = []
    found = {
        peer: await saved(peer, SHAPES["P1"], turns, "one")
        for peer in ("static", "create_mixture")
    }
    for peer, (size, spent) in found.items():
        rows.append(
            [
                peer,
                f"{size / 1e6:.0f}",
                f"{size / found['static'][0]:.2f}",
                f"{spent / found['static'][1]:.2f}",
            ]
        )
    head = [
        f"{turns} turns of P1 on one thread",
        "MB",
        "over static",
        "CPU over static",
    ]
    return table(head, rows)


def big(loop: asyncio.AbstractEventLoop, count: int = 7) -> str:
    """Compare runs whose answers have a megabyte each."""
    shape = SHAPES["P1"]
    layers = layers_of(shape, words(1_000_000))
    rows = []
    for name, saver in (("no checkpointer", None), ("memory", InMemorySaver())):
        cases = {
            peer: PEERS[peer](shape, layers, saver, False)
            for peer in ("static", "create_mixture")
        }
        spent = rounds(cases, loop, count)
        found = ratio(spent["create_mixture"], spent["static"])
        rows.append(
            [name, f"{found:.2f}", f"{sorted(spent['static'])[count // 2]:.0f}"]
        )
    return table(["P1, answers of 1 MB", "CPU over static", "static, ms"], rows)


def report(turns: int = 200) -> Iterator[str]:
    """Yield the parts of the page's section."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        yield f"({load()})"
        yield loop.run_until_complete(one_run())
        yield loop.run_until_complete(conversation(turns))
        yield big(loop)


if __name__ == "__main__":
    for part in report(*map(int, sys.argv[1:])):
        print(part, end="\n\n", flush=True)
