"""The steps that ask models: those that write, `Analyze`, and `Rank`."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import cycle, islice
from typing import ClassVar, cast

from langchain_core.messages import BaseMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable

from langchain_mixture.errors import shown as error_shown
from langchain_mixture.records import Call, Kept, Reply, Response, answered
from langchain_mixture.runnables import name_of
from langchain_mixture.steps import prompts
from langchain_mixture.steps.base import Agent, Condition, Place, Prompt, Timeout, View
from langchain_mixture.steps.checks import SHOWING, CheckedStep
from langchain_mixture.steps.ranking import RANKING, ranking


def _asked(
    prompt: Prompt,
    place: Place,
    conversation: Sequence[BaseMessage],
    responses: Sequence[Response],
    **values: str,
) -> list[BaseMessage]:
    """Put an instruction and the responses into a conversation.

    In a string `{query}`, `{responses}`, `{analysis}` and the names of `values` are
    replaced. Unless `{responses}` or `{text}` has brought the responses, they stand in
    their place. An analysis stands behind them unless `{analysis}` has brought it.
    """
    analysis = prompts.analysis_of(responses)
    values |= {
        "query": prompts.query_of(conversation),
        "responses": prompts.numbered(responses),
        "analysis": analysis,
    }
    if isinstance(prompt, ChatPromptTemplate):
        named = set(prompt.input_variables)
    else:
        named = {name for name in values if f"{{{name}}}" in prompt}
    if analysis and "analysis" not in named:
        alone = "text" in named and "responses" not in named
        shown = "text" if alone else "responses"
        values[shown] = f"{values[shown]}\n\n{analysis}"
    if isinstance(prompt, ChatPromptTemplate):
        return prompt.format_messages(messages=list(conversation), **values)
    instruction = prompts.fill(prompt, values)
    if SHOWING & named:
        return prompts.with_system(conversation, instruction)
    if place == "system":
        instruction = f"{instruction}\n\n{values['responses']}"
        return prompts.with_system(conversation, instruction)
    conversation = prompts.with_system(conversation, instruction)
    return prompts.joined(conversation, values["responses"])


def _block(prompt: Prompt, place: Place, responses: Sequence[Response]) -> str | None:
    """Return what `_asked` joins to a conversation; None where it joins nothing."""
    shows = isinstance(prompt, str) and any(f"{{{name}}}" in prompt for name in SHOWING)
    if place == "system" or shows or not isinstance(prompt, str):
        return None
    parts = [prompts.numbered(responses)]
    if "{analysis}" not in prompt:
        parts.append(prompts.analysis_of(responses))
    return "\n\n".join(filter(None, parts))


def _ids(responses: Sequence[Response]) -> list[str]:
    return [response["id"] for response in responses]


def _without_analysis(responses: Sequence[Response]) -> list[Response]:
    return [
        cast("Response", {k: v for k, v in response.items() if k != "analysis"})
        for response in responses
    ]


@dataclass(frozen=True, repr=False)
class Propose(CheckedStep):
    """Ask each agent the conversation as it is; the proposals replace what was there.

    The same agent several times gives as many distinct samples. With `add=True` the
    proposals are put behind what was there: so a panel is asked in waves, and `unless`
    ends it early. Mixture-of-Agents, Wang et al. 2024, arXiv 2406.04692.

    Example:
        >>> len(Propose(["openai:gpt-4o"] * 6, temp=0.7).agents)
        6
    """

    answers: ClassVar[bool] = True
    variables: ClassVar[frozenset[str]] = frozenset({"query", "messages"})
    _fills: ClassVar[bool] = False

    agents: Sequence[Agent]
    """At least one."""
    temp: float | None = None
    """Sampling temperature; None = each model's own setting."""
    max_tokens: int | None = None
    """Limit of each proposal, in tokens; None = each model's own setting."""
    _: KW_ONLY
    prompt: Prompt | None = None
    """A persona, as the text of a system message; or a template over `query` and
    `messages`."""
    timeout: Timeout = "default"
    """Seconds per call; None = no limit; "default" = the mixture's."""
    view: View | None = None
    """What the agents are shown of the conversation: a function or Runnable from
    messages to messages, such as `trim_messages(...)` or `without_tools`."""
    quorum: int | Condition | None = None
    """How many answers are enough, or a condition; None = all calls are waited for."""
    grace: float = 0.0
    """Seconds that the other calls still have when the quorum is met."""
    add: bool = False
    """Whether the responses that were there stay, in front of the proposals. Where all
    calls fail, the run goes on with them, whatever `on_failure`."""

    def bounds(self, n: int) -> tuple[Sequence[Agent], int]:
        return self.agents, len(self.agents) + (n if self.add else 0)

    def keep(
        self, responses: Sequence[Response], replies: Sequence[Reply]
    ) -> list[Response]:
        return [*(responses if self.add else ()), *answered(replies)]

    def calls(
        self, conversation: Sequence[BaseMessage], responses: Sequence[Response]
    ) -> Sequence[Call]:
        conversation = self._viewed(conversation)
        messages = list(conversation)
        if isinstance(self.prompt, ChatPromptTemplate):
            messages = self.prompt.format_messages(
                messages=messages, query=prompts.query_of(conversation)
            )
        elif self.prompt is not None:
            messages = prompts.with_system(conversation, self.prompt)
        return [Call(messages=messages, parents=[]) for _ in self.agents]

    def _viewed(self, conversation: Sequence[BaseMessage]) -> Sequence[BaseMessage]:
        if self.view is None:
            return conversation
        view = self.view.invoke if isinstance(self.view, Runnable) else self.view
        shown = view(list(conversation))
        if not isinstance(shown, list) or not shown:
            raise TypeError(
                f"view returned {error_shown(shown)}; allowed: a list of messages"
            )
        return shown


