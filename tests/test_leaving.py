"""Who leaves stops paying: a run that is left ends its calls at once."""

import asyncio
import contextlib
import gc
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import httpx
import pytest
import uvicorn
from langchain.agents import create_agent
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableLambda
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import PrivateAttr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from langchain_mixture import Aggregate, ChatMixture, Propose, create_mixture
from langchain_mixture.compat import outer_runner
from tests.models import Scripted, ask, settle

BOUND = 30
"""Seconds, against hanging."""


class Waiting(Scripted):
    """Begins, and waits until it is cancelled; what happened is counted."""

    begun: int = 0
    cancelled: int = 0
    on_begin: Any = None
    _forever: Any = PrivateAttr(default_factory=asyncio.Event)

    async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
        self.begun += 1
        try:
            if self.on_begin is not None:
                self.on_begin()
            async with asyncio.timeout(BOUND):
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        raise AssertionError("nobody cancelled it")


class Endless(Waiting):
    """Streams for ever."""

    async def _astream(
        self, *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        self.begun += 1
        try:
            async with asyncio.timeout(BOUND):
                while True:
                    yield ChatGenerationChunk(message=AIMessageChunk(content="x "))
                    await asyncio.sleep(0.001)
        except (asyncio.CancelledError, GeneratorExit):  # at its sleep, or its yield
            self.cancelled += 1
            raise


def agent_of(model: ChatMixture) -> Any:
    """An agent around a mixture."""
    return create_agent(model, [])


def parallel(model: ChatMixture) -> Any:
    """A graph with two nodes at once, one of which asks the mixture."""

    async def node(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    async def beside(_: MessagesState) -> Any:
        await asyncio.sleep(BOUND)
        return {}

    builder = StateGraph(MessagesState)
    builder.add_node("n", node)
    builder.add_node("beside", RunnableLambda(beside))
    builder.add_edge(START, "n")
    builder.add_edge(START, "beside")
    return builder.compile()


def subgraph(model: ChatMixture) -> Any:
    """A graph whose node is the mixture's graph."""
    builder = StateGraph(MessagesState)
    builder.add_node("n", create_mixture(model.steps))
    builder.add_edge(START, "n")
    return builder.compile()


async def drained(parts: AsyncIterator[Any]) -> None:
    """Read a stream to its end."""
    async for _ in parts:
        pass


QUESTION: Any = "Why?"
WAYS: dict[str, Callable[[ChatMixture], Any]] = {
    "ainvoke": lambda m: m.ainvoke(QUESTION),
    "astream": lambda m: drained(m.astream(QUESTION)),
    "astream_events": lambda m: drained(m.astream_events(QUESTION)),
    "in a chain": lambda m: (RunnableLambda(str) | m).ainvoke(QUESTION),
    "nested": lambda m: ChatMixture([Propose([m])]).ainvoke(QUESTION),
    "graph ainvoke": lambda m: m.graph.ainvoke(ask()),
    "graph astream": lambda m: drained(m.graph.astream(ask())),
    "graph messages": lambda m: drained(m.graph.astream(ask(), stream_mode="messages")),
    "agent": lambda m: agent_of(m).ainvoke(ask()),
    "agent messages": lambda m: drained(
        agent_of(m).astream(ask(), stream_mode="messages")
    ),
    "parallel nodes": lambda m: parallel(m).ainvoke(ask()),
    "subgraph": lambda m: subgraph(m).ainvoke(ask()),
    "subgraph messages": lambda m: drained(
        subgraph(m).astream(ask(), stream_mode="messages", subgraphs=True)
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("leave", ["anyio scope", "task cancel"])
async def test_who_leaves_a_run_ends_its_calls(way: str, leave: str) -> None:
    """Every call that began is cancelled, and no other begins."""
    waiting = [Waiting(model="a"), Waiting(model="b"), Waiting(model="c")]
    all_begun = asyncio.Event()
    for model in waiting:
        model.on_begin = lambda: (
            all_begun.set() if all(m.begun for m in waiting) else None
        )
    mixture = ChatMixture([Propose(waiting), Aggregate(Scripted(model="z"))])

    async def leaving(scope: anyio.CancelScope) -> None:
        await all_begun.wait()
        scope.cancel()

    async with asyncio.timeout(BOUND):
        if leave == "anyio scope":
            async with anyio.create_task_group() as group:
                with anyio.CancelScope() as scope:
                    group.start_soon(leaving, scope)
                    await WAYS[way](mixture)
        else:
            task = asyncio.ensure_future(WAYS[way](mixture))
            await all_begun.wait()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            del task
        while sum(model.cancelled for model in waiting) < 3:
            gc.collect()
            await settle()
    assert [model.begun for model in waiting] == [1, 1, 1]


async def test_a_reader_that_stops_begins_no_further_call() -> None:
    """A stream runs no part ahead of who reads it."""
    last = Scripted(model="z")
    steps = [Propose([Scripted(model="a"), Scripted(model="b")]), Aggregate(last)]
    parts = create_mixture(steps).astream(ask(), stream_mode="updates")
    async with contextlib.aclosing(parts):  # type: ignore[type-var]  # a generator
        async for _ in parts:
            break
        await settle()
        assert last.asked == []


async def test_a_long_run_inside_another_graph_is_not_ended_early() -> None:
    """The outer run's runner lives as long as the run, whatever is collected."""
    found: list[object] = []

    async def slow(_: Any) -> str:
        for _ in range(20):
            await asyncio.sleep(0.001)
            gc.collect(0)
        return "done"

    model = ChatMixture(
        [
            Propose([RunnableLambda(str, slow), RunnableLambda(str, slow)]),
            Aggregate(RunnableLambda(str, slow)),
        ]
    )

    async def node(state: MessagesState) -> Any:
        found.append(type(outer_runner(None)).__name__)
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("first", node)
    builder.add_node("second", node)
    builder.add_edge(START, "first")
    builder.add_edge("first", "second")
    state: Any = await builder.compile().ainvoke(ask())
    assert [m.text for m in state["messages"][1:]] == ["done", "done"]
    assert found == ["PregelRunner", "PregelRunner"]  # the shape that it needs


@contextlib.contextmanager
def served(app: Starlette) -> Any:
    """Serve an app with uvicorn on a thread, and give its address."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            thread.join(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(BOUND)


@pytest.mark.parametrize("face", ["model", "agent", "graph"])
def test_a_client_that_disconnects_ends_the_models(face: str) -> None:
    """In a real web server, in the middle of a streamed answer."""
    writer = Endless(model="z")
    mixture = ChatMixture([Propose([Scripted(model="a")]), Aggregate(writer)])

    async def tokens() -> AsyncIterator[str]:
        if face == "model":
            async for chunk in mixture.astream(QUESTION):
                yield chunk.text
            return
        graph: Any = agent_of(mixture) if face == "agent" else mixture.graph
        async for chunk, _ in graph.astream(ask(), stream_mode="messages"):
            yield chunk.text

    async def endpoint(_: Request) -> StreamingResponse:
        return StreamingResponse(tokens())

    with served(Starlette(routes=[Route("/", endpoint)])) as url:
        with httpx.stream("GET", url, timeout=BOUND) as response:
            assert "x" in next(response.iter_text())
        for _ in range(BOUND * 100):
            if writer.cancelled:
                break
            threading.Event().wait(0.01)
    assert (writer.begun, writer.cancelled) == (1, 1)
