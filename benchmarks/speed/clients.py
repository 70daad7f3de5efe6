"""Wide and many, with real clients: what their settings cost.

    python -m benchmarks.speed.clients [ROUNDS]

`ChatOpenAI` asks a server on this machine, in a process of its own, which answers at
once. The CPU time is that of the asking process alone.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI

from benchmarks.speed.measure import load, ratio, rounds, table
from benchmarks.speed.peers import QUESTION, SHAPES, TEXT
from langchain_mixture import Aggregate, Propose, Synthesize, create_mixture, run

ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": TEXT},
            }
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14},
    }
).encode()


async def _serve(port: Any) -> None:
    async def handle(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().split(b"content-length:")[1].split()[0])
                await reader.readexactly(length)
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                    b"Content-Length: %d\r\n\r\n%s" % (len(ANSWER), ANSWER)
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=4096)
    port.value = server.sockets[0].getsockname()[1]
    async with server:
        await server.serve_forever()


def _run_server(port: Any) -> None:
    asyncio.run(_serve(port))


@contextmanager
def served() -> Iterator[str]:
    """Run the server for a block, and yield its URL."""
    context = multiprocessing.get_context("spawn")
    port = context.Value("i", 0)
    process = context.Process(target=_run_server, args=(port,), daemon=True)
    process.start()
    try:
        while not port.value:
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port.value}/v1"
    finally:
        process.kill()


def _model(url: str, client: Any = None) -> ChatOpenAI:
    return ChatOpenAI(
        model="m",
        base_url=url,
        api_key="none",  # type: ignore[arg-type]  # a str will do
        http_async_client=client,
    )


def _graph(model: Any, width: int, config: Any = None) -> Callable[[], Awaitable[Any]]:
    graph = create_mixture([Propose([model] * width), Aggregate(model)])

    given: Any = {"messages": QUESTION}

    async def once() -> Any:
        return await graph.ainvoke(given, config)

    return once


def pools(loop: Any, url: str, count: int) -> str:
    """Compare HTTP clients, by the width of a step."""
    many = httpx.Limits(max_connections=1000, max_keepalive_connections=1000)
    clients: dict[str, Any] = {
        "the default": None,
        "httpx with 1,000 connections kept": httpx.AsyncClient(limits=many),
    }
    if importlib.util.find_spec("httpx_aiohttp"):
        from openai import DefaultAioHttpClient

        clients["openai.DefaultAioHttpClient"] = DefaultAioHttpClient()
    models = {name: _model(url, client) for name, client in clients.items()}
    found = {}
    widths = (6, 64)
    for width in widths:
        cases = {name: _graph(model, width) for name, model in models.items()}
        found[width] = rounds(cases, loop, count)
    rows = [
        [
            name,
            *(
                f"{ratio(found[w][name], found[w]['the default']):.2f} "
                f"({statistics.median(found[w][name]):.0f} ms)"
                for w in widths
            ),
        ]
        for name in clients
    ]
    for client in clients.values():
        if client is not None:
            loop.run_until_complete(client.aclose())
    head = ["HTTP client of `ChatOpenAI`", *(f"{w} → 1, CPU" for w in widths)]
    return table(head, rows)


def bounds(loop: Any, url: str, count: int) -> str:
    """Compare values of `max_concurrency`, and settings of the garbage collector."""
    model = _model(url)
    wide = _graph(model, 128)

    def bound(most: int) -> Any:
        return {"max_concurrency": most}

    async def frozen() -> Any:
        gc.freeze()
        try:
            return await wide()
        finally:
            gc.unfreeze()

    async def seldom() -> Any:
        usual = gc.get_threshold()
        gc.set_threshold(50_000, *usual[1:])
        try:
            return await wide()
        finally:
            gc.set_threshold(*usual)

    cases = {
        "as it is": wide,
        "`max_concurrency=16`": _graph(model, 128, bound(16)),
        "`max_concurrency=64`": _graph(model, 128, bound(64)),
        "after `gc.freeze()`": frozen,
        "with `gc.set_threshold(50_000)`": seldom,
    }
    spent = rounds(cases, loop, count)
    rows = [
        [
            name,
            f"{ratio(ms, spent['as it is']):.2f} ({statistics.median(ms):.0f} ms)",
        ]
        for name, ms in spent.items()
    ]
    return table(["128 → 1 with `ChatOpenAI`", "CPU"], rows)


def against_mixture_llm(loop: Any, url: str, count: int) -> str:
    """Compare `run` with mixture-llm's, by the function client that both take."""
    import mixture_llm

    openai = AsyncOpenAI(base_url=url, api_key="none")

    async def client(
        model: str, messages: Any, temp: float, max_tokens: int
    ) -> tuple[str, int, int]:
        done = await openai.chat.completions.create(
            model=model, messages=messages, temperature=temp, max_tokens=max_tokens
        )
        used = done.usage
        return (
            done.choices[0].message.content or "",
            used.prompt_tokens if used else 0,
            used.completion_tokens if used else 0,
        )

    rows = []
    query = QUESTION[0].text
    for name in ("P1", "P2"):
        sizes = [count for _, count in SHAPES[name]]
        names = [[f"{k}-{i}" for i in range(n)] for k, n in enumerate(sizes)]

        def steps(kinds: Any, names: Any = names) -> list[Any]:
            propose, synthesize, aggregate = kinds
            middle = [synthesize(layer) for layer in names[1:-1]]
            return [propose(names[0]), *middle, aggregate(names[-1][0])]

        ours = steps((Propose, Synthesize, Aggregate))
        theirs = steps(
            (mixture_llm.Propose, mixture_llm.Synthesize, mixture_llm.Aggregate)
        )

        async def one(steps: Any = ours) -> Any:
            return await run(steps, query, client)

        async def other(steps: Any = theirs) -> Any:
            return await mixture_llm.run(steps, query, client)

        spent = rounds({"ours": one, "theirs": other}, loop, count)
        rows.append(
            [
                name,
                f"{ratio(spent['ours'], spent['theirs']):.2f}",
                f"{statistics.median(spent['ours']):.0f}",
                f"{statistics.median(spent['theirs']):.0f}",
            ]
        )
    head = ["`run` with a client of the OpenAI SDK", "CPU over mixture-llm", "ms"]
    return table([*head, "mixture-llm, ms"], rows)


def report(count: int = 5) -> Iterator[str]:
    """Yield the parts of the page's section."""
    with served() as url, asyncio.Runner() as runner:
        loop = runner.get_loop()
        yield f"({load()})"
        yield pools(loop, url, count)
        yield bounds(loop, url, count)
        if importlib.util.find_spec("mixture_llm"):
            yield against_mixture_llm(loop, url, count)


if __name__ == "__main__":
    for part in report(*map(int, sys.argv[1:])):
        print(part, end="\n\n", flush=True)
