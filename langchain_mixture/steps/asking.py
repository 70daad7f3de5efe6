"""The steps that ask models: Propose, Synthesize, Aggregate, Vote, Refine, Rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import cycle, islice
from typing import ClassVar

from langchain_core.messages import BaseMessage
from langchain_core.prompts import ChatPromptTemplate

from langchain_mixture.records import Call, Reply, Response, answered
from langchain_mixture.steps import prompts
from langchain_mixture.steps.base import Agent, Prompt, Timeout
from langchain_mixture.steps.checks import SHOWING, CheckedStep
from langchain_mixture.steps.ranking import ranking


def _asked(
    prompt: Prompt,
    conversation: Sequence[BaseMessage],
    responses: Sequence[Response],
    **values: str,
) -> list[BaseMessage]:
    """Put an instruction and the responses in front of a conversation.

    In a string `{query}`, `{responses}` and the names of `values` are replaced; the
    responses are appended unless `{responses}` or `{text}` has brought them.
    """
    values |= {
        "query": prompts.query_of(conversation),
        "responses": prompts.numbered(responses),
    }
    if isinstance(prompt, ChatPromptTemplate):
        return prompt.format_messages(messages=list(conversation), **values)
    instruction = prompts.fill(prompt, values)
    if not any(f"{{{name}}}" in prompt for name in SHOWING & {*values}):
        instruction = f"{instruction}\n\n{values['responses']}"
    return prompts.with_system(conversation, instruction)


def _ids(responses: Sequence[Response]) -> list[str]:
    return [response["id"] for response in responses]


@dataclass(frozen=True)
class Propose(CheckedStep):
    """Ask each agent the conversation as it is; the proposals replace what was there.

    The same agent several times gives as many distinct samples. Mixture-of-Agents,
    Wang et al. 2024, arXiv 2406.04692.

    Example:
        >>> len(Propose(["openai:gpt-4o"] * 6, temp=0.7).agents)
        6
    """

    answers: ClassVar[bool] = True
    variables: ClassVar[frozenset[str]] = frozenset({"query", "messages"})

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
    quorum: int | None = None
    """How many answers are enough; None = all calls are waited for."""
    grace: float = 0.0
    """Seconds that the other calls still have when the quorum is met."""

    def bounds(self, n: int) -> tuple[Sequence[Agent], int]:
        return self.agents, len(self.agents)

    def calls(
        self, conversation: Sequence[BaseMessage], responses: Sequence[Response]
    ) -> Sequence[Call]:
        messages = list(conversation)
        if isinstance(self.prompt, ChatPromptTemplate):
            messages = self.prompt.format_messages(
                messages=messages, query=prompts.query_of(conversation)
            )
        elif self.prompt is not None:
            messages = prompts.with_system(conversation, self.prompt)
        return [Call(messages=messages, parents=[]) for _ in self.agents]


@dataclass(frozen=True)
class Synthesize(CheckedStep):
    """Show every response to each agent; each writes a new one.

    A middle layer of Mixture-of-Agents, Wang et al. 2024, arXiv 2406.04692.

    Example:
        >>> Synthesize(["openai:gpt-4o", "openai:gpt-4o-mini"]).bounds(6)[1]
        2
    """

    answers: ClassVar[bool] = True

    agents: Sequence[Agent]
    """At least one."""
    prompt: Prompt = prompts.SYNTHESIZE
    """The instruction; `{responses}` and `{query}` in it are replaced, and without
    `{responses}` they are put behind it. Or a template over these and `messages`."""
    temp: float | None = None
    """Sampling temperature; None = each model's own setting."""
    max_tokens: int | None = None
    """Limit of each reply, in tokens; None = each model's own setting."""
    _: KW_ONLY
    timeout: Timeout = "default"
    """Seconds per call; None = no limit; "default" = the mixture's."""
    quorum: int | None = None
    """How many answers are enough; None = all calls are waited for."""
    grace: float = 0.0
    """Seconds that the other calls still have when the quorum is met."""

    def bounds(self, n: int) -> tuple[Sequence[Agent], int]:
        return (self.agents, len(self.agents)) if n else ((), 0)

    def calls(
        self, conversation: Sequence[BaseMessage], responses: Sequence[Response]
    ) -> Sequence[Call]:
        messages = _asked(self.prompt, conversation, responses)
        parents = _ids(responses)
        return [Call(messages=messages, parents=parents) for _ in self.agents]


