"""Layers: the steps in their places, and what each asks."""

from __future__ import annotations

import operator
import re
import threading
import time
from collections.abc import Awaitable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, NamedTuple, NotRequired, TypeAlias

from langchain_core.messages import AIMessage, AnyMessage, MessageLikeRepresentation
from langgraph.channels import Topic, UntrackedValue
from langgraph.errors import GraphBubbleUp
from langgraph.graph import add_messages
from typing_extensions import TypedDict

from langchain_mixture.agents import Client, Member, members, resolver
from langchain_mixture.errors import InvalidMixtureError, StepFailedError, shown
from langchain_mixture.limits import Budget, Latch, Options
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
from langchain_mixture.request import Question, Request
from langchain_mixture.secrets import describe
from langchain_mixture.steps import Agent, Step

DEFAULT_TIMEOUT: Final = 300.0
"""Seconds that a call to a model may take, or the next chunk of a streamed answer."""


MAX_SUPERSTEPS: Final = 10_000
"""How many runs may be at one step at once, in one process, and share their work."""


Run: TypeAlias = tuple[str, object]
"""A checkpoint, which two runs may resume at once, and what is one run's alone."""


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
    asked: Annotated[str, UntrackedValue(str, guard=False)]
    """The superstep of the branches; never saved: it is missing where a run was
    resumed."""
    answers: dict[str, AIMessage]
    """The models' own messages, by response id, until the answer is chosen."""
    request: Annotated[Request, UntrackedValue(Request)]
    """The tools and settings that a ChatMixture was called with."""
    deadline: NotRequired[Annotated[float, UntrackedValue(float, guard=False)]]
    """When it is, on the monotonic clock of this process."""


class Times(NamedTuple):
    """On the monotonic clock of this process; None = no limit."""

    deadline: float | None
    """When the run has to end."""
    ends: float | None
    """When the step's share of it is used up."""

    @property
    def marks(self) -> dict[str, Any]:
        """Give what the steps that follow must know, for the state."""
        return {} if self.deadline is None else {"deadline": self.deadline}


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
    supersteps: dict[Run, Superstep] = field(default_factory=dict, compare=False)
    """The runs that are at this step's branches."""

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

    def questions(
        self, state: MixtureState, times: Times, have: Collection[int] = ()
    ) -> dict[int, list[Question]]:
        """Give each call but those in `have` as a question, and to the fallbacks."""
        calls = self.calls(state)
        asked = [index for index in range(len(calls)) if index not in have]
        budget = Budget.of(self.options, self._spent(state))
        questions: dict[int, list[Question]] = {index: [] for index in asked}
        agents = [(index, self.members[index]) for index in asked]
        spare = [(index, member) for index in asked for member in self.fallbacks]
        for index, member in [*agents, *spare]:  # these are asked before those
            streams = self._streams(member)
            question = Question(
                member=member,
                call=calls[index],
                request=state.get("request") or Request(),
                step=self.name,
                index=index,
                attempt=len(questions[index]),
                timeout=self._timeout(member),
                ends=times.ends,
                refused=budget.spend(calls[index], member),
                streams=streams,
                visible=streams or self.options.stream_proposals,
                writes=self.step.answers,
                may_answer=self.answering,
            )
            questions[index].append(question)
        return questions

    def _spent(self, state: MixtureState) -> list[LLMCall]:
        """Give the calls of this turn that were made, a resumed step's included."""
        history = self.before(state)["history"]
        return [
            *(call for row in history for call in row["llm_calls"]),
            *calls_of(state.get("replies", [])),
        ]

    def _streams(self, member: Member) -> bool:
        """Tell whether the tokens of an agent are the answer's stream."""
        alone = self.answering and self.last and len(self.members) == 1
        return alone and member.is_model

    def _timeout(self, member: Member) -> float | None:
        for timeout in (self.step.timeout, self.options.timeout):
            if timeout != "default":
                return timeout
        return None if member.is_graph else DEFAULT_TIMEOUT

    def times(self, state: MixtureState) -> Times:
        """Begin the step: it gets an equal share of the time that is left."""
        now = time.monotonic()
        if self.options.deadline is None:
            return Times(None, None)
        deadline = state.get("deadline", now + self.options.deadline)
        return Times(deadline, now + (deadline - now) / max(1, self.steps_left))

    def superstep(self, run: Run, state: MixtureState) -> Superstep:
        """Give what the branches of one run share, which are at one checkpoint."""
        if len(self.supersteps) >= MAX_SUPERSTEPS:  # left by runs that were cut off
            self.supersteps.pop(next(iter(self.supersteps)), None)
        return self.supersteps.setdefault(run, Superstep(self, state))

    def quorum_left(self, state: MixtureState) -> Latch:
        """Give the quorum of the calls that a resumed step makes again."""
        quorum = self.step.quorum
        have = sum(reply["error"] is None for reply in state.get("replies", []))
        return Latch(None if quorum is None else quorum - have, self.step.grace)

    def missing(self, state: MixtureState, times: Times) -> list[list[Question]]:
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
        return list(self.questions(state, times, have).values())

    def kept(
        self, state: MixtureState, replies: Sequence[Reply]
    ) -> list[Response] | Awaitable[list[Response]]:
        """Let the step choose; where a call has fallbacks, their last reply counts."""
        last_of = {reply["index"]: reply for reply in replies}
        return self.step.keep(self.before(state)["responses"], list(last_of.values()))


class Superstep:
    """What the branches of one step share in one run: questions, quorum, time."""

    def __init__(self, layer: Layer, state: MixtureState) -> None:
        self.latch = Latch(layer.step.quorum, layer.step.grace)
        self.times = layer.times(state)
        self._layer = layer
        self._under_way = len(layer.members)
        self._questions: dict[int, list[Question]] | None = None
        self._lock = threading.Lock()

    def questions(self, state: MixtureState) -> dict[int, list[Question]]:
        """Give the step's questions, which are worked out once for all branches."""
        with self._lock:
            if self._questions is None:
                self._questions = self._layer.questions(state, self.times)
            return self._questions

    def leave(self) -> bool:
        """End a branch, and tell whether it was the last one."""
        with self._lock:
            self._under_way -= 1
            return not self._under_way


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
