"""The compiled graph: LangGraph's own, each of whose runs knows that it is one."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import aclosing
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Final, TypeVar

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config, merge_configs
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, StateSnapshot

from langchain_mixture.compat import (
    detach,
    made_into,
    outer_runner,
    saver_of,
    takes_up,
)
from langchain_mixture.records import Reply
from langchain_mixture.running.cards import card
from langchain_mixture.running.run import RUN, Run, StepOutline
from langchain_mixture.running.state import (
    MixtureInput,
    MixtureOutput,
    MixtureState,
    check_input,
)
from langchain_mixture.running.waiting import Gate
from langchain_mixture.threads import interruptible

T = TypeVar("T")

_END: Final = object()


class MixtureGraph(CompiledStateGraph[MixtureState, Any, MixtureInput, MixtureOutput]):
    """A compiled graph whose nodes know the run that they are part of.

    Every method of LangGraph's ends in `stream` or `astream`. Both take a `run`, which
    is ChatMixture's; without it each call is a run of its own.
    """

    def __init__(
        self,
        *,
        widest: int = 1,
        has_quorum: bool = False,
        outline: Sequence[StepOutline] = (),
        **compiled: Any,
    ) -> None:
        super().__init__(**compiled)
        self.widest = widest
        """The most calls of one step."""
        self.has_quorum = has_quorum
        """Whether one of its steps has a quorum."""
        self.outline = outline
        """Its steps, for those who look at a run."""

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """Return what a notebook shows; LangGraph's own asks a web service."""
        return {"text/plain": repr(self), "text/html": card(self.name, self.outline)}

    @classmethod
    def of(
        cls,
        graph: CompiledStateGraph[Any, Any, Any, Any],
        widest: int,
        has_quorum: bool,
        outline: Sequence[StepOutline],
    ) -> MixtureGraph:
        """Make a mixture's graph of a compiled one."""
        return made_into(
            cls, graph, widest=widest, has_quorum=has_quorum, outline=outline
        )

    if not TYPE_CHECKING:  # LangGraph's own signatures are what callers are to see

        def stream(self, input, config=None, *, run=None, **kwargs):  # noqa: ANN001, ANN003, ANN201  # as above
            check_input(input)
            context = self._context(run)
            run = context[RUN]
            config = context.run(self._in_pool, run, config, **kwargs)
            if (thread := context.run(self._taken_up, input, config)) is not None:
                run.saved = _saved(context.run(self.get_state, thread))
            parts = context.run(super().stream, input, config, **kwargs)
            try:
                while True:
                    with interruptible(run.cancel):
                        part = context.run(next, parts, _END)
                    if part is _END:
                        return
                    yield part
            finally:
                context.run(parts.close)

        def astream(self, input, config=None, *, run=None, **kwargs):  # noqa: ANN001, ANN003, ANN201  # as above
            check_input(input)
            parts = super().astream(input, config, **kwargs)
            if (thread := self._taken_up(input, config)) is not None:
                parts = self._after_saved(thread, parts)
            if run is not None and run.is_begun:  # by `ainvoke`
                return parts
            return _parts(parts, self._context(run), config)

        async def ainvoke(self, input, config=None, *, run=None, **kwargs):  # noqa: ANN001, ANN003, ANN201  # as above
            context = self._context(run)
            answer = super().ainvoke(input, config, run=context[RUN], **kwargs)
            return await _within(context, answer, config)

    def _context(self, run: Run | None) -> Context:
        """Copy the context and begin a run in it."""
        context = copy_context()
        if run is not None:
            detach(context)  # ChatMixture has said what its graph's run belongs under
        run = run or Run()
        run.is_begun = True
        run.name, run.steps = self.name, self.outline
        context.run(RUN.set, run)
        return context

    def _taken_up(
        self, input: object, config: RunnableConfig | None
    ) -> RunnableConfig | None:
        """Return the config of the thread whose saved answers count for a quorum.

        LangGraph gives finished branches their saved writes back, unseen by those that
        it runs: they would wait for a quorum that is met (langgraph 1.2.24).
        `test_resume.py` holds it.
        """
        if not self.has_quorum or self.checkpointer is False:
            return None
        known = ensure_config(merge_configs(self.config, config))
        if not saver_of(known) and not isinstance(
            self.checkpointer, BaseCheckpointSaver
        ):
            return None
        goes_on = input is None or isinstance(input, Command)
        return known if takes_up(known, goes_on) else None

    async def _after_saved(
        self, thread: RunnableConfig, parts: AsyncGenerator[Any]
    ) -> AsyncGenerator[Any]:
        """Count a thread's saved answers, then iterate a stream."""
        async with aclosing(parts):
            Run.current().saved = _saved(await self.aget_state(thread))
            async for part in parts:
                yield part

    def _in_pool(
        self,
        run: Run,
        config: RunnableConfig | None,
        *,
        stream_mode: Any = None,
        subgraphs: bool = False,
        **_: Any,
    ) -> RunnableConfig:
        """Make room for a step's calls in the thread pool of a sync run.

        LangGraph's own pool is as wide as `max_concurrency`, else as the machine has
        cores and four more. A stream of messages also waits for its parts there: with
        one thread it waits for ever (langgraph 1.2.24), and with as many as calls each
        step waits for one of them longer. So all calls and the one that waits get a
        thread, and a gate keeps the caller's bound. `test_concurrency.py` holds it.
        """
        merged = ensure_config(merge_configs(self.config, config))
        limit = merged.get("max_concurrency")
        modes = [stream_mode] if isinstance(stream_mode, str) else stream_mode or ()
        waits = subgraphs or "messages" in modes or "custom" in modes
        needed = max(limit or 0, self.widest) + waits
        enough = not waits if limit else needed <= (os.cpu_count() or 1) + 4
        if enough:
            return config or {}
        run.has_own_pool, run.max_concurrency = True, limit
        run.gate = Gate(limit) if limit else None
        return {**(config or {}), "max_concurrency": needed}