@dataclass(frozen=True, repr=False)
class Synthesize(CheckedStep):
    """Show every response to each agent; each writes a new one.

    A middle layer of Mixture-of-Agents, Wang et al. 2024, arXiv 2406.04692. With `of`
    each call is shown some responses only, drawn for it alone: so much context does it
    take, however many responses there are, and several rounds are recursive
    self-aggregation, arXiv 2509.26626.

    Example:
        >>> Synthesize(["openai:gpt-4o", "openai:gpt-4o-mini"]).bounds(6)[1]
        2
        >>> round_ = Synthesize(["openai:gpt-4o"] * 16, of=4, seed=1)
    """

    answers: ClassVar[bool] = True

    agents: Sequence[Agent]
    """At least one."""
    prompt: Prompt = prompts.SYNTHESIZE
    """The instruction; `{responses}`, `{query}` and `{analysis}` in it are replaced;
    without `{responses}` they are put behind it. Or a template over these and
    `messages`."""
    temp: float | None = None
    """Sampling temperature; None = each model's own setting."""
    max_tokens: int | None = None
    """Limit of each reply, in tokens; None = each model's own setting."""
    _: KW_ONLY
    timeout: Timeout = "default"
    """Seconds per call; None = no limit; "default" = the mixture's."""
    responses_in: Place = "conversation"
    """Where the responses stand: joined to the user's message, for prompt caches, or
    "system", in the system message."""
    quorum: int | Condition | None = None
    """How many answers are enough, or a condition; None = all calls are waited for."""
    grace: float = 0.0
    """Seconds that the other calls still have when the quorum is met."""
    of: int | None = None
    """How many responses each call is shown, drawn at random; None = all of them."""
    seed: int | None = None
    """Another seed draws otherwise. The draw depends on the responses as well, so that
    each round draws anew, and the same responses are drawn alike."""

    def bounds(self, n: int) -> tuple[Sequence[Agent], int]:
        return (self.agents, len(self.agents)) if n else ((), 0)

    def block(self, responses: Sequence[Response]) -> str | None:
        if self.of is not None:  # each call is shown others
            return None
        return _block(self.prompt, self.responses_in, responses)

    def calls(
        self, conversation: Sequence[BaseMessage], responses: Sequence[Response]
    ) -> Sequence[Call]:
        if self.of is None:  # the same messages for all, for prompt caches
            messages, ids = (
                _asked(self.prompt, self.responses_in, conversation, responses),
                _ids(responses),
            )
            return [Call(messages=messages, parents=ids) for _ in self.agents]
        arrived = [(response["id"], response["text"]) for response in responses]
        draw = random.Random(repr((self.seed, arrived)))
        count = min(self.of, len(responses))
        return [
            Call(
                messages=_asked(self.prompt, self.responses_in, conversation, drawn),
                parents=_ids(drawn),
            )
            for drawn in (draw.sample(responses, count) for _ in self.agents)
        ]


