"""Layers: the steps in their places, and the attempts that each makes."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from langchain_core.messages import BaseMessage
from langgraph.errors import GraphBubbleUp

from langchain_mixture.advice import place_advice, turn_of
from langchain_mixture.agents.resolve import Client, ResolvedAgent, resolved, resolver
from langchain_mixture.errors import StepFailedError, counted
from langchain_mixture.options import Options
from langchain_mixture.plan import answering_of, bounds_of, names_of
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
from langchain_mixture.running.handoffs import refused_handoffs
from langchain_mixture.running.limits import Budget, check_priced
from langchain_mixture.running.run import Run, StepOutline
from langchain_mixture.running.state import NOTHING, MixtureState
from langchain_mixture.running.waiting import Question, Quorum
from langchain_mixture.secrets import describe, redact_error
from langchain_mixture.steps.base import Step
from langchain_mixture.steps.program import Steps, conditions_of, flat

DEFAULT_TIMEOUT: Final = 300.0
"""Seconds per call to a model, or between two chunks of a streamed answer."""


@dataclass(frozen=True)
class Layer:
    """One step, its place in the pipeline, and the agents that it may ask."""

    step: Step
    name: str
    """The step's name in the graph, such as `1_propose`."""
    agents: Sequence[ResolvedAgent]
    """The agents that it may ask, one per call."""
    most: int
    """The most responses that it may keep, by its bounds."""
    fallbacks: Sequence[ResolvedAgent]
    first: bool
    last: bool
    answering: bool
    """Whether its text may be the answer: nothing that writes must follow it."""
    advised: bool
    """Whether it is the first of these: the steps before it are its advisers."""
    options: Options
    answer_name: str | None
    """The name that the answer is given; None = its model's own."""
    steps_left: int
    """The number of steps that make calls, from this one on. Neighbours that one
    condition skips together count as one."""

    @property
    def branches(self) -> list[str]:
        """The names of its branches; none if it makes at most one call."""
        if len(self.agents) < 2:
            return []
        return [f"{self.name}/{agent.label}" for agent in self.agents]

    @property
    def outline(self) -> StepOutline:
        """The step for those who look at a run."""
        agents = [agent.name for agent in self.agents]
        return {"name": self.name, "step": type(self.step).__name__, "agents": agents}

    @property
    def entries(self) -> list[str]:
        """The nodes with which the step begins."""
        return self.branches or [self.name]

    def before(self, state: MixtureState) -> Result:
        """Return the result of the steps before this one."""
        # On a thread, the state still holds the result of the turn before.
        return NOTHING if self.first else state["mixture"]

    @contextmanager
    def blamed(
        self, state: MixtureState, replies: Sequence[Reply] = ()
    ) -> Iterator[None]:
        """Turn an error of the step's own code into one that names the step."""
        started = time.time()
        try:
            with refused_handoffs():
                yield
        except GraphBubbleUp:  # LangGraph's control flow, such as an interrupt
            raise
        except Exception as error:
            before = self.before(state)
            this = row(self.step, self.name, [], replies, started)
            redact_error(error)
            raise StepFailedError(
                f"{self.name}: {describe(error)}",
                responses=before["responses"],
                history=[*before["history"], this],
            ) from error

    def calls(self, state: MixtureState, run: Run) -> Sequence[Call]:
        """Return the step's calls.

        Raises:
            StepFailedError: The step makes too many calls, or raises, or the
                conversation is empty.
        """
        if not state.get("messages") and not run.is_models:
            raise StepFailedError(
                f"{self.name}: the conversation is empty; messages must hold one or "
                "more"
            )
        with self.blamed(state):
            responses = self.before(state)["responses"]
            if self.advised:
                run.advice = responses
            if self.answering or self.step.block(responses) is not None:
                calls = self._placed_calls(state["messages"], responses, run)
            else:
                calls = self.step.calls(state["messages"], responses)
            if len(calls) > len(self.agents):
                raise ValueError(
                    f"calls() returned {counted(len(calls), 'call')}; bounds() allows "
                    f"at most {len(self.agents)}"
                )
        return calls

    def _placed_calls(
        self,
        messages: Sequence[BaseMessage],
        responses: Sequence[Response],
        run: Run,
    ) -> Sequence[Call]:
        """Ask for the calls where the responses are to stand; put the rest behind them.

        So each request of an agent begins with the whole of the one before it: what
        came later stands behind the responses, and those that the answering step was
        shown in earlier turns stay in their places.
        """
        about = run.request.advised
        place = turn_of(messages) if about is None else about.at
        if about is not None and about.now is not None:
            place = about.now.at
        past = about.past if about is not None and self.advised else ()
        front = place_advice(messages[:place], past, self.step.block)
        alone = about is not None and not about.asks and about.now is None
        if alone and self.advised:
            asked = Call(messages=list(messages), parents=[])
            return [asked] * min(1, len(self.agents))  # as if it were alone
        calls = self.step.calls(front, responses)
        behind = messages[place:]
        if not behind:
            return calls
        return [{**c, "messages": [*c["messages"], *behind]} for c in calls]

    def superstep(self, state: MixtureState, run: Run) -> Superstep:
        """Return what the branches of this step share in a run."""
        shared: Superstep | None = run.supersteps.get(self.name)
        if shared is None:
            saved = run.saved.get(self.name, ())
            ours = Superstep(self._quorum(state), self.ends(run), saved)
            # Atomic: sync branches begin in several threads at once.
            shared = run.supersteps.setdefault(self.name, ours)
        return shared

    def ends(self, run: Run) -> float | None:
        """Return when the step's share of the deadline ends.

        Each step that makes calls gets an equal share of the time that is left when it
        begins. The first step of a run sets the run's deadline.

        Returns:
            A time on the monotonic clock; None = no limit.
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
        """Return the attempts at each call: its agent, then the fallbacks.

        Args:
            state: The state of the graph.
            run: The run that the attempts belong to.
            ends: When the step's share of the deadline ends; None = no limit.
            have: The positions of calls that need no attempt.
        """
        calls = self.calls(state, run)
        asked = [index for index in range(len(calls)) if index not in have]
        with self.blamed(state):  # a function of prices may raise
            # What was spent is read from the whole history: only if it matters.
            spent = self._spent(state) if self.options.is_limited else []
            budget = Budget.of(self.options, spent)
        attempts: dict[int, list[Attempt]] = {index: [] for index in asked}
        settings = run.request.arguments
        # The budget is spent in this order: no fallback takes the place of an agent.
        first = [(index, self.agents[index]) for index in asked]
        fallbacks = [(index, agent) for index in asked for agent in self.fallbacks]
        for index, agent in [*first, *fallbacks]:
            streams = self._streams(agent)
            arguments = {**agent.arguments, **(settings if self.answering else {})}
            attempt = Attempt(
                agent=agent,
                call=calls[index],
                run=run,
                step=self.name,
                index=index,
                attempt=len(attempts[index]),
                arguments=arguments,
                timeout=self._timeout(agent),
                ends=ends,
                refused=budget.spend(calls[index], agent, arguments),
                streams=streams,
                visible=streams or self.options.stream_proposals,
                writes=self.step.answers,
                alone=len(calls) == 1,
                may_answer=self.answering,
            )
            attempts[index].append(attempt)
        return attempts

    def _spent(self, state: MixtureState) -> list[LLMCall]:
        """Return the calls made in this turn, those of a resumed step included."""
        history = self.before(state)["history"]
        return [
            *(call for row in history for call in row["llm_calls"]),
            *calls_of(state.get("replies", [])),
        ]

    def _streams(self, agent: ResolvedAgent) -> bool:
        """Whether the tokens of an agent are streamed as the answer."""
        # Tokens cannot be taken back: nothing may choose among them or change them.
        alone = self.answering and self.last and len(self.agents) == 1
        return alone and agent.is_model

    def _timeout(self, agent: ResolvedAgent) -> float | None:
        for timeout in (self.step.timeout, self.options.timeout):
            if timeout != "default":
                return timeout
        return None if agent.is_graph else DEFAULT_TIMEOUT

    def _quorum(self, state: MixtureState) -> Quorum:
        step = self.step
        return Quorum(
            # Where one call is made, there is no other that a condition could end.
            step.quorum if len(self.agents) > 1 else None,
            step.grace,
            calls=range(len(self.agents)),
            before=self.before(state)["responses"] if step.add else (),
        )

    def gathered(
        self, state: MixtureState, run: Run
    ) -> tuple[Quorum, Question | None, bool]:
        """Return the step's quorum, once its branches have run.

        Returns:
            The quorum; the question to put to its condition, where replies come from a
            checkpoint; and whether the branches ran in this process.
        """
        # Branches that ran in this process left their superstep in the run. After a
        # resume only their replies are there, from the checkpoint.
        shared: Superstep | None = run.supersteps.pop(self.name, None)
        if shared is not None:
            return shared.quorum, None, True
        quorum = self._quorum(state)
        question = None
        for reply in state.get("replies", []):
            question = quorum.take(reply, is_last=False) or question
        return quorum, question, False

    def missing(
        self, state: MixtureState, run: Run, quorum: Quorum, *, fresh: bool
    ) -> list[list[Attempt]]:
        """Return the attempts that the step's own node has to make.

        A step without branches makes all its calls here. After its branches have run,
        none is left. After a resume, the failed calls are made again; otherwise a
        thread whose calls all failed could never go on.

        Args:
            state: The state of the graph.
            run: The run that the attempts belong to.
            quorum: The step's quorum.
            fresh: Whether the branches ran in this process.
        """
        ends = self.ends(run)
        replies = state.get("replies", [])
        have = {r["index"] for r in replies if fresh or r["error"] is None}
        if not self.agents or (fresh and have) or quorum.is_met or quorum.error:
            return []
        return list(self.attempts(state, run, ends, have).values())

    def kept(
        self, state: MixtureState, replies: Sequence[Reply]
    ) -> list[Response] | Awaitable[list[Response]]:
        """Return the responses that the step keeps, given the last reply to each call.

        A call with fallbacks has several replies, one per attempt.
        """
        last_of = {reply["index"]: reply for reply in replies}
        return self.step.keep(self.before(state)["responses"], list(last_of.values()))


class Superstep:
    """The attempts, the quorum and the time limit that a step's branches share.

    Args:
        quorum: The step's quorum.
        ends: When the step's share of the deadline ends, on the monotonic clock.
        saved: The replies of branches that an earlier run has saved.
    """

    def __init__(
        self, quorum: Quorum, ends: float | None, saved: Sequence[Reply] = ()
    ) -> None:
        self.quorum = quorum
        self.ends = ends
        self._saved = saved
        self._attempts: dict[int, list[Attempt]] | None = None
        self._lock = threading.Lock()

    def attempts(
        self, make: Callable[[], dict[int, list[Attempt]]]
    ) -> dict[int, list[Attempt]]:
        """Return the step's attempts; `make` is called once for all branches."""
        with self._lock:
            if self._attempts is None:
                self._attempts = make()
                self.quorum.expect(self._attempts)
                self.quorum.take_saved(self._saved)
            return self._attempts


