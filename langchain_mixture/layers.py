"""Layers: the steps in their places, and what each asks."""

from __future__ import annotations

import operator
import re
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Final

from langchain_core.messages import AIMessage, AnyMessage, MessageLikeRepresentation
from langgraph.channels import Topic
from langgraph.errors import GraphBubbleUp
from langgraph.graph import add_messages
from typing_extensions import TypedDict

from langchain_mixture.agents import Client, Member, members, resolver
from langchain_mixture.attempt import Attempt
from langchain_mixture.errors import InvalidMixtureError, StepFailedError, shown
from langchain_mixture.limits import Budget, Options
from langchain_mixture.records import (
    Call,
    LLMCall,
    Mixture,
    Reply,
    Response,
    calls_of,
    row,
    usage_of,
)
from langchain_mixture.run import Run
from langchain_mixture.secrets import describe
from langchain_mixture.steps import Agent, Step
from langchain_mixture.waiting import Quorum

DEFAULT_TIMEOUT: Final = 300.0
"""Seconds that a call to a model may take, or the next chunk of a streamed answer."""


NOTHING: Final = Mixture(
    status="complete", reasons=[], responses=[], history=[], usage=usage_of([])
)


class MixtureInput(TypedDict):
    """What goes into the graph."""

    messages: Annotated[list[AnyMessage | MessageLikeRepresentation], add_messages]


class MixtureOutput(TypedDict):
    """What comes out of it."""

    messages: Annotated[list[AnyMessage], add_messages]
    mixture: Annotated[Mixture, operator.or_]


class MixtureState(MixtureOutput):
    """What the nodes share. Nothing in it grows from turn to turn but the messages."""

    replies: Annotated[list[Reply], Topic(Reply)]
    """What the branches of a step got; it lives until the step's own node has run."""
    answers: dict[str, AIMessage]
    """The models' own messages, by response id, until the answer is chosen."""


@dataclass(frozen=True)
class Layer:
    """One step, its place in the pipeline, and the agents that it may ask."""

    step: Step
    name: str
    """Such as `1_propose`."""
    members: Sequence[Member]
    """Whom it may ask, one a call."""
    fallbacks: Sequence[Member]
    first: bool
    last: bool
    answering: bool
    """Whether it is the last step that writes text: the answer is one of its own."""
    options: Options
    steps_left: int
    """How many steps that ask there are, from this one on."""

    @property
    def branches(self) -> list[str]:
        if len(self.members) < 2:
            return []
        return [f"{self.name}/{member.label}" for member in self.members]

    def before(self, state: MixtureState) -> Mixture:
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
        with self.blamed(state):
            if not state.get("messages"):
                raise ValueError(
                    "the conversation is empty; it needs one message or more"
                )
            calls = self.step.calls(state["messages"], self.before(state)["responses"])
            if len(calls) > len(self.members):
                raise ValueError(
                    f"calls() made {len(calls)} calls of at most {len(self.members)}, "
                    "which bounds() allows"
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
        agents = [(index, self.members[index]) for index in asked]
        spare = [(index, member) for index in asked for member in self.fallbacks]
        for index, member in [*agents, *spare]:  # these are asked before those
            streams = self._streams(member)
            attempt = Attempt(
                member=member,
                call=calls[index],
                run=run,
                step=self.name,
                index=index,
                attempt=len(attempts[index]),
                timeout=self._timeout(member),
                ends=ends,
                refused=budget.spend(calls[index], member),
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

    def _streams(self, member: Member) -> bool:
        """Whether the tokens of an agent are the answer's stream."""
        alone = self.answering and self.last and len(self.members) == 1
        return alone and member.is_model

    def _timeout(self, member: Member) -> float | None:
        for timeout in (self.step.timeout, self.options.timeout):
            if timeout != "default":
                return timeout
        return None if member.is_graph else DEFAULT_TIMEOUT

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
        if not self.members:
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
    asked = whom(steps, options)
    resolve = resolver(client)
    answering = max((k for k, step in enumerate(steps) if step.answers), default=-1)
    return [
        Layer(
            step=step,
            name=name,
            members=members(step, asked[k], name, resolve),
            fallbacks=members(step, step.fallbacks, name, resolve),
            first=k == 0,
            last=k == len(steps) - 1,
            answering=k == answering,
            options=options,
            steps_left=sum(1 for agents in asked[k:] if agents),
        )
        for k, (step, name) in enumerate(zip(steps, names_of(steps), strict=True))
    ]


def whom(steps: Sequence[Step], options: Options) -> list[Sequence[Agent]]:
    """Give the agents that each step may ask, by what can arrive at it.

    Raises:
        InvalidMixtureError: It is no pipeline, or a step can get no response.
    """
    check_steps(steps)
    asked: list[Sequence[Agent]] = []
    arriving = 0
    for step, name in zip(steps, names_of(steps), strict=True):
        agents, leaving = step.bounds(arriving)
        if not leaving:
            raise InvalidMixtureError(
                f"{name} needs responses and can get none: begin with a step that "
                "makes some, such as Propose."
            )
        asked.append(agents)
        # Where a step may stop without an answer, what it was given goes on.
        stops = options.stops and len(agents) > 0
        arriving = max(arriving, leaving) if stops else leaving
    return asked


def count_calls(steps: Sequence[Step]) -> int:
    """Say how many calls a pipeline makes at most where none of them fails.

    Fallbacks and retries are not in it, and an agent that is a mixture or another graph
    is one call.

    Example:
        >>> from langchain_mixture import together_moa
        >>> count_calls(together_moa())
        13
    """
    check_steps(steps)
    calls = arriving = 0
    for step in steps:
        agents, arriving = step.bounds(arriving)
        calls += len(agents)
    return calls


def check_steps(steps: object) -> None:
    """Refuse what is no pipeline.

    Raises:
        InvalidMixtureError: It is no list of steps, or empty.
    """
    if not isinstance(steps, list | tuple) or not steps:
        raise InvalidMixtureError(
            f"steps is {shown(steps)}; allowed: a list of one or more steps."
        )
    for index, step in enumerate(steps):
        if isinstance(step, type) and issubclass(step, Step):
            raise InvalidMixtureError(
                f"steps[{index}] is the class {step.__name__}; write {step.__name__}(…)"
                " for an instance of it."
            )
        if not isinstance(step, Step):
            raise InvalidMixtureError(
                f"steps[{index}] is {shown(step)}; allowed: an instance of Step."
            )


def names_of(steps: Sequence[Step]) -> list[str]:
    """Name each step in the graph, such as `1_propose`."""
    kinds = (type(step).__name__ for step in steps)
    words = (re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind).lower() for kind in kinds)
    return [f"{number}_{name}" for number, name in enumerate(words, 1)]