@dataclass(frozen=True, repr=False)
class _Fuse(CheckedStep):
    """One agent is shown every response and writes the only one that is left."""

    answers: ClassVar[bool] = True

    agent: Agent
    """Who writes the answer."""
    prompt: Prompt = prompts.SYNTHESIZE
    """The instruction; `{responses}`, `{query}` and `{analysis}` in it are replaced;
    without `{responses}` they are put behind it. Or a template over these and
    `messages`."""
    temp: float | None = None
    """Sampling temperature; None = the model's own setting."""
    max_tokens: int | None = None
    """Limit of the answer, in tokens; None = the model's own setting."""
    _: KW_ONLY
    fallbacks: Sequence[Agent] = ()
    """Asked one after the other where the agent fails."""
    timeout: Timeout = "default"
    """Seconds per call; None = no limit; "default" = the mixture's."""
    responses_in: Place = "conversation"
    """Where the responses stand: joined to the user's message, for prompt caches, or
    "system", in the system message."""

    def bounds(self, n: int) -> tuple[Sequence[Agent], int]:
        return ((self.agent,), 1) if n else ((), 0)

    def block(self, responses: Sequence[Response]) -> str | None:
        return _block(self.prompt, self.responses_in, responses)

    def calls(
        self, conversation: Sequence[BaseMessage], responses: Sequence[Response]
    ) -> Sequence[Call]:
        messages = _asked(self.prompt, self.responses_in, conversation, responses)
        return [Call(messages=messages, parents=_ids(responses))]


@dataclass(frozen=True, repr=False)
class Aggregate(_Fuse):
    """Let one agent fuse all responses into the answer.

    The last layer of Mixture-of-Agents, Wang et al. 2024, arXiv 2406.04692.

    Example:
        >>> Aggregate("openai:gpt-4o", fallbacks=["openai:gpt-4o-mini"]).bounds(6)[1]
        1
    """


@dataclass(frozen=True, repr=False)
class Vote(_Fuse):
    """Let one agent state the answer on which most responses agree.

    Example:
        >>> Vote("openai:gpt-4o").bounds(6)[1]
        1
    """

    prompt: Prompt = prompts.VOTE
    """The instruction; `{responses}`, `{query}` and `{analysis}` in it are replaced;
    without `{responses}` they are put behind it. Or a template over these and
    `messages`."""


@dataclass(frozen=True, repr=False)
class Refine(CheckedStep):
    """Improve each response by itself; response i goes to agent i mod n.

    The order stays, and so does the original where its call failed.

    Example:
        >>> Refine(["openai:gpt-4o", "openai:gpt-4o-mini"]).bounds(3)
        (['openai:gpt-4o', 'openai:gpt-4o-mini', 'openai:gpt-4o'], 3)
    """

    answers: ClassVar[bool] = True
    _by_n: ClassVar[bool] = True
    variables: ClassVar[frozenset[str]] = frozenset(
        {"responses", "query", "messages", "text", "analysis"}
    )

    agents: Sequence[Agent]
    """At least one."""
    prompt: Prompt = prompts.REFINE
    """The instruction; `{text}`, `{query}` and `{analysis}` in it are replaced;
    without `{text}` the response is put behind it. Or a template over these and
    `messages`."""
    temp: float | None = None
    """Sampling temperature; None = each model's own setting."""
    max_tokens: int | None = None
    """Limit of each reply, in tokens; None = each model's own setting."""
    _: KW_ONLY
    timeout: Timeout = "default"
    """Seconds per call; None = no limit; "default" = the mixture's."""
    responses_in: Place = "conversation"
    """Where the responses stand: joined to the user's message, for prompt caches, or
    "system", in the system message."""
    quorum: int | Condition | None = None
    """How many answers are enough, or a condition; None = all calls are waited for."""
    grace: float = 0.0
    """Seconds that the other calls still have when the quorum is met."""

    def bounds(self, n: int) -> tuple[Sequence[Agent], int]:
        return list(islice(cycle(self.agents), n)), n

    def block(self, responses: Sequence[Response]) -> str | None:
        return _block(self.prompt, self.responses_in, responses[:1])

    def calls(
        self, conversation: Sequence[BaseMessage], responses: Sequence[Response]
    ) -> Sequence[Call]:
        return [
            Call(
                messages=_asked(
                    self.prompt,
                    self.responses_in,
                    conversation,
                    [response],
                    text=prompts.written_out(response),
                ),
                parents=[response["id"]],
            )
            for response in responses
        ]

    def keep(
        self, responses: Sequence[Response], replies: Sequence[Reply]
    ) -> list[Response]:
        return [
            (answered([reply]) or [response])[0]
            for response, reply in zip(
                _without_analysis(responses), replies, strict=True
            )
        ]


