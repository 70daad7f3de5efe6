"""The events of a run, for those who listen: what it asks, hears, and keeps.

They are LangChain's custom events of the name `mixture`. They go to the handlers of the
run that have an `on_custom_event` of their own, to `stream_mode="custom"`, and to
`astream_events(version="v2")`, also from inside a chat model. Nobody listening, nothing
is made.
"""

# Annotations are not postponed here; see `records.py`.

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, TypeVar
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.callbacks.manager import ahandle_event, handle_event
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import Command
from typing_extensions import TypedDict

from langchain_mixture.callbacks import callbacks_of
from langchain_mixture.compat import attached, makes_models_stream, writer_of
from langchain_mixture.errors import StepFailedError
from langchain_mixture.records import HistoryRow, Reply, Response, Result
from langchain_mixture.running.attempt import Attempt
from langchain_mixture.running.layer import Layer
from langchain_mixture.running.run import CallId, Run, StepOutline
from langchain_mixture.running.state import MixtureState, added

NAME: Final = "mixture"
"""The name of the events."""

T = TypeVar("T")


class Event(TypedDict):
    """What all events have."""

    run: str
    """The id of the mixture's run."""
    parent: CallId | None
    """The call of another mixture inside which it runs; None if there is none."""
    time: float
    """When it happened, in seconds since the epoch."""


class Began(Event):
    """A run has begun."""

    event: Literal["began"]
    name: str
    """The mixture's name."""
    steps: Sequence[StepOutline]
    """The steps of this run, in order."""
    messages: list[BaseMessage]
    """The conversation."""
    responses: list[Response]
    """What it starts from: earlier advice, or what a checkpoint has saved."""


class Asked(Event):
    """An agent is asked."""

    event: Literal["asked"]
    step: str
    call: str
    """The id of the call and of its response, such as `1_propose/0`."""
    attempt: int
    """0 for the step's agent, 1 and up for its fallbacks."""
    agent: str
    """Its name in the pipeline."""
    messages: list[BaseMessage]
    """The messages as they are sent."""
    parents: list[str]
    """The ids of the responses that the messages show."""


class Replied(Event):
    """A call has ended: with an answer, or without one."""

    event: Literal["replied"]
    step: str
    call: str
    attempt: int
    agent: str
    reply: Reply
    """The record of it. Its `outcome` says whether it answered, failed, broke off, was
    given up, or was not asked at all; no `asked` comes before that one."""
    message: AIMessage | None
    """The agent's whole message; None if there is none."""


class KeptEvent(Event):
    """A step has ended."""

    event: Literal["kept"]
    step: str
    given: list[Response]
    """The responses that it was given."""
    responses: list[Response]
    """The responses that go on; those that the step was given, if it failed."""
    rows: list[HistoryRow]
    """Its row of the history, and those of the steps that are skipped behind it."""
    error: str | None
    """Why the run fails here; None if it does not."""
    answer: AIMessage | None
    """The answer, with the last event of a run; None before, and if it failed."""
    result: Result | None
    """The result of the run, with the answer; else None."""


MixtureEvent: TypeAlias = Began | Asked | Replied | KeptEvent
"""An event; its `event` says which one."""


def hears(handler: BaseCallbackHandler) -> bool:
    """Whether a handler has an `on_custom_event` of its own.

    Core tells all handlers, which costs a tracer that does nothing with an event 100 µs
    (langchain-core 1.8.3).

    Example:
        >>> hears(BaseCallbackHandler())
        False
    """
    # The instance is asked: it may be wrapped in another.
    method = getattr(handler, "on_custom_event", None)
    return getattr(method, "__func__", method) not in _DEAF


_DEAF: Final = (
    BaseCallbackHandler.on_custom_event,
    AsyncCallbackHandler.on_custom_event,
)


