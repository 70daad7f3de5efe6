"""The nodes of the graph: a branch makes one call, a gathering node ends the step."""

from __future__ import annotations

import inspect
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, TypeAlias

from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.graph import END
from langgraph.types import Command

from langchain_mixture.errors import counted, shown
from langchain_mixture.records import Reply, Response
from langchain_mixture.running.attempt import Attempt
from langchain_mixture.running.calls import aask, aask_all, ask, ask_all
from langchain_mixture.running.events import awatched, watched
from langchain_mixture.running.gather import passed, settle, update
from langchain_mixture.running.layer import Layer
from langchain_mixture.running.routing import Route, arouted, atold, routed, told
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

    def _call(self, state: MixtureState, run: Run) -> tuple[Sequence[Attempt], Quorum]:
        shared = self._layer.superstep(state, run)
        make = partial(self._layer.attempts, state, run, shared.ends)
        return shared.attempts(make).get(self._index, []), shared.quorum

    def invoke(
        self, input: MixtureState, config: RunnableConfig | None = None, **_: Any
    ) -> Update:
        run, config = Run.current(), config or {}

        def work() -> Update:
            attempts, quorum = self._call(input, run)
            return {"replies": ask(attempts, config, quorum)}

        return watched(self._layer, input, config, run, work)

    async def ainvoke(
        self, input: MixtureState, config: RunnableConfig | None = None, **_: Any
    ) -> Update:
        run, config = Run.current(), config or {}

        async def work() -> Update:
            attempts, quorum = self._call(input, run)
            return {"replies": await aask(attempts, config, quorum)}

        return await awatched(self._layer, input, config, run, work)


class Gather(Runnable[MixtureState, Any]):
    """The step's own node: it makes the calls left, then keeps, records and decides.

    Args:
        layer: The step.
        behind: The steps that follow it, whose conditions it asks.
    """

    def __init__(self, layer: Layer, behind: Sequence[Layer] = ()) -> None:
        self._layer = layer
        self._behind = behind
        asks = [layer for layer in behind[:1] if layer.step.unless is not None]
        if layer.branches and layer.step.unless is not None:
            asks.append(layer)  # after a resume, its own condition
        self.chooses = bool(asks)
        """Whether it says in each run where to go on, so that no edge may."""

    @property
    def leads_to(self) -> list[str]:
        """The nodes that may be next."""
        found: list[str] = []
        for layer in self._behind:
            found += layer.entries
            if layer.step.unless is None:
                return found
        return [*found, END]

    def invoke(
        self, input: MixtureState, config: RunnableConfig | None = None, **_: Any
    ) -> Update | Command[str]:
        run, config = Run.current(), config or {}
        work = partial(self._work, input, config, run)
        return watched(self._layer, input, config, run, work)

    async def ainvoke(
        self, input: MixtureState, config: RunnableConfig | None = None, **_: Any
    ) -> Update | Command[str]:
        run, config = Run.current(), config or {}
        work = partial(self._awork, input, config, run)
        return await awatched(self._layer, input, config, run, work)

    def _work(
        self, input: MixtureState, config: RunnableConfig, run: Run
    ) -> Update | Command[str]:
        started = time.time()
        if self._is_doubted(input, run):
            route = routed([self._layer, *self._behind], self._given(input))
            if not self._is_entered(input, route):
                return self._gone(passed(self._layer, input, route), run, route)
        quorum, question, fresh = self._layer.gathered(input, run)
        if question is not None:
            quorum.hear(told(question))
        calls = self._layer.missing(input, run, quorum, fresh=fresh)
        # Replies of branches are in the state; new ones are of the calls left.
        replies = self._replies(input, ask_all(calls, config, quorum))
        with self._layer.blamed(input, replies):
            if quorum.error is not None:
                raise quorum.error
            kept = self._layer.kept(input, replies)
            settled = wait_for(kept) if inspect.isawaitable(kept) else kept
            self._check(settled)
        outcome = settle(self._layer, input, replies, settled, quorum, started)
        route = routed(self._behind, outcome.kept) if outcome.kept else Route()
        return self._gone(update(self._layer, input, outcome, run, route), run, route)

    async def _awork(
        self, input: MixtureState, config: RunnableConfig, run: Run
    ) -> Update | Command[str]:
        started = time.time()
        if self._is_doubted(input, run):
            route = await arouted([self._layer, *self._behind], self._given(input))
            if not self._is_entered(input, route):
                return self._gone(passed(self._layer, input, route), run, route)
        quorum, question, fresh = self._layer.gathered(input, run)
        if question is not None:
            quorum.hear(await atold(question))
        calls = self._layer.missing(input, run, quorum, fresh=fresh)
        replies = self._replies(input, await aask_all(calls, config, quorum))
        with self._layer.blamed(input, replies):
            if quorum.error is not None:
                raise quorum.error
            if self._layer.agents:
                kept = self._layer.kept(input, replies)
            else:  # a user's function, which may be slow
                kept = await in_thread(partial(self._layer.kept, input, replies))
            settled = await kept if inspect.isawaitable(kept) else kept
            self._check(settled)
        outcome = settle(self._layer, input, replies, settled, quorum, started)
        route = await arouted(self._behind, outcome.kept) if outcome.kept else Route()
        return self._gone(update(self._layer, input, outcome, run, route), run, route)

    def _given(self, state: MixtureState) -> list[Response]:
        return self._layer.before(state)["responses"]

    def _is_doubted(self, state: MixtureState, run: Run) -> bool:
        """Whether the step has to ask its own condition, after a resume.

        Raises:
            StepFailedError: The step in front asked it, and it raised an error.
        """
        if state.get("doubted") != self._layer.name:
            return False
        self._blame(state, run.doubts.pop(self._layer.name, None))
        return True

    def _is_entered(self, state: MixtureState, route: Route) -> bool:
        """Whether this node makes the step's calls: no skip, and no branches.

        Raises:
            StepFailedError: Its condition raised an error.
        """
        if route.goes_to is not self._layer:
            return False
        self._blame(state, route.error)
        return not self._layer.branches

    def _blame(self, state: MixtureState, error: Exception | None) -> None:
        if error is not None:
            with self._layer.blamed(state):
                raise error

    def _gone(self, update: Update, run: Run, route: Route) -> Update | Command[str]:
        """Return the update, with where to go on where no edge says it.

        A condition that raised must not cost the update, which was paid for: the step
        that it belongs to is entered with a mark, and fails.
        """
        if not self.chooses:
            return update
        if route.goes_to is None:
            return Command(update=update, goto=END)
        name = route.goes_to.name
        if route.error is not None:
            run.doubts[name] = route.error
            return Command(update={**update, "doubted": name}, goto=name)
        return Command(update=update, goto=route.goes_to.entries)

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