@dataclass(frozen=True, repr=False)
class Analyze(_Fuse):
    """Let one agent compare the responses for the step that writes the answer.

    "Fusion" on the market is a panel, this, and a writer. Every response goes on and
    carries the analysis, which stays with those that are chosen until the next step
    that writes: there it stands behind the responses, or where `{analysis}` is. The
    result has it, too. Where the agent fails, the answer is written without it, and
    the result says so. With another prompt it is a review.

    Example:
        >>> Analyze("openai:gpt-4o").bounds(6)
        (('openai:gpt-4o',), 6)
    """

    answers: ClassVar[bool] = False
    variables: ClassVar[frozenset[str]] = frozenset({"responses", "query", "messages"})

    prompt: Prompt = prompts.ANALYZE
    """The instruction; `{responses}` and `{query}` in it are replaced, and without
    `{responses}` they are put behind it. Or a template over these and `messages`. The
    text should name no response by its number: later steps may number them anew."""

    def bounds(self, n: int) -> tuple[Sequence[Agent], int]:
        return ((self.agent,), n) if n else ((), 0)

    def calls(
        self, conversation: Sequence[BaseMessage], responses: Sequence[Response]
    ) -> Sequence[Call]:
        return super().calls(conversation, _without_analysis(responses))

    def keep(
        self, responses: Sequence[Response], replies: Sequence[Reply]
    ) -> list[Response]:
        written = [reply["text"] for reply in answered(replies)]
        if not written:
            return list(responses)
        return [{**response, "analysis": written[0]} for response in responses]


