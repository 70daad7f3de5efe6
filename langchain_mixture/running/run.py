"""The current run of a mixture, and everything that belongs to that run alone."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import Any
from uuid import UUID

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    BaseCallbackHandler,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.messages.ai import UsageMetadata
from langchain_core.runnables import RunnableConfig
from langchain_core.utils.uuid import uuid7
from typing_extensions import TypedDict

from langchain_mixture.records import Reply, Response
from langchain_mixture.running.request import Request
from langchain_mixture.running.waiting import WAIT, Gate, Wait


class StepOutline(TypedDict):
    """One step of a run, for those who look at it."""

    name: str
    """Its name in the graph, such as `1_propose`."""
    step: str
    """Its class, such as `Propose`."""
    agents: list[str]
    """The agents that it may ask, by the names that they have in the pipeline."""


class CallId(TypedDict):
    """Tells one call from all others."""

    run: str
    """The id of the mixture's run."""
    call: str
    """The id of the call in that run, such as `1_propose/0`."""


@dataclass(frozen=True)
class Caller:
    """A chat model's run; the graph's run is nested under it."""

    run_id: UUID | None
    handlers: list[BaseCallbackHandler]
    tags: list[str]
    metadata: dict[str, Any]
    config: RunnableConfig
    """The config that the model was called with; empty if core did not pass it on."""

    @classmethod
    def of(
        cls, run: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun
    ) -> Caller:
        """Return the caller for a run that core passed on, without its config."""
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
    that is run without its graph makes its own run.
    """

    caller: Caller | None = None
    """The chat model's run around this one; None for a graph that runs by itself."""
    request: Request = field(default_factory=Request)
    """The tools and settings that the chat model was called with."""
    advice: Sequence[Response] = ()
    """The responses that the answering step was shown."""
    is_models: bool = False
    """Whether a chat model asks: what it is asked is the models' affair."""
    is_begun: bool = False
    """Whether a graph already runs as this run; a graph inside it needs another."""
    is_left: bool = False
    """Whether its caller has stopped waiting; it makes no more calls."""
    has_own_pool: bool = False
    """Whether the config's `max_concurrency` is only the size of the thread pool."""
    max_concurrency: int | None = None
    """The caller's bound, if the run has its own pool; None = no bound."""
    gate: Gate | None = None
    """Bounds the sync calls in flight, if the thread pool does not."""
    deadline: float | None = None
    """When the run must end, on the monotonic clock; None = no limit, or not set."""
    supersteps: dict[str, Any] = field(default_factory=dict)
    """The shared state of each step's branches, by step name, until it gathers."""
    saved: dict[str, list[Reply]] = field(default_factory=dict)
    """The replies of a step's branches that an earlier run had saved, by step name."""
    errors: dict[tuple[str, int, int], Exception] = field(default_factory=dict)
    """What failed calls raised, by step, call and attempt, without keys. A checkpoint
    holds their words alone."""
    answer_usage: UsageMetadata | None = None
    """Tokens of the call that wrote the answer; None = not reported, or not done."""
    doubts: dict[str, Exception] = field(default_factory=dict)
    """What the condition of a step raised, by step name, until that step fails."""
    waits: set[Wait] = field(default_factory=set)
    """The sync calls in flight; `cancel` puts an end to their waiting."""
    streams: list[AsyncGenerator[Any]] = field(default_factory=list)
    """The async streams opened in this run; `close` closes them."""
    name: str = "mixture"
    """The graph's name."""
    steps: Sequence[StepOutline] = ()
    """The steps of the graph; none where a node is run without it."""
    audience: Any = None
    """Those who listen to the run's events; None = nobody has looked for them yet."""
    lock: Lock = field(default_factory=Lock)
    """Held where something is made once for all branches."""

    @cached_property
    def is_watched(self) -> bool:
        """Whether a handler waits in a context variable, unseen in configs.

        Core gives it to each run by itself; `collect_runs` has one of these.
        """
        return bool(CallbackManager.configure().handlers)

    def is_under(
        self, core: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None
    ) -> bool:
        """Whether its caller is core's run; True if core passed none on."""
        return core is None or (
            self.caller is not None and self.caller.run_id == core.run_id
        )

    def __post_init__(self) -> None:
        self.outer = RUN.get()
        """The run of the mixture around this one; None if there is none."""
        # A mixture inside a mixture: when the outer call is given up, so is this run.
        if (outer := WAIT.get()) is not None:
            outer.on_end.append(self.cancel)
        self._inside = outer

    @cached_property
    def id(self) -> str:
        """Tells this run from all others."""
        return str(uuid7())

    @property
    def parent(self) -> CallId | None:
        """The call of another mixture inside which this run is made."""
        if self.outer is None or self._inside is None:
            return None
        return {"run": self.outer.id, "call": self._inside.call}

    def cancel(self) -> None:
        """Stop waiting for the sync calls in flight, and begin no more.

        It takes no lock, because a signal handler may call it.
        """
        self.is_left = True
        for wait in list(self.waits):
            wait.cancel()

    async def close(self) -> None:
        """Close the async streams, which core leaves open (langchain-core 1.8.3).

        The models would go on writing. `test_chat_stream.py` holds it.
        """
        for stream in self.streams:
            await stream.aclose()

    @classmethod
    def current(cls) -> Run:
        """Return the run that this code is part of."""
        # A node may be called without its graph, as in a test or in a notebook.
        return RUN.get() or cls(is_begun=True)


RUN: ContextVar[Run | None] = ContextVar("mixture_run", default=None)