def layers_of(
    steps: Steps,
    client: Client,
    options: Options,
    name: str | None = None,
) -> list[Layer]:
    """Return the layers of a pipeline, with the agents of each step resolved.

    Raises:
        InvalidMixtureError: A step, an agent or the client cannot be used.
    """
    steps = flat(steps)
    bounds = bounds_of(steps, options)
    resolve = resolver(client)
    answering = answering_of(steps)
    samples = _samples(steps)
    parts = _parts(steps)
    layers = [
        Layer(
            step=step,
            name=node,
            answer_name=name,
            agents=resolved(step, bounds[k][0], node, resolve, samples[k]),
            most=bounds[k][1],
            fallbacks=resolved(step, step.fallbacks, node, resolve),
            first=k == 0,
            last=k == len(steps) - 1,
            answering=k in answering,
            advised=k == min(answering, default=-1),
            options=options,
            steps_left=len({parts[n] for n in range(k, len(steps)) if bounds[n][0]}),
        )
        for k, (step, node) in enumerate(zip(steps, names_of(steps), strict=True))
    ]
    check_priced([a for x in layers for a in (*x.agents, *x.fallbacks)], options)
    return layers


def _samples(steps: Sequence[Step]) -> list[Counter[str]]:
    """Return the counter of samples of each step.

    Steps that add share that of the step whose responses they add to, so that a prompt
    cache gives no two samples of one model the same answer.
    """
    counters: list[Counter[str]] = []
    writing: Counter[str] = Counter()
    for step in steps:
        if step.answers and not step.add:
            writing = Counter()
        counters.append(writing if step.answers else Counter())
    return counters


def _parts(steps: Sequence[Step]) -> list[int]:
    """Return a number for each step; neighbours that share a condition share it."""
    parts = [0]
    for one, other in pairwise(steps):
        shared = any(c in conditions_of(other) for c in conditions_of(one))
        parts.append(parts[-1] + (not shared))
    return parts
