"""Candidates: what is compared, and the single models inside each mixture.

The agents of every step are put behind a `Recorded`, which looks an answer up before it
asks. So a mixture's proposals are its members' answers, and nothing is asked twice.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, TypeAlias, cast

from langchain_core.messages import BaseMessage, convert_to_messages
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import merge_configs

from langchain_mixture import Agent, ChatMixture, Client, Propose, Reply, Response, Step
from langchain_mixture.evaluation.identity import Identities, name_of, resolved
from langchain_mixture.evaluation.store import (
    Asked,
    Refused,
    Store,
    key_of,
    written_out,
)

Candidates: TypeAlias = Mapping[str, Sequence[Step] | Agent]
"""By name: a list of steps or a ChatMixture (a mixture), or a model's name or any
Runnable from messages to a message or text (a single model)."""

AtHand: TypeAlias = dict[tuple[int, str, int], Asked]
"""A question's answers, by run, single model, and sample."""


@dataclass
class Run:
    """One candidate at one question, once."""

    store: Store
    question: str
    number: int
    """From 1, where each question is repeated."""
    at_hand: AtHand
    tick: Callable[[], None]
    """Called after each call."""
    calls: list[tuple[int, int, Asked]] = field(default_factory=list)
    """The step, the position in it, and the call."""
    refused: bool = False
    """Whether a limit refused a call, so that the answer is not the candidate's."""

    @property
    def seconds(self) -> float:
        """The time of the critical path: of the slowest branch of each step."""
        steps: dict[int, dict[int, float]] = {}
        for step, position, asked in self.calls:
            branches = steps.setdefault(step, {})
            branches[position] = branches.get(position, 0.0) + asked.seconds
        return sum(max(branches.values()) for branches in steps.values())


_RUN: ContextVar[Run] = ContextVar("run")


@dataclass(frozen=True)
class Single:
    """A model with its settings, asked by itself."""

    agent: Agent
    model: Runnable[Any, Any]
    """The agent, its name resolved."""
    step: Propose
    """What asks it: its settings, and the persona of its step."""
    base: ChatMixture
    """Resolves names, and brings what a ChatMixture sets for the answer."""
    identity: Any
    """Of the agent."""
    by: str
    """What tells the agent and its settings apart from others."""

    def alone(self, sample: int = 1) -> ChatMixture:
        """Return a pipeline of this model alone."""
        recorded = Slot(self, 0, 0, sample).recorded
        step = _with_agents(self.step, 0, lambda _: ([recorded], 1), ())
        return self.base.model_copy(update={"steps": [step]})


@dataclass(frozen=True)
class Slot:
    """A model in its place in a pipeline."""

    single: Single
    index: int
    """Of the step, from 0."""
    position: int
    """In the step, from 0."""
    sample: int
    """Its number among the same models with the same settings, from 1."""
    shared: bool = True
    """Whether it is asked what the model alone would be asked."""

    @property
    def recorded(self) -> Recorded:
        """The agent, behind the store."""
        return Recorded(
            bound=self.single.model, slot=self, name=name_of(self.single.agent)
        )


