"""Layers: the steps in their places, and what each asks."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from langgraph.errors import GraphBubbleUp

from langchain_mixture.agents.resolve import Client, ResolvedAgent, resolved, resolver
from langchain_mixture.errors import StepFailedError, counted
from langchain_mixture.options import Options
from langchain_mixture.plan import bounds_of, names_of
from langchain_mixture.records import (
    Call,
    LLMCall,
    Reply,
    Response,
    Result,
    calls_of,
    row,
)
from langchain_mixture.running.attempt import Attempt
from langchain_mixture.running.limits import Budget
from langchain_mixture.running.run import Run
from langchain_mixture.running.state import NOTHING, MixtureState
from langchain_mixture.running.waiting import Quorum
from langchain_mixture.secrets import describe
from langchain_mixture.steps.base import Step

DEFAULT_TIMEOUT: Final = 300.0
"""Seconds that a call to a model may take, or the next chunk of a streamed answer."""


@dataclass(frozen=True)
class Layer:
    """One step, its place in the pipeline, and the agents that it may ask."""

    step: Step
    name: str
    """Such as `1_propose`."""
    agents: Sequence[ResolvedAgent]
    """The agents that it may ask, one a call."""
    most: int
    """How many responses it may leave, by its bounds."""
    fallbacks: Sequence[ResolvedAgent]
    first: bool
    last: bool
    answering: bool
    """Whether it is the last step that writes text: the answer is one of its own."""
    options: Options
    steps_left: int
    """How many steps that ask there are, from this one on."""

    @property
    def branches(self) -> list[str]:
        if len(self.agents) < 2:
            return []
        return [f"{self.name}/{agent.label}" for agent in self.agents]

    def before(self, state: MixtureState) -> Result:
        """Give what the steps in front left."""
        # What an earlier turn of the thread left is not for the first step.
        return NOTHING if self.first else state["mixture"]

    @contextmanager
    def blamed(
        self, state: MixtureState, replies: Sequence[Reply] = ()
    ) -> Iterator[None]:
        """Name the step where its own code, or the user's function, raises."""
        started = time.time()
        try:
            yield
        except GraphBubbleUp:
            raise
        except Exception as error:
            before = self.before(state)
            this = row(self.step, self.name, [], replies, started)
            raise StepFailedError(
                f"{self.name}: {describe(error)}",
                responses=before["responses"],
                history=[*before["history"], this],
            ) from error

    def calls(self, state: MixtureState) -> Sequence[Call]:
        """Ask the step for its calls.

        Raises:
            StepFailedError: It gives too many, or raises; or there is no message.
        """
        if not state.get("messages"):
            raise StepFailedError(
                f"{self.name}: the conversation is empty; messages must hold one or "
                "more"
            )
        with self.blamed(state):
            calls = self.step.calls(state["messages"], self.before(state)["responses"])
            if len(calls) > len(self.agents):
                raise ValueError(
                    f"calls() made {counted(len(calls), 'call')} of at most "
                    f"{len(self.agents)}, which bounds() allows"
                )
        return calls

    def superstep(self, run: Run) -> Superstep:
        """What the branches of this step share in a run."""
        step = self.step
        ours = Superstep(Quorum(step.quorum, step.grace), self.ends(run))
        shared: Superstep = run.supersteps.setdefault(self.name, ours)
        return shared

    def ends(self, run: Run) -> float | None:
        """Begin the step: it gets an equal share of the time that is left.

        Returns:
            When that is used up, on the monotonic clock; None = no limit.
        """
        now = time.monotonic()
        if self.options.deadline is None:
            return None
        if run.deadline is None:
            run.deadline = now + self.options.deadline
        return now + (run.deadline - now) / max(1, self.steps_left)

    def attempts(
        self,
        state: MixtureState,
        run: Run,
        ends: float | None,
        have: Collection[int] = (),
    ) -> dict[int, list[Attempt]]:
        """Make the attempts at each call but those in `have`: agent, then fallbacks."""
        calls = self.calls(state)
        asked = [index for index in range(len(calls)) if index not in have]
        budget = Budget.of(self.options, self._spent(state))
        attempts: dict[int, list[Attempt]] = {index: [] for index in asked}
        first = [(index, self.agents[index]) for index in asked]
        spare = [(index, agent) for index in asked for agent in self.fallbacks]
        for index, agent in [*first, *spare]:  # these are asked before those
            streams = self._streams(agent)
            attempt = Attempt(
                agent=agent,
                call=calls[index],
                run=run,
                step=self.name,
                index=index,
                attempt=len(attempts[index]),
                timeout=self._timeout(agent),
                ends=ends,
                refused=budget.spend(calls[index], agent),
                streams=streams,
                visible=streams or self.options.stream_proposals,
                writes=self.step.answers,
                may_answer=self.answering,
            )
            attempts[index].append(attempt)
        return attempts

    def _spent(self, state: MixtureState) -> list[LLMCall]:
        """The calls of this turn that were made, a resumed step's included."""
        history = self.before(state)["history"]
        return [
            *(call for row in history for call in row["llm_calls"]),
            *calls_of(state.get("replies", [])),
        ]

    def _streams(self, agent: ResolvedAgent) -> bool:
        """Whether the tokens of an agent are the answer's stream."""
        alone = self.answering and self.last and len(self.agents) == 1
        return alone and agent.is_model

    def _timeout(self, agent: ResolvedAgent) -> float | None:
        for timeout in (self.step.timeout, self.options.timeout):
            if timeout != "default":
                return timeout
        return None if agent.is_graph else DEFAULT_TIMEOUT

    def quorum_left(self, state: MixtureState) -> Quorum:
        """The quorum of the calls that a resumed step makes again."""
        needed = self.step.quorum
        have = sum(reply["error"] is None for reply in state.get("replies", []))
        left = None if needed is None else needed - have
        return Quorum(left, self.step.grace)

    def missing(
        self, state: MixtureState, run: Run, ends: float | None
    ) -> list[list[Attempt]]:
        """Make the attempts at the calls without an answer, for the step's own node.

        Those are all calls where there are no branches, and none where the branches
        have just run. After a resume they are the failed ones: were they not asked
        again, a thread whose calls all failed would stay a dead end.
        """
        if not self.agents:
            return []
        fresh = run.supersteps.pop(self.name, None) is not None
        replies = state.get("replies", [])
        have = {r["index"] for r in replies if fresh or r["error"] is None}
        met = self.step.quorum is not None and len(have) >= self.step.quorum
        if (fresh and have) or met:
            return []
        return list(self.attempts(state, run, ends, have).values())

    def kept(
        self, state: MixtureState, replies: Sequence[Reply]
    ) -> list[Response] | Awaitable[list[Response]]:
        """Let the step choose; where a call has fallbacks, their last reply counts."""
        last_of = {reply["index"]: reply for reply in replies}
        return self.step.keep(self.before(state)["responses"], list(last_of.values()))