@dataclass(frozen=True)
class Audience:
    """Those who listen to a run. It is false where nobody does."""

    inside: bool
    """Whether a handler of the graph's own listens."""
    stream: Callable[[Any], None] | None
    """What writes to the graph's own stream."""
    handlers: Sequence[tuple[BaseCallbackHandler, UUID | None]] = ()
    """Handlers around a chat model, each with the run that it knows."""
    streams: Sequence[tuple[Callable[[Any], None], RunnableConfig]] = ()
    """What writes to streams around a chat model, each with the config it needs."""
    told: set[str] = field(default_factory=set)
    """What has been told, and may be told once."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    alock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __bool__(self) -> bool:
        return bool(self.inside or self.stream or self.handlers or self.streams)

    def tell(self, config: RunnableConfig, event: Mapping[str, Any]) -> None:
        """Tell all of an event, in the context of a node."""
        for handlers, about in self._handlers(config):
            handle_event(handlers, *_EVENT, event, **about)
        self._write(event)

    async def atell(self, config: RunnableConfig, event: Mapping[str, Any]) -> None:
        """Do the same on an event loop."""
        for handlers, about in self._handlers(config):
            await ahandle_event(handlers, *_EVENT, event, **about)
        self._write(event)

    def _handlers(
        self, config: RunnableConfig
    ) -> list[tuple[list[BaseCallbackHandler], dict[str, Any]]]:
        known = callbacks_of(config)
        about = {"tags": known.tags, "metadata": known.metadata}
        inside = [handler for handler in known.handlers if hears(handler)]
        found = [(inside, {**about, "run_id": known.parent_run_id})] if inside else []
        return [
            *found,
            *(([h], {**about, "run_id": run_id}) for h, run_id in self.handlers),
        ]

    def _write(self, event: Mapping[str, Any]) -> None:
        if self.stream is not None:
            self.stream(event)
        for write, config in self.streams:
            with attached(config):
                write(event)


_EVENT: Final = ("on_custom_event", "ignore_custom_event", NAME)


def audience(run: Run, config: RunnableConfig) -> Audience:
    """Return those who listen to a run; `config` is that of one of its nodes."""
    if run.audience is None:
        with run.lock:
            run.audience = run.audience or _audience(run, config)
    found: Audience = run.audience
    return found


def _audience(run: Run, config: RunnableConfig) -> Audience:
    inside = [handler for handler in callbacks_of(config).handlers if hears(handler)]
    handlers: dict[int, tuple[BaseCallbackHandler, UUID | None]] = {}
    streams: dict[int, tuple[Callable[[Any], None], RunnableConfig]] = {}
    # A mixture around this one has those that its own graph cannot reach.
    if run.outer is not None and run.outer.audience is not None:
        handlers |= {id(item[0]): item for item in run.outer.audience.handlers}
        streams |= {id(item[0]): item for item in run.outer.audience.streams}
    caller = run.caller
    if caller is not None:
        for handler in caller.handlers:
            if makes_models_stream(handler) and hears(handler):
                handlers.setdefault(id(handler), (handler, caller.run_id))
        if (write := writer_of(caller.config)) is not None:
            streams.setdefault(id(write), (write, caller.config))
    for handler in inside:
        handlers.pop(id(handler), None)
    own = writer_of(config)
    streams.pop(id(own), None)
    return Audience(
        bool(inside), own, tuple(handlers.values()), tuple(streams.values())
    )


# -- What is told, and when ------------------------------------------------------------


def watched(
    layer: Layer,
    state: MixtureState,
    config: RunnableConfig,
    run: Run,
    work: Callable[[], T],
) -> T:
    """Do a node's work, and tell of the run's beginning and of the step's end."""
    known = audience(run, config)
    if not known:
        return work()
    with known.lock:
        if _is_first(known, "began"):
            known.tell(config, _began(layer, state, run))
    try:
        update = work()
    except StepFailedError as error:
        if _is_first(known, layer.name):  # of several branches
            known.tell(config, _failed(layer, state, run, error))
        raise
    if (event := _kept(layer, state, run, update)) is not None:
        known.tell(config, event)
    return update


