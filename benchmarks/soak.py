"""A thousand mixtures at once, several times over, with one call in twenty failing.

Each mixture asks two proposers and an aggregator over real sockets. All must end, none
may hang, memory must not grow from round to round, and nothing may be left behind. It
takes less than a minute, and exits with 1 where something does not hold.

    python benchmarks/soak.py [ROUNDS] [MIXTURES]
"""

import asyncio
import gc
import logging
import multiprocessing
import resource
import sys
import threading
import time
from collections import Counter
from typing import Any

from langchain_mixture import Aggregate, MixtureError, Propose, create_mixture

BOUND = 55.0
"""Seconds, for all of it."""
FAULTS = {7: "500", 27: "drop", 47: "hang"}
"""What the server does at these of every sixty requests: one in twenty."""


async def serve(port: Any, requests: Any) -> None:
    """Answer, and count; runs in a process of its own."""

    async def handle(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readuntil(b"\r\n\r\n")
        requests.value += 1
        fault = FAULTS.get(requests.value % 60)
        if fault == "hang":
            await asyncio.sleep(BOUND)
        if fault != "drop":
            status = b"500 Oops" if fault == "500" else b"200 OK"
            writer.write(b"HTTP/1.1 %s\r\nContent-Length: 4\r\n\r\nfine" % status)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=4096)
    port.value = server.sockets[0].getsockname()[1]
    async with server:
        await asyncio.sleep(BOUND)


def run_server(port: Any, requests: Any) -> None:
    asyncio.run(serve(port, requests))


def client_of(port: int) -> Any:
    """Make a client that opens a connection a call."""
    gate = asyncio.Semaphore(900)  # file descriptors

    async def client(
        model: str, messages: Any, temp: float, max_tokens: int
    ) -> tuple[str, int, int]:
        del messages, temp, max_tokens
        async with gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(f"GET /{model} HTTP/1.1\r\n\r\n".encode())
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
        if b"200 OK" not in head:
            raise RuntimeError("the server failed")  # not one that is tried again
        return body.decode(), 10, 5

    return client


def megabytes() -> float:
    """Give the memory that the process holds now."""
    with open("/proc/self/statm") as statm:  # noqa: PTH123  # read at once
        return int(statm.read().split()[1]) * resource.getpagesize() / 1e6


async def soak(
    port: int, rounds: int, mixtures: int
) -> tuple[Counter[str], list[float]]:
    graph = create_mixture(
        [Propose(["a", "b"]), Aggregate("c", fallbacks=["d"])],
        client=client_of(port),
        timeout=5,
    )
    outcomes = Counter[str]()

    async def one() -> None:
        try:
            state = await graph.ainvoke({"messages": [("user", "Why?")]})
        except MixtureError as error:
            outcomes["error"] += 1
            history: Any = error.history  # type: ignore[attr-defined]  # those of running have it
        else:
            outcomes[state["mixture"]["status"]] += 1
            history = state["mixture"]["history"]
        outcomes["calls"] += sum(len(row["llm_calls"]) for row in history)

    memory, tasks = [], len(asyncio.all_tasks())
    for _ in range(rounds):
        await asyncio.gather(*(one() for _ in range(mixtures)))
        gc.collect()
        memory.append(megabytes())
    outcomes["tasks left"] = len(asyncio.all_tasks()) - tasks
    return outcomes, memory


def main(rounds: int = 3, mixtures: int = 1000) -> int:
    spawn = multiprocessing.get_context("spawn")
    port, requests = spawn.Value("i", 0), spawn.Value("i", 0)
    server = spawn.Process(target=run_server, args=(port, requests), daemon=True)
    server.start()
    logging.disable(logging.WARNING)  # the thousand degraded answers
    while not port.value:
        time.sleep(0.01)
    started = time.perf_counter()
    outcomes, memory = asyncio.run(
        asyncio.wait_for(soak(port.value, rounds, mixtures), BOUND)
    )
    seconds = time.perf_counter() - started
    server.terminate()
    server.join()
    ended = outcomes["complete"] + outcomes["degraded"] + outcomes["error"]
    print(f"{rounds} x {mixtures} mixtures in {seconds:.1f} s: {dict(outcomes)}")
    print(
        f"requests at the server: {requests.value}; threads left: "
        f"{threading.active_count() - 1}"
    )
    print("memory after each round, MB:", *(f"{m:.0f}" for m in memory))
    holds = {
        "all ended": ended == rounds * mixtures,
        "every request is in a history": outcomes["calls"] == requests.value,
        "no task is left": outcomes["tasks left"] == 0,
        "no thread is left": threading.active_count() == 1,
        "memory is flat": memory[-1] <= memory[0] * 1.05 + 5,
    }
    for what, held in holds.items():
        print("ok  " if held else "FAIL", what)
    return 0 if all(holds.values()) else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
