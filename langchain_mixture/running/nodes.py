"""The nodes of the graph: a branch makes one call, a gathering node ends the step."""

from __future__ import annotations

import inspect
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, TypeAlias

from langchain_core.runnables import Runnable, RunnableConfig

from langchain_mixture.errors import counted, shown
from langchain_mixture.records import Reply, Response
from langchain_mixture.running.attempt import Attempt
from langchain_mixture.running.calls import aask, aask_all, ask, ask_all
from langchain_mixture.running.gather import update
from langchain_mixture.running.layer import Layer
from langchain_mixture.running.run import Run
from langchain_mixture.running.state import MixtureState
from langchain_mixture.running.waiting import Quorum
from langchain_mixture.threads import in_thread, wait_for

Update: TypeAlias = dict[str, Any]
"""A node's update of the state."""


class Branch(Runnable[MixtureState, Update]):
    """The node that makes one of a step's calls."""

    def __init__(self, layer: Layer, index: int) -> None:
        self._layer = layer
        self._index = index

    def _call(self, state: MixtureState) -> tuple[Sequence[Attempt], Quorum]:
        run = Run.current()
        shared = self._layer.superstep(run)
        make = partial(self._layer.attempts, state, run, shared.ends)
        return shared.attempts(make).get(self._index, []), shared.quorum

    def invoke(
        self, input: MixtureState, config: RunnableConfig | None = None, **_: Any
    ) -> Update:
        attempts, quorum = self._call(input)
        return {"replies": ask(attempts, config or {}, quorum)}

    async def ainvoke(
        self, input: MixtureState, config: RunnableConfig | None = None, **_: Any
    ) -> Update:
        attempts, quorum = self._call(input)
        return {"replies": await aask(attempts, config or {}, quorum)}


class Gather(Runnable[MixtureState, Update]):
    """The step's own node: it makes the calls left, then keeps, records and decides."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer

    def invoke(
        self, input: MixtureState, config: RunnableConfig | None = None, **_: Any
    ) -> Update:
        started = time.time()
        run = Run.current()
        calls, quorum = self._missing(input, run)
        # Replies of branches are in the state; new ones are of the calls left.
        replies = self._replies(input, ask_all(calls, config or {}, quorum))
        with self._layer.blamed(input, replies):
            kept = self._layer.kept(input, replies)
            settled = wait_for(kept) if inspect.isawaitable(kept) else kept
            self._check(settled)
        return update(self._layer, input, replies, settled, started, run)

    async def ainvoke(
        self, input: MixtureState, config: RunnableConfig | None = None, **_: Any
    ) -> Update:
        started = time.time()
        run = Run.current()
        calls, quorum = self._missing(input, run)
        replies = self._replies(input, await aask_all(calls, config or {}, quorum))
        with self._layer.blamed(input, replies):
            if self._layer.agents:
                kept = self._layer.kept(input, replies)
            else:  # a user's function, which may be slow
                kept = await in_thread(partial(self._layer.kept, input, replies))
            settled = await kept if inspect.isawaitable(kept) else kept
            self._check(settled)
        return update(self._layer, input, replies, settled, started, run)

    def _missing(
        self, state: MixtureState, run: Run
    ) -> tuple[list[list[Attempt]], Quorum]:
        missing = self._layer.missing(state, run, self._layer.ends(run))
        return missing, self._layer.quorum_left(state)

    def _replies(self, state: MixtureState, new: Sequence[Reply]) -> list[Reply]:
        # LangGraph orders the writes of branches by their nodes' names, not by the
        # calls (langgraph 1.2.24). `test_graph.py` holds it.
        replies = [*state.get("replies", []), *new]
        return sorted(replies, key=lambda reply: reply["index"])

    def _check(self, kept: object) -> None:
        if not isinstance(kept, list):
            raise TypeError(f"keep() returned {shown(kept)}; it must return a list")
        for item in kept:
            if not isinstance(item, dict) or not set(item) >= _RESPONSE:
                raise TypeError(
                    f"keep() returned a list with {shown(item)}; allowed: responses "
                    "that it was given, copies with another text, answered(replies)"
                )
        if len(kept) > self._layer.most:
            raise ValueError(
                f"keep() returned {counted(len(kept), 'response')}; bounds() allows at "
                f"most {self._layer.most}"
            )


_RESPONSE: Final = Response.__required_keys__