class Superstep:
    """What the branches of one step share in one run: attempts, quorum, time.

    Args:
        quorum: The step's.
        ends: When the step's share of the deadline is used up, on the monotonic clock.
    """

    def __init__(self, quorum: Quorum, ends: float | None) -> None:
        self.quorum = quorum
        self.ends = ends
        self._attempts: dict[int, list[Attempt]] | None = None
        self._lock = threading.Lock()

    def attempts(
        self, make: Callable[[], dict[int, list[Attempt]]]
    ) -> dict[int, list[Attempt]]:
        """Return the step's attempts, which are made once for all branches."""
        with self._lock:
            if self._attempts is None:
                self._attempts = make()
            return self._attempts


def layers_of(
    steps: Sequence[Step],
    client: Client,
    options: Options,
) -> list[Layer]:
    """Put each step in its place, and resolve its agents.

    Raises:
        InvalidMixtureError: A step, an agent or the client cannot be used.
    """
    bounds = bounds_of(steps, options)
    resolve = resolver(client)
    answering = max((k for k, step in enumerate(steps) if step.answers), default=-1)
    return [
        Layer(
            step=step,
            name=name,
            agents=resolved(step, bounds[k][0], name, resolve),
            most=bounds[k][1],
            fallbacks=resolved(step, step.fallbacks, name, resolve),
            first=k == 0,
            last=k == len(steps) - 1,
            answering=k == answering,
            options=options,
            steps_left=sum(1 for agents, _ in bounds[k:] if agents),
        )
        for k, (step, name) in enumerate(zip(steps, names_of(steps), strict=True))
    ]