@dataclass(frozen=True, repr=False)
class Rank(CheckedStep):
    """Let one judge, or several, choose the n best responses, best first.

    Responses are shown without names. Judges are asked also where n responses or fewer
    arrive. One judge is asked for the best n; where it names too few, they are topped
    up in the order in which they came. Each of several orders all that it is shown, and
    the mean of their Borda points decides: 1 for a judge's first, 0 for its last. A tie
    goes to the response that came first. A judge that fails, or cannot be understood,
    is left out, and the result says so; where none is left, the first n are kept.

    A judge whose profile says that it has structured output writes its reasons and its
    order as JSON. Every other judge ends with a line marked "Ranking:".

    Against the bias for a place, each of several judges is shown the responses from
    another one on. Against the bias for its own writing, a judge among them does not
    see its own responses where two others are left.

    Example:
        >>> Rank("openai:gpt-4o", n=2).bounds(6)[1]
        2
        >>> judges = ["openai:gpt-4o", "openai:gpt-4o-mini"]
        >>> len(Rank(judges, both_orders=True).bounds(6)[0])
        4
    """

    variables: ClassVar[frozenset[str]] = frozenset(
        {"responses", "query", "messages", "n"}
    )

    agent: Agent | Sequence[Agent]
    """The judge, or a list of several."""
    n: int = 3
    """How many are kept; 1 or more."""
    prompt: Prompt = prompts.RANK
    """The instruction; `{responses}`, `{query}` and `{n}` in it are replaced, and
    without `{responses}` they are put behind it. Or a template over these and
    `messages`."""
    temp: float | None = None
    """Sampling temperature; None = the model's own setting."""
    max_tokens: int | None = None
    """Limit of the judgement, in tokens; None = the model's own setting."""
    _: KW_ONLY
    fallbacks: Sequence[Agent] = ()
    """Judges asked one after the other where the first fails."""
    timeout: Timeout = "default"
    """Seconds per call; None = no limit; "default" = the mixture's."""
    responses_in: Place = "conversation"
    """Where the responses stand: joined to the user's message, for prompt caches, or
    "system", in the system message."""
    both_orders: bool = False
    """Whether each judge is asked once more, in reverse order, for twice the calls: a
    judge that goes by the place then makes a tie."""

    @property
    def _judges(self) -> Sequence[Agent]:
        agents = self.agent
        return agents if isinstance(agents, tuple) else (cast("Agent", agents),)

    @property
    def _asks_once(self) -> bool:
        return len(self._judges) == 1 and not self.both_orders

    def bounds(self, n: int) -> tuple[Sequence[Agent], int]:
        asked = [*self._judges] * (2 if self.both_orders else 1)
        return (asked, min(n, self.n)) if n else ((), 0)

    def block(self, responses: Sequence[Response]) -> str | None:
        return _block(self.prompt, self.responses_in, responses)

    def calls(
        self, conversation: Sequence[BaseMessage], responses: Sequence[Response]
    ) -> Sequence[Call]:
        orders = self._orders(_without_analysis(responses))
        return [self._call(conversation, shown) for shown in orders]

    def _orders(self, responses: Sequence[Response]) -> list[list[Response]]:
        """Return what each call is shown, in its order."""
        orders = [self._order(j, responses) for j in range(len(self._judges))]
        return orders + [o[::-1] for o in orders] if self.both_orders else orders

    def _order(self, j: int, responses: Sequence[Response]) -> list[Response]:
        if len(self._judges) > 1:
            judge = self._judges[j]
            name = judge if isinstance(judge, str) else name_of(judge)
            others = [r for r in responses if r["agent"] != name]
            responses = others if len(others) > 1 else responses
        begin = j * len(responses) // len(self._judges)
        return [*responses[begin:], *responses[:begin]]

    def _call(
        self, conversation: Sequence[BaseMessage], shown: Sequence[Response]
    ) -> Call:
        def check(text: str) -> None:
            if not ranking(text, len(shown)):
                raise ValueError(
                    f"the judge names none of the {len(shown)} responses: "
                    f"{text[:200]!r}"
                )

        n = min(self.n, len(shown)) if self._asks_once else len(shown)
        messages = _asked(self.prompt, self.responses_in, conversation, shown, n=str(n))
        return Call(messages=messages, parents=_ids(shown), check=check, schema=RANKING)

    def keep(
        self, responses: Sequence[Response], replies: Sequence[Reply]
    ) -> list[Response]:
        orders = [_ids(order) for order in self._orders(responses)]
        judgements = [
            _borda(reply["text"], orders[reply["index"]])
            for reply in replies
            if reply["error"] is None
        ]
        points = {
            id_: _mean([given[id_] for given in judgements if id_ in given])
            for id_ in _ids(responses)
        }
        best = sorted(responses, key=lambda response: -points[response["id"]])
        counted = judgements and not self._asks_once
        return Kept(best[: self.n], note={"points": points} if counted else None)


def _borda(judgement: str, shown: Sequence[str]) -> Mapping[str, float]:
    """Return a judge's points: 1 for its first, 0 for its last, evenly spaced.

    Those that it does not name share what is left.
    """
    named = [shown[at] for at in ranking(judgement, len(shown))]
    last = max(1, len(shown) - 1)
    rest = (len(shown) - len(named) - 1) / 2 / last
    places = {id_: 1 - place / last for place, id_ in enumerate(named)}
    return {id_: places.get(id_, rest) for id_ in shown}


def _mean(points: Sequence[float]) -> float:
    # What no judge has judged stands in the middle.
    return round(sum(points) / len(points), 9) if points else 0.5
