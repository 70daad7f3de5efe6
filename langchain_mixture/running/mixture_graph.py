"""The compiled graph: LangGraph's own, each of whose runs knows that it is one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Final, TypeVar

from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command

from langchain_mixture.compat import detach, made_into
from langchain_mixture.errors import InvalidMixtureError, shown
from langchain_mixture.running.run import RUN, Run
from langchain_mixture.running.state import MixtureInput, MixtureOutput, MixtureState

T = TypeVar("T")

_END: Final = object()


class MixtureGraph(CompiledStateGraph[MixtureState, Any, MixtureInput, MixtureOutput]):
    """A compiled graph whose nodes know the run that they are part of.

    Every method of LangGraph's ends in `stream` or `astream`. Both take a `run`, which
    is ChatMixture's; without it each call is a run of its own.
    """

    @classmethod
    def of(cls, graph: CompiledStateGraph[Any, Any, Any, Any]) -> MixtureGraph:
        """Make a mixture's graph of a compiled one."""
        return made_into(cls, graph)

    if not TYPE_CHECKING:  # LangGraph's own signatures are what callers are to see

        def stream(self, input, config=None, *, run=None, **kwargs):  # noqa: ANN001, ANN003, ANN201  # as above
            _check(input)
            context = _context(run)
            parts = context.run(super().stream, input, config, **kwargs)
            try:
                while (part := context.run(next, parts, _END)) is not _END:
                    yield part
            finally:
                context.run(parts.close)

        def astream(self, input, config=None, *, run=None, **kwargs):  # noqa: ANN001, ANN003, ANN201  # as above
            _check(input)
            parts = super().astream(input, config, **kwargs)
            if run is not None and run.is_begun:  # by `ainvoke`
                return parts
            return _parts(parts, _context(run))

        async def ainvoke(self, input, config=None, *, run=None, **kwargs):  # noqa: ANN001, ANN003, ANN201  # as above
            context = _context(run)
            answer = super().ainvoke(input, config, run=context[RUN], **kwargs)
            return await _within(context, answer)


def _check(input: object) -> None:
    """Refuse an input without messages, which LangGraph would take.

    An earlier turn of the thread would be answered again, or an empty conversation.
    """
    if input is None or isinstance(input, Command):  # a run goes on
        return
    allowed = 'allowed: {"messages": [...]}.'
    if isinstance(input, Mapping):
        if input.get("messages") is None:
            given = [shown(key) for key, value in input.items() if value is not None]
            keys = ", ".join(given) or "nothing"
            raise InvalidMixtureError(
                f"messages is missing in the input, which has {keys}; {allowed}"
            )
    elif not hasattr(
        input, "messages"
    ):  # a graph around it may have a state of a class
        raise InvalidMixtureError(
            f"messages is missing in the input, which is {shown(input)}; {allowed}"
        )


async def _parts(parts: Any, context: Context) -> AsyncIterator[Any]:
    """Iterate a stream, each part in a task of its own, all in one context."""
    try:
        while (part := await _within(context, _next(parts))) is not _END:
            yield part
    finally:
        await _within(context, parts.aclose())


def _context(run: Run | None) -> Context:
    """Copy the context and begin a run in it."""
    context = copy_context()
    if run is not None:
        detach(context)  # ChatMixture has said what its graph's run belongs under
    run = run or Run()
    run.is_begun = True
    context.run(RUN.set, run)
    return context


async def _next(parts: AsyncIterator[Any]) -> Any:
    return await anext(parts, _END)


async def _within(context: Context, work: Coroutine[Any, Any, T]) -> T:
    """Await work in a task of its own, which is cancelled once.

    AnyIO cancels anew at every await of a cancelled scope. That ends LangGraph's own
    clean-up, and the nodes live on, unheard and paid for (langgraph 1.2.24, #5682).
    `test_leaving.py` holds it.
    """
    task = asyncio.create_task(work, context=context)
    try:
        return await asyncio.shield(task)
    finally:
        if not task.done():
            task.cancel()
            await _ended(task)


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
