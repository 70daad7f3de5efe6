"""Layers: the steps in their places, and what each asks."""

from __future__ import annotations

import operator
import re
import threading
import time
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, NotRequired

from langchain_core.messages import AIMessage, AnyMessage, MessageLikeRepresentation
from langgraph.channels import Topic, UntrackedValue
from langgraph.errors import GraphBubbleUp
from langgraph.graph import add_messages
from typing_extensions import TypedDict

from langchain_mixture.agents import Client, Member, members, resolver
from langchain_mixture.errors import (
    InvalidMixtureError,
    StepFailedError,
    describe,
    shown,
)
from langchain_mixture.limits import Budget, Latch, Options
from langchain_mixture.records import Call, Mixture, Reply, Response, row, usage_of
from langchain_mixture.request import Question, Request
from langchain_mixture.steps import Agent, Step

DEFAULT_TIMEOUT: Final = 300.0
"""Seconds that a call to a model may take, or the next chunk of a streamed answer."""


MAX_SUPERSTEPS: Final = 10_000
"""How many runs may be at one step at once, in one process, and share their work."""


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
    asked: Annotated[bool, UntrackedValue(bool, guard=False)]
    """Set by branches and never saved: it is missing where a run was resumed."""
    answers: dict[str, AIMessage]
    """The models' own messages, by response id, until the answer is chosen."""
    request: Annotated[Request, UntrackedValue(Request)]
    """The tools and settings that a ChatMixture was called with."""
    ends: NotRequired[Annotated[float, UntrackedValue(float, guard=False)]]
    """When the deadline is, on the monotonic clock of this process."""


class ChatInput(MixtureInput):
    """What ChatMixture puts into its graph."""

    request: Annotated[Request, UntrackedValue(Request)]


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
    supersteps: dict[str, Superstep] = field(default_factory=dict, compare=False)
    """The runs that are at this step's branches, by checkpoint."""

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
                    "the conversation is empty; the input is "
                    '{"messages": [...]} with one message or more'
                )
            calls = self.step.calls(state["messages"], self.before(state)["responses"])
            if len(calls) > len(self.members):
                raise ValueError(
                    f"calls() made {len(calls)} calls of at most {len(self.members)}, "
                    "which bounds() allows"
                )
        return calls

    def attempts(
        self, state: MixtureState, calls: Sequence[Call], index: int
    ) -> list[Question]:
        """Give one call as a question to its agent, and those to its fallbacks."""
        streams = self.answering and self.last and len(self.members) == 1
        budget = Budget.of(self.options, self.before(state)["history"])
        for call, member in zip(calls[:index], self.members, strict=False):
            budget.spend(call, member)
        return [
            Question(
                member=asked,
                call=calls[index],
                request=state.get("request") or Request(),
                step=self.name,
                index=index,
                attempt=attempt,
                timeout=self._timeout(asked),
                ends=self._ends(state),
                counts=self.options.max_total_tokens is not None,
                unasked=self._too_late(state) or budget.spend(calls[index], asked),
                streams=streams and asked.is_model,
                visible=(streams and asked.is_model) or self.options.stream_proposals,
                writes=self.step.answers,
                may_answer=self.answering,
            )
            for attempt, asked in enumerate((self.members[index], *self.fallbacks))
        ]

    def _timeout(self, member: Member) -> float | None:
        for timeout in (self.step.timeout, self.options.timeout):
            if timeout != "default":
                return timeout
        return None if member.is_graph else DEFAULT_TIMEOUT

    def marks(self, state: MixtureState) -> dict[str, Any]:
        """Give what a run must know of itself, and is never saved."""
        if self.options.deadline is None or "ends" in state:
            return {}
        return {"ends": time.monotonic() + self.options.deadline}

    def _ends(self, state: MixtureState) -> float | None:
        """Give the step an equal share of the time that is left to it and the next."""
        if self.options.deadline is None:
            return None
        now = time.monotonic()
        left = state["ends"] - now if "ends" in state else self.options.deadline
        return now + left / self.steps_left

    def _too_late(self, state: MixtureState) -> str | None:
        if "ends" in state and time.monotonic() >= state["ends"]:
            return f"not asked: the deadline of {self.options.deadline:g} s has passed"
        return None

    def superstep(self, checkpoint: str) -> Superstep:
        """Give what the branches of one run share, which are at one checkpoint."""
        if len(self.supersteps) >= MAX_SUPERSTEPS:  # left by runs that were cut off
            self.supersteps.pop(next(iter(self.supersteps)), None)
        return self.supersteps.setdefault(checkpoint, Superstep(self))

    def quorum_left(self, state: MixtureState) -> Latch:
        """Give the quorum of the calls that a resumed step makes again."""
        quorum = self.step.quorum
        have = sum(reply["error"] is None for reply in state.get("replies", []))
        return Latch(None if quorum is None else quorum - have, self.step.grace)

    def missing(self, state: MixtureState) -> list[list[Question]]:
        """Give the questions that have no answer, for the step's own node to ask.

        Those are all where there are no branches, and none where they have just run.
        After a resume they are the failed ones: were they not asked again, a thread
        whose calls all failed would stay a dead end.
        """
        if not self.members:
            return []
        fresh = "asked" in state
        replies = state.get("replies", [])
        have = {r["index"] for r in replies if fresh or r["error"] is None}
        met = self.step.quorum is not None and len(have) >= self.step.quorum
        if (fresh and have) or met:
            return []
        calls = self.calls(state)
        indices = (index for index in range(len(calls)) if index not in have)
        return [self.attempts(state, calls, index) for index in indices]

    def kept(
        self, state: MixtureState, replies: Sequence[Reply]
    ) -> list[Response] | Awaitable[list[Response]]:
        """Let the step choose; where a call has fallbacks, their last reply counts."""
        last_of = {reply["index"]: reply for reply in replies}
        return self.step.keep(self.before(state)["responses"], list(last_of.values()))


class Superstep:
    """What the branches of one step share in one run: their calls and their quorum."""

    def __init__(self, layer: Layer) -> None:
        self.latch = Latch(layer.step.quorum, layer.step.grace)
        self._layer = layer
        self._left = len(layer.members)
        self._calls: Sequence[Call] | None = None
        self._lock = threading.Lock()

    def calls(self, state: MixtureState) -> Sequence[Call]:
        """Give the step's calls, which are worked out once for all branches."""
        with self._lock:
            if self._calls is None:
                self._calls = self._layer.calls(state)
            return self._calls

    def done(self) -> bool:
        """Take note that a branch is done, and tell whether it was the last one."""
        with self._lock:
            self._left -= 1
            return self._left == 0


def layers_of(
    steps: Sequence[Step],
    client: Client,
    options: Options,
) -> list[Layer]:
    """Put each step in its place, and resolve its agents.

    Raises:
        InvalidMixtureError: A step, an agent or the client cannot be used.
    """
    check_steps(steps)
    resolve = resolver(client)
    answering = max((k for k, step in enumerate(steps) if step.answers), default=-1)
    names = [f"{k + 1}_{_snake(type(step).__name__)}" for k, step in enumerate(steps)]
    asked = _whom(steps, names, options)
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
        for k, (step, name) in enumerate(zip(steps, names, strict=True))
    ]


def _whom(
    steps: Sequence[Step], names: Sequence[str], options: Options
) -> list[Sequence[Agent]]:
    """Give the agents that each step may ask, by what can arrive at it."""
    asked: list[Sequence[Agent]] = []
    arriving = 0
    for step, name in zip(steps, names, strict=True):
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


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