def _saved(state: StateSnapshot) -> dict[str, list[Reply]]:
    """Return the replies that the branches of an unfinished step have saved."""
    saved: dict[str, list[Reply]] = {}
    for task in state.tasks:
        for reply in (task.result or {}).get("replies", []):
            saved.setdefault(reply["step"], []).append(reply)
    return saved


async def _parts(parts: Any, context: Context, config: Any) -> AsyncIterator[Any]:
    """Iterate a stream, each part in a task of its own, all in one context."""
    try:
        while (part := await _within(context, _next(parts), config)) is not _END:
            yield part
    finally:
        await _within(context, parts.aclose(), config)


async def _next(parts: AsyncIterator[Any]) -> Any:
    return await anext(parts, _END)


async def _within(
    context: Context, work: Coroutine[Any, Any, T], config: RunnableConfig | None
) -> T:
    """Await work in a task of its own, which is cancelled once.

    AnyIO cancels anew at every await of a cancelled scope. That ends LangGraph's own
    clean-up, and the nodes live on, unheard and paid for (langgraph 1.2.24, #8302,
    #5682). A LangGraph around this one leaves this node alive in the same way: its
    runner's end is the only sign. `test_leaving.py` holds both.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work, context=context)
    runner = outer_runner(config)
    sign = None
    if runner is not None:
        sign = weakref.finalize(runner, _cancel, task, loop)
        sign.atexit = False
    del runner  # else it would not die before this call ends
    try:
        return await asyncio.shield(task)
    finally:
        if sign is not None:
            sign.detach()
        if not task.done():
            task.cancel()
            await _ended(task)


def _cancel(task: asyncio.Task[Any], loop: asyncio.AbstractEventLoop) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(task.cancel)


async def _ended(task: asyncio.Task[Any]) -> None:
    """Wait for a task, however often the one that waits is cancelled."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