async def awatched(
    layer: Layer,
    state: MixtureState,
    config: RunnableConfig,
    run: Run,
    work: Callable[[], Awaitable[T]],
) -> T:
    """Do the same on an event loop."""
    known = audience(run, config)
    if not known:
        return await work()
    async with known.alock:
        if _is_first(known, "began"):
            await known.atell(config, _began(layer, state, run))
    try:
        update = await work()
    except StepFailedError as error:
        if _is_first(known, layer.name):
            await known.atell(config, _failed(layer, state, run, error))
        raise
    if (event := _kept(layer, state, run, update)) is not None:
        await known.atell(config, event)
    return update


def tell_asked(
    attempt: Attempt, messages: list[BaseMessage], config: RunnableConfig
) -> None:
    """Tell that an agent is asked."""
    if known := audience(attempt.run, config):
        known.tell(config, _asked(attempt, messages))


async def atell_asked(
    attempt: Attempt, messages: list[BaseMessage], config: RunnableConfig
) -> None:
    """Do the same on an event loop."""
    if known := audience(attempt.run, config):
        await known.atell(config, _asked(attempt, messages))


def tell_replied(
    attempt: Attempt, reply: Reply, message: AIMessage | None, config: RunnableConfig
) -> None:
    """Tell that a call has ended."""
    if known := audience(attempt.run, config):
        known.tell(config, _replied(attempt, reply, message))


async def atell_replied(
    attempt: Attempt, reply: Reply, message: AIMessage | None, config: RunnableConfig
) -> None:
    """Do the same on an event loop."""
    if known := audience(attempt.run, config):
        await known.atell(config, _replied(attempt, reply, message))


def _is_first(known: Audience, what: str) -> bool:
    size = len(known.told)
    known.told.add(what)
    return len(known.told) > size


def _event(run: Run) -> Event:
    return {"run": run.id, "parent": run.parent, "time": time.time()}


def _began(layer: Layer, state: MixtureState, run: Run) -> Began:
    return {
        "event": "began",
        **_event(run),
        "name": run.name,
        "steps": run.steps or (layer.outline,),
        "messages": list(state.get("messages", [])),
        "responses": layer.before(state)["responses"],
    }


def _asked(attempt: Attempt, messages: list[BaseMessage]) -> Asked:
    return {
        "event": "asked",
        **_event(attempt.run),
        "step": attempt.step,
        "call": attempt.id,
        "attempt": attempt.attempt,
        "agent": attempt.agent.name,
        "messages": messages,
        "parents": attempt.call["parents"],
    }


def _replied(attempt: Attempt, reply: Reply, message: AIMessage | None) -> Replied:
    return {
        "event": "replied",
        **_event(attempt.run),
        "step": attempt.step,
        "call": attempt.id,
        "attempt": attempt.attempt,
        "agent": attempt.agent.name,
        "reply": reply,
        "message": message,
    }


def _failed(
    layer: Layer, state: MixtureState, run: Run, error: StepFailedError
) -> KeptEvent:
    before = layer.before(state)
    return {
        "event": "kept",
        **_event(run),
        "step": layer.name,
        "given": before["responses"],
        "responses": before["responses"],
        "rows": list(error.history[len(before["history"]) :]),
        "error": str(error),
        "answer": None,
        "result": None,
    }


def _kept(
    layer: Layer, state: MixtureState, run: Run, update: object
) -> KeptEvent | None:
    """Return the event of a step's end; None if the update is a branch's."""
    written: Any = update.update if isinstance(update, Command) else update
    if "mixture" not in written:
        return None
    before = layer.before(state)
    result = added(before, written["mixture"])
    ends = "messages" in written
    return {
        "event": "kept",
        **_event(run),
        "step": layer.name,
        "given": before["responses"],
        "responses": result["responses"],
        "rows": result["history"][len(before["history"]) :],
        "error": None,
        "answer": written["messages"][0] if ends else None,
        "result": result if ends else None,
    }