@dataclass(frozen=True)
class _Fuse(CheckedStep):
    """One agent is shown every response and writes the only one that is left."""

    answers: ClassVar[bool] = True

    agent: Agent
    """Who writes the answer."""
    prompt: Prompt = prompts.SYNTHESIZE
    """The instruction; `{responses}` and `{query}` in it are replaced, and without
    `{responses}` they are put behind it. Or a template over these and `messages`."""
    temp: float | None = None
    """Sampling temperature; None = the model's own setting."""
    max_tokens: int | None = None
    """Limit of the answer, in tokens; None = the model's own setting."""
    _: KW_ONLY
    fallbacks: Sequence[Agent] = ()
    """Asked one after the other where the agent fails."""
    timeout: Timeout = "default"
    """Seconds per call; None = no limit; "default" = the mixture's."""

    def bounds(self, n: int) -> tuple[Sequence[Agent], int]:
        return ((self.agent,), 1) if n else ((), 0)

    def calls(
        self, conversation: Sequence[BaseMessage], responses: Sequence[Response]
    ) -> Sequence[Call]:
        messages = _asked(self.prompt, conversation, responses)
        return [Call(messages=messages, parents=_ids(responses))]


@dataclass(frozen=True)
class Aggregate(_Fuse):
    """Let one agent fuse all responses into the answer.

    The last layer of Mixture-of-Agents, Wang et al. 2024, arXiv 2406.04692.

    Example:
        >>> Aggregate("openai:gpt-4o", fallbacks=["openai:gpt-4o-mini"]).bounds(6)[1]
        1
    """


@dataclass(frozen=True)
class Vote(_Fuse):
    """Let one agent state the answer on which most responses agree.

    Example:
        >>> Vote("openai:gpt-4o").bounds(6)[1]
        1
    """

    prompt: Prompt = prompts.VOTE
    """The instruction; `{responses}` and `{query}` in it are replaced, and without
    `{responses}` they are put behind it. Or a template over these and `messages`."""


@dataclass(frozen=True)
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
        {"responses", "query", "messages", "text"}
    )

    agents: Sequence[Agent]
    """At least one."""
    prompt: Prompt = prompts.REFINE
    """The instruction; `{text}` and `{query}` in it are replaced, and without `{text}`
    the response is put behind it. Or a template over these and `messages`."""
    temp: float | None = None
    """Sampling temperature; None = each model's own setting."""
    max_tokens: int | None = None
    """Limit of each reply, in tokens; None = each model's own setting."""
    _: KW_ONLY
    timeout: Timeout = "default"
    """Seconds per call; None = no limit; "default" = the mixture's."""
    quorum: int | None = None
    """How many answers are enough; None = all calls are waited for."""
    grace: float = 0.0
    """Seconds that the other calls still have when the quorum is met."""

    def bounds(self, n: int) -> tuple[Sequence[Agent], int]:
        return list(islice(cycle(self.agents), n)), n

    def calls(
        self, conversation: Sequence[BaseMessage], responses: Sequence[Response]
    ) -> Sequence[Call]:
        return [
            Call(
                messages=_asked(
                    self.prompt,
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
            for response, reply in zip(responses, replies, strict=True)
        ]


@dataclass(frozen=True)
class Rank(CheckedStep):
    """Let one judge choose the n best responses, best first.

    The judge is asked also where n responses or fewer arrive. Where it names too few,
    they are topped up in the order in which they came; where it fails or cannot be
    understood, the first n are kept and the result says so.

    Example:
        >>> Rank("openai:gpt-4o", n=2).bounds(6)[1]
        2
    """

    variables: ClassVar[frozenset[str]] = frozenset(
        {"responses", "query", "messages", "n"}
    )

    agent: Agent
    """The judge."""
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

    def bounds(self, n: int) -> tuple[Sequence[Agent], int]:
        return ((self.agent,), min(n, self.n)) if n else ((), 0)

    def calls(
        self, conversation: Sequence[BaseMessage], responses: Sequence[Response]
    ) -> Sequence[Call]:
        def check(text: str) -> None:
            if not ranking(text, len(responses)):
                raise ValueError(
                    f"the judge names none of the {len(responses)} responses: "
                    f"{text[:200]!r}"
                )

        messages = _asked(
            self.prompt,
            conversation,
            responses,
            n=str(min(self.n, len(responses))),
        )
        return [Call(messages=messages, parents=_ids(responses), check=check)]

    def keep(
        self, responses: Sequence[Response], replies: Sequence[Reply]
    ) -> list[Response]:
        named = [
            index
            for judgement in answered(replies)
            for index in ranking(judgement["text"], len(responses))
        ]
        order = dict.fromkeys([*named, *range(len(responses))])
        return [responses[index] for index in order][: self.n]
