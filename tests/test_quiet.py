"""A call that is ended from outside ends in silence: core logs nothing of it."""

import asyncio
import gc
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.runnables import RunnableLambda
from pydantic import PrivateAttr

from langchain_mixture import (
    Aggregate,
    ChatMixture,
    Propose,
    StepFailedError,
    create_mixture,
)
from tests.models import Scripted, Streaming, ask

LATE = 30
"""Seconds after which a test gives up waiting."""


class Dripping(Streaming):
    """Writes one word, then waits to be let on; it knows when its stream has ended."""

    _on: Any = PrivateAttr(default_factory=threading.Event)
    _ended: Any = PrivateAttr(default_factory=threading.Event)

    def _stream(self, *args: Any, **kwargs: Any) -> Any:
        try:
            for index, chunk in enumerate(super()._stream(*args, **kwargs)):
                if index == 1:
                    self._on.wait(LATE)
                yield chunk
        finally:
            self._ended.set()

    def let_on(self) -> None:
        """Let it write the next word, and wait until it has ended."""
        self._on.set()
        give_up = time.monotonic() + LATE
        while not self._ended.wait(0.05):  # an async stream is left to the collector
            gc.collect()
            assert time.monotonic() < give_up


@pytest.fixture(autouse=True)
def _silence(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Hold every test to it."""
    yield
    records = caplog.get_records("call")
    assert [r.getMessage() for r in records if "core" in r.name] == []


def deep(model: Any) -> Any:
    """Make a mixture whose answering model is a mixture."""
    return ChatMixture([Propose([ChatMixture([Propose([model])])])])


FACES: dict[str, Any] = {
    "a model": lambda m: ChatMixture([Propose([Scripted(model="a")]), Aggregate(m)]),
    "a wrapped answering model": lambda m: ChatMixture(
        [Propose([m.with_retry().with_fallbacks([Scripted(model="b")])])]
    ),
    "a mixture in a mixture": deep,
    "in a chain": lambda m: RunnableLambda(lambda x: x) | ChatMixture([Propose([m])]),
    "a graph": lambda m: create_mixture([Propose([m])]),
    "an agent": lambda m: create_agent(ChatMixture([Propose([m])])),
}


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_stream_that_is_closed_early_logs_nothing(
    asynchronous: bool, face: str
) -> None:
    """The model's next word, which nobody reads, ends it."""
    model = Dripping(model="m", script="a b c")
    face_of: Any = FACES[face](model)
    graph = face in ("a graph", "an agent")
    inputs = ask() if graph else "Why?"
    options: Any = {"stream_mode": "messages"} if graph else {}
    if asynchronous:
        parts = face_of.astream(inputs, **options)
        await anext(parts)
        closing = asyncio.ensure_future(parts.aclose())
    else:
        parts = face_of.stream(inputs, **options)
        await asyncio.to_thread(next, parts)
        closing = asyncio.ensure_future(asyncio.to_thread(parts.close))
    await asyncio.wait([closing], timeout=0.2)  # a sync graph waits for its nodes
    await asyncio.to_thread(model.let_on)
    await closing


@pytest.mark.parametrize("by", ["retry", "fallback"])
def test_a_stream_that_breaks_off_says_what_broke_it(by: str) -> None:
    """No second answer begins behind half a first one, and no callback is blamed."""

    class Breaking(Streaming):
        def _stream(self, *args: Any, **kwargs: Any) -> Any:
            yield next(super()._stream(*args, **kwargs))
            raise ConnectionError("lost")

    breaking, other = Breaking(model="x", script="half of it"), Scripted(model="y")
    wrapped: Any = {
        "retry": breaking.with_retry(wait_exponential_jitter=False),
        "fallback": breaking.with_fallbacks([other]),
    }[by]
    model = ChatMixture([Propose([wrapped])])
    with pytest.raises(StepFailedError) as raised:
        list(model.stream("Why?"))
    assert "streamed answer: ConnectionError: lost" in str(raised.value)
    assert isinstance(raised.value.__cause__, ConnectionError)
    assert (len(breaking.asked), other.asked) == (1, [])


def test_a_sync_call_that_is_given_up_asks_no_more_and_logs_nothing() -> None:
    """Neither in its own loop nor by a retry."""
    begun, on, ended = threading.Event(), threading.Event(), threading.Event()
    inner = Scripted(model="inner")
    quick = Scripted(model="a", script=lambda _: "so" if begun.wait(LATE) else "")

    def loop(messages: Any) -> Any:
        begun.set()
        try:
            on.wait(LATE)
            return inner.with_retry().invoke(messages)
        finally:
            ended.set()

    steps = [Propose([RunnableLambda(loop, name="loop"), quick], quorum=1)]
    state = create_mixture(steps).invoke(ask())
    assert state["messages"][-1].text == "so"
    on.set()
    assert ended.wait(LATE)
    assert inner.asked == []