class Recorded(RunnableBindingBase[Any, Any]):
    """An agent that is asked only what the store does not know."""

    slot: Any

    async def ainvoke(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Any:
        run, slot = _RUN.get(), self.slot
        messages = convert_to_messages(input)
        sample = f"{run.number}.{slot.sample}"
        asked = Asked(
            key=key_of(slot.single.identity, kwargs, written_out(messages), sample),
            question=run.question,
            agent=name_of(slot.single.agent),
            sample=sample,
            by=slot.single.by,
            seconds=0.0,
        )

        async def call(counter: Any) -> Any:
            merged = merge_configs(config, {"callbacks": [counter]})
            marked = messages if sample == "1.1" else _marked(messages, sample)
            return await super(Recorded, self).ainvoke(marked, merged, **kwargs)

        try:
            done = await run.store.ask(asked, messages, call, kwargs.get("max_tokens"))
        except Refused:
            run.refused = True
            raise
        run.calls.append((slot.index, slot.position, done))
        run.tick()
        if slot.shared:
            run.at_hand[run.number, slot.single.by, slot.sample] = done
        if done.error is not None:
            raise run.store.failure(done)
        return done.output()


def _marked(messages: Sequence[BaseMessage], sample: str) -> list[BaseMessage]:
    """Mark a sample, so that a cache of the model's gives no two the same answer."""
    *front, last = messages
    metadata = {**last.response_metadata, "sample": sample}
    return [*front, last.model_copy(update={"response_metadata": metadata})]


@dataclass
class Candidate:
    """One that takes part, ready to be asked."""

    name: str
    model: ChatMixture
    """The pipeline, its agents behind the store."""
    steps: Sequence[Step]
    """The pipeline as it was given."""
    slots: Sequence[Slot]
    single: Single | None = None
    """The model, where it is no mixture."""
    members: list[str] = field(default_factory=list)
    """The names of a mixture's single models."""
    samples: set[int] = field(default_factory=lambda: {1})
    """The samples of a single model that are averaged: those that mixtures ask for."""

    @property
    def is_mixture(self) -> bool:
        """Whether a verdict is given on it."""
        return self.single is None


async def answer_of(
    model: ChatMixture, conversation: Sequence[BaseMessage], run: Run
) -> Any:
    """Ask a pipeline whose agents are behind a store; raises what it raises."""
    token = _RUN.set(run)
    try:
        return await model.ainvoke(list(conversation))
    finally:
        _RUN.reset(token)


class Plan:
    """All candidates: those given, and the single models inside the mixtures.

    Raises:
        ValueError: There is none, or one is no candidate.
        InvalidMixtureError: A pipeline cannot be built.
    """

    def __init__(self, given: Candidates, client: Client = None) -> None:
        if not isinstance(given, Mapping) or not given:
            raise ValueError(
                "candidates is empty or no mapping; allowed: a mapping from names to "
                "lists of steps, ChatMixtures, names of models, or other Runnables"
            )
        self.identities = Identities()
        self._models: dict[object, Runnable[Any, Any]] = {}
        self.candidates: dict[str, Candidate] = {}
        """By name."""
        for name, what in given.items():
            self.candidates[name] = self._candidate(name, what, client)
        for mixture in self.mixtures:
            self._add_members(mixture)

    @property
    def mixtures(self) -> list[Candidate]:
        """Those on which a verdict is given."""
        return [each for each in self.candidates.values() if each.is_mixture]

    @property
    def singles(self) -> list[Candidate]:
        """The single models."""
        return [each for each in self.candidates.values() if not each.is_mixture]

    def _candidate(self, name: str, what: object, client: Client) -> Candidate:
        if isinstance(what, ChatMixture):
            return self.mixed(name, what)
        if isinstance(what, list | tuple):
            return self.mixed(name, ChatMixture(what, client=client))
        if isinstance(what, str | Runnable):
            return self.alone(name, what, client)
        raise ValueError(
            f"candidates[{name!r}] is a {type(what).__name__}; allowed: a list of "
            "steps, a ChatMixture, the name of a model, or another Runnable"
        )

    def alone(self, name: str, agent: Agent, client: Client) -> Candidate:
        """Return a single model."""
        base = ChatMixture([Propose([agent])], client=client)
        _ = base.graph  # a name is resolved before anything is paid
        return _alone(name, self._single(agent, base.steps[0], base))

    def mixed(self, name: str, mixture: ChatMixture) -> Candidate:
        """Return a mixture whose agents are behind the store."""
        _ = mixture.graph
        mixture = mixture.model_copy(update={"steps": _flat(mixture.steps)})
        slots: list[Slot] = []
        steps: list[Step] = []
        arriving = 0
        for index, step in enumerate(mixture.steps):
            recorded, own = self._recorded(mixture, index, arriving, slots)
            slots += own
            steps.append(recorded)
            arriving = step.bounds(arriving)[1]
        model = mixture.model_copy(update={"steps": steps})
        return Candidate(name, model, mixture.steps, slots)

    def _recorded(
        self, mixture: ChatMixture, index: int, arriving: int, before: Sequence[Slot]
    ) -> tuple[Step, list[Slot]]:
        """Put the agents of a step behind the store; return it, and their slots."""
        step = mixture.steps[index]
        base = mixture if _may_answer(mixture.steps, index) else _plain(mixture)
        slots: dict[tuple[int, Any], tuple[Slot, Recorded]] = {}

        def recorded(agent: Agent, position: int) -> Recorded:
            place = position, agent if isinstance(agent, str) else id(agent)
            if place not in slots:
                single = self._single(agent, _asking(step, agent), base)
                others = [
                    *before,
                    *(s for s, _ in slots.values() if s.position < position),
                ]
                sample = 1 + sum(other.single.by == single.by for other in others)
                shared = isinstance(step, Propose)
                slot = Slot(single, index, position, sample, shared)
                slots[place] = slot, slot.recorded
            return slots[place][1]

        def bounds(n: int) -> tuple[Sequence[Agent], int]:
            agents, leaving = step.bounds(n)
            return [recorded(agent, i) for i, agent in enumerate(agents)], leaving

        bounds(arriving)
        own = [slot for slot, _ in slots.values()]
        fallbacks = [recorded(agent, 0) for agent in step.fallbacks]
        return _with_agents(step, index, bounds, fallbacks), own

    def _single(self, agent: Agent, step: Propose, base: ChatMixture) -> Single:
        own = {f.name: getattr(step, f.name) for f in fields(step)}
        settings = {name: own[name] for name in own.keys() - _SEVERAL}
        said = base.temperature, base.max_tokens, base.stop
        identity = self.identities.of(agent, base.client)
        by = key_of(identity, settings, said)
        place = agent, id(base.client)
        if isinstance(agent, str) and place not in self._models:
            self._models[place] = resolved(agent, base.client)
        model = self._models[place] if isinstance(agent, str) else agent
        return Single(agent, model, step, base, identity, by)

    def _add_members(self, mixture: Candidate) -> None:
        """Add the single models of a mixture that are no candidates yet."""
        for slot in mixture.slots:
            step = mixture.steps[slot.index]
            if not step.answers:
                continue  # a judge
            alike = (one for one in self.singles if _by(one) == slot.single.by)
            member = next(alike, None)
            if member is None:
                member = _alone(_free(self.candidates, slot.single), slot.single)
                self.candidates[member.name] = member
            if member.name not in mixture.members:
                mixture.members.append(member.name)
            if slot.shared and getattr(step, "unless", None) is None:
                member.samples.add(slot.sample)


def _flat(steps: Sequence[Any]) -> list[Step]:
    """Return the steps of a pipeline, those of lists inside it in their place."""
    return [
        step
        for each in steps
        for step in (_flat(each) if isinstance(each, list | tuple) else [each])
    ]


def _may_answer(steps: Sequence[Step], index: int) -> bool:
    """Whether a step writes, and all that write behind it may be skipped, or add."""
    writers = [step for step in steps[index + 1 :] if step.answers]
    return steps[index].answers and all(s.unless is not None or s.add for s in writers)


def _by(candidate: Candidate) -> str | None:
    return candidate.single.by if candidate.single else None


def _alone(name: str, single: Single) -> Candidate:
    return Candidate(
        name, single.alone(), [single.step], [Slot(single, 0, 0, 1)], single
    )


def _plain(mixture: ChatMixture) -> ChatMixture:
    """Return a copy without what is set for the answer alone."""
    own = {"temperature": None, "max_tokens": None, "stop": None}
    return mixture.model_copy(update=own)


def _free(taken: Mapping[str, object], single: Single) -> str:
    """Return a name that is not taken: the model's, or with its settings."""
    said = {"temp": single.step.temp, "max_tokens": single.step.max_tokens}
    settings = ", ".join(f"{k}={v}" for k, v in said.items() if v is not None)
    name = name_of(single.agent)
    longer = f"{name} ({settings or 'alone'})"
    numbered = (f"{longer} #{number}" for number in range(2, len(taken) + 3))
    return next(one for one in [name, longer, *numbered] if one not in taken)


_SEVERAL: Final = frozenset(
    {"agents", "timeout", "quorum", "grace", "unless", "add", "fallbacks", "seed"}
)
"""Fields of a Propose step that say nothing about one agent asked by itself."""


def _asking(step: Step, agent: Agent) -> Propose:
    """Return the step that asks an agent of a step by itself, with its settings."""
    if not isinstance(step, Propose):
        return Propose([agent], temp=step.temp, max_tokens=step.max_tokens)
    own = {f.name: getattr(step, f.name) for f in fields(step) if f.init}
    settings = {name: own[name] for name in own.keys() - _SEVERAL}
    return type(step)(agents=[agent], **settings)


def _with_agents(
    step: Step,
    index: int,
    bounds: Callable[[int], tuple[Sequence[Agent], int]],
    fallbacks: Sequence[Agent],
) -> Step:
    """Return a copy of a step that asks other agents, and draws the same each time."""

    def drawn() -> Step:
        if getattr(step, "seed", 0) is not None:
            return step
        run = _RUN.get()  # another draw for each question, the same after a restart
        number = int(key_of(run.question, run.number, index), 16) % 2**31
        return cast("Step", replace(cast("Any", step), seed=number))

    def calls(conversation: Any, responses: Sequence[Response]) -> Any:
        return drawn().calls(conversation, responses)

    def keep(responses: Sequence[Response], replies: Sequence[Reply]) -> Any:
        return drawn().keep(responses, replies)

    changed = copy.copy(step)
    methods = {"bounds": bounds, "calls": calls, "keep": keep}
    for name, value in {**methods, "fallbacks": tuple(fallbacks)}.items():
        object.__setattr__(changed, name, value)  # steps are frozen
    return changed
