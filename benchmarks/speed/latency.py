"""How long a user waits: over the slowest model, for the first token, for a quorum.

    python -m benchmarks.speed.latency [ROUNDS]

Wall time, so it needs a quiet machine; models wait 100 ms, then answer.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk

from benchmarks.speed.measure import load, table
from benchmarks.speed.peers import PEERS, QUESTION, SHAPES, Model, layers_of
from langchain_mixture import Aggregate, ChatMixture, Propose

DELAY = 0.1
"""Seconds that each model takes."""


class Slow(Model):
    """Takes its time in sync code, too, and streams."""

    def _generate(self, *_: Any, **__: Any) -> Any:
        time.sleep(self.delay)
        return super()._generate()

    def _stream(self, *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        for word in self.text.split(" "):
            yield ChatGenerationChunk(message=AIMessageChunk(content=f"{word} "))

    async def _astream(self, *_: Any, **__: Any) -> Any:
        for chunk in self._stream():
            yield chunk

    async def _agenerate(self, *_: Any, **__: Any) -> Any:
        await asyncio.sleep(self.delay)
        return super()._generate()


async def critical_path(count: int) -> str:
    """Compare a run's time with that of its slowest calls in a row."""
    rows = []
    for peer in ("static", "create_mixture"):
        row: list[Any] = [peer]
        for shape in SHAPES.values():
            run = PEERS[peer](shape, layers_of(shape, delay=DELAY), None, False)
            await run()
            taken = []
            for _ in range(count):
                begun = time.perf_counter()
                await run()
                taken.append(time.perf_counter() - begun)
            row.append(f"{statistics.median(taken) / (DELAY * len(shape)):.3f}")
        rows.append(row)
    return table(["Wall time over the critical path, async", *SHAPES], rows)


async def first_token(count: int) -> str:
    """Measure how long after the proposals the first token of the answer comes."""
    panel = [Slow(name=f"{n}", delay=DELAY) for n in range(6)]
    mixture = ChatMixture([Propose(panel), Aggregate(Slow(name="writer"))])
    waits: dict[str, list[float]] = {"async": [], "sync": []}
    for _ in range(count + 1):
        begun = time.perf_counter()
        async for chunk in mixture.astream(QUESTION):
            if chunk.content:
                waits["async"].append(time.perf_counter() - begun - DELAY)
                break
        begun = time.perf_counter()
        for chunk in mixture.stream(QUESTION):
            if chunk.content:
                waits["sync"].append(time.perf_counter() - begun - DELAY)
                break
    rows = [[k, f"{statistics.median(v[1:]) * 1000:.0f}"] for k, v in waits.items()]
    return table(["First token of P1", "ms after the slowest proposal"], rows)


async def quorum(count: int) -> str:
    """Measure a quorum of 4, where the other two of six models hang."""
    panel = [Slow(name=f"{n}", delay=DELAY if n < 4 else 30) for n in range(6)]
    steps = [Propose(panel, quorum=4, grace=0.0), Aggregate(Slow(name="writer"))]
    mixture = ChatMixture(steps)
    taken = []
    for _ in range(count):
        begun = time.perf_counter()
        await mixture.ainvoke(QUESTION)
        taken.append(time.perf_counter() - begun - DELAY)
    return table(
        ["Quorum of 4 in 6, two of which hang", "ms after the fourth answer"],
        [["async", f"{statistics.median(taken) * 1000:.0f}"]],
    )


async def parts(count: int) -> list[str]:
    return [await f(count) for f in (critical_path, first_token, quorum)]


def report(count: int = 15) -> Iterator[str]:
    """Yield the parts of the page's section."""
    yield f"Wall time of models that take {DELAY * 1000:.0f} ms ({load()})."
    yield from asyncio.run(parts(count))


if __name__ == "__main__":
    for part in report(*map(int, sys.argv[1:])):
        print(part, end="\n\n", flush=True)
