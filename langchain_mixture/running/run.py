"""The run that one is in, and what is that run's alone."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    BaseCallbackHandler,
    CallbackManagerForLLMRun,
)
from langchain_core.runnables import RunnableConfig

from langchain_mixture.running.request import Request
from langchain_mixture.running.waiting import WAIT, Gate, Wait


@dataclass(frozen=True)
class Caller:
    """A chat model's run, as core has begun it; the graph's run belongs under it."""

    run_id: UUID
    handlers: list[BaseCallbackHandler]
    tags: list[str]
    metadata: dict[str, Any]
    config: RunnableConfig
    """What the model was called with; empty where core did not hand it on."""

    @classmethod
    def of(
        cls, run: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun
    ) -> Caller:
        """Read a caller off the run that core hands on."""
        return cls(
            run.run_id,
            run.inheritable_handlers,
            run.inheritable_tags,
            run.inheritable_metadata,
            {},
        )


@dataclass(eq=False)
class Run:
    """One run of a mixture's graph.

    A context variable holds it, in the copied context in which the graph runs. A node
    that is run without its graph makes one of its own.
    """

    caller: Caller | None = None
    """The chat model's run that asked for this one; None for a graph run by itself."""
    request: Request = field(default_factory=Request)
    """The tools and settings that the chat model was called with."""
    is_begun: bool = False
    """Whether a graph runs as this run; one that runs inside is another run."""
    is_left: bool = False
    """Whether nobody waits for it any longer: it begins no more calls."""
    has_own_pool: bool = False
    """Whether `max_concurrency` in the graph's config is for its thread pool alone."""
    max_concurrency: int | None = None
    """The caller's own, where the graph has its own pool; None = no bound."""
    gate: Gate | None = None
    """Bounds the sync calls at once, where the thread pool does not."""
    deadline: float | None = None
    """When the run has to end, on the monotonic clock; None = not known yet, or no
    limit."""
    supersteps: dict[str, Any] = field(default_factory=dict)
    """What the branches of a step share, by the step's name, until it gathers."""
    waits: set[Wait] = field(default_factory=set)
    """The sync calls in flight, which `cancel` gives up."""
    streams: list[AsyncGenerator[Any]] = field(default_factory=list)
    """The async streams that were opened for it, to be closed with it."""

    def is_under(
        self, core: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None
    ) -> bool:
        """Whether its caller is core's run; True where core hands on none."""
        return core is None or (
            self.caller is not None and self.caller.run_id == core.run_id
        )

    def __post_init__(self) -> None:
        if (outer := WAIT.get()) is not None:  # it answers a call of another run
            outer.on_end.append(self.cancel)

    def cancel(self) -> None:
        """Give up the sync calls in flight, and begin no more.

        It takes no lock: a signal handler may call it.
        """
        self.is_left = True
        for wait in list(self.waits):
            wait.cancel()

    async def close(self) -> None:
        """Close the streams that were opened: core does not close what it iterates."""
        for stream in self.streams:
            await stream.aclose()

    @classmethod
    def current(cls) -> Run:
        """Return the run that this code is part of."""
        return RUN.get() or cls(is_begun=True)


RUN: ContextVar[Run | None] = ContextVar("mixture_run", default=None)
