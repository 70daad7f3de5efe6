"""In a tool loop, a mixture's requests have the roles that each provider demands.

The same conversations are held with a plain model and with a mixture around it, over a
stub that refuses what the real API refuses. The advisers are models of the same kind,
over a stub of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import pytest

pytest.importorskip("langchain", reason="agents need the package langchain")

from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    ModelRequest,
    SummarizationMiddleware,
)
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage

from langchain_mixture import Aggregate, ChatMixture, Propose
from langchain_mixture.advice import turn_of
from langchain_mixture.middleware import MixtureMiddleware
from tests.providers.cases import CALL, ION, QUESTION, weather
from tests.providers.setups import PACKAGES, PIXEL, SET_UPS
from tests.providers.stub import Body, Request, Stub, blocks, serve

NAMES = ("anthropic", "openai", "responses", "google", "mistral", "groq", "ollama")
KNOWN = {one.name: one for one in SET_UPS if one.name in NAMES}
TURNS = [*[CALL] * 3, ION] * 2
"""Two turns, of three tool calls each."""


CHOSEN = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            find_spec(PACKAGES[name]) is None, reason=f"no {PACKAGES[name]}"
        ),
    )
    for name in NAMES
]


# -- The agents ----------------------------------------------------------------------


def plain(model: Any, advisers: Sequence[Any], middleware: Sequence[Any]) -> Any:
    """An agent with the model alone."""
    return create_agent(model, [weather], middleware=middleware)


def mixture(model: Any, advisers: Sequence[Any], middleware: Sequence[Any]) -> Any:
    """An agent with a mixture that the model answers for."""
    steps = [Propose(advisers), Aggregate(model)]
    return create_agent(ChatMixture(steps), [weather], middleware=middleware)


def advised(model: Any, advisers: Sequence[Any], middleware: Sequence[Any]) -> Any:
    """An agent with the model, and advice."""
    ours = MixtureMiddleware([Propose(advisers)])
    return create_agent(model, [weather], middleware=[*middleware, ours])


FACES: dict[str, Callable[..., Any]] = {
    "plain": plain,
    "ChatMixture": mixture,
    "middleware": advised,
}


# -- The conversations ---------------------------------------------------------------


class KeepsTheEnd(AgentMiddleware[Any, Any]):
    """Shows the model the user's last words and the last tool call alone."""

    def wrap_model_call(self, request: ModelRequest[Any], handler: Any) -> Any:
        """Trim the request, and not what is kept."""
        turn = turn_of(request.messages)
        rest = request.messages[turn:][-2:]
        shown = [request.messages[turn - 1], *rest]
        return handler(request.override(messages=shown))


def two_turns(agent: Any, question: HumanMessage, *more: Any) -> None:
    """Ask twice."""
    state = agent.invoke({"messages": [question]})
    again = HumanMessage(question.content)
    agent.invoke({"messages": [*state["messages"], again]})


def handed_over(agent: Any, question: HumanMessage, *more: Any) -> None:
    """Take over from an agent that another model answers for, in mid-turn."""
    call = {"name": "weather", "args": {"city": "Oslo"}, "id": "call00000"}
    begun: list[Any] = [question, AIMessage("", tool_calls=[call])]
    agent.invoke({"messages": [*begun, weather.invoke({**call, "type": "tool_call"})]})


def summarising() -> list[Any]:
    """Return the middleware that writes a summary, in the middle of a turn too."""
    model = FakeListChatModel(responses=["They spoke about ions."])
    keep: Any = ("messages", 4)
    return [SummarizationMiddleware(model, trigger=("messages", 6), keep=keep)]


TALKS: dict[str, tuple[Callable[..., None], Callable[[], list[Any]]]] = {
    "two turns": (two_turns, list),
    "summarised": (two_turns, summarising),
    "trimmed": (two_turns, lambda: [KeepsTheEnd()]),
    "handed over": (handed_over, list),
}


def question(kind: str, *, marked: bool) -> HumanMessage:
    """Ask in words, or about a picture; with a cache mark where the API has them."""
    text: Body = {"type": "text", "text": QUESTION}
    if marked:
        text["cache_control"] = {"type": "ephemeral"}
    picture = {"type": "image", "base64": PIXEL, "mime_type": "image/png"}
    content: list[Any] = [text] if kind == "words" else [text, picture]
    plain_words = kind == "words" and not marked
    return HumanMessage(QUESTION if plain_words else content)


@dataclass(frozen=True)
class Talk:
    """What the stubs of a conversation were asked."""

    writer: Stub
    advisers: Stub


@cache
def held(name: str, face: str, talk: str, kind: str) -> Talk:
    """Hold a conversation; a plain one serves for both faces."""
    set_up = KNOWN[name]
    hold, middleware = TALKS[talk]
    asked = question(kind, marked=name == "anthropic")
    with serve(set_up.wire, TURNS) as stub, serve(set_up.wire, [ION]) as others:
        advisers = [set_up.make(others.url)] * 2
        agent = FACES[face](set_up.make(stub.url), advisers, middleware())
        hold(agent, asked)
    return Talk(stub, others)


def outline(request: Request) -> list[Any]:
    """Return the turns without their words, and without the system prompt."""
    return [
        (turn.role, turn.calls, turn.results, turn.pictures, turn.marked)
        for turn in request.turns
        if turn.role != "system"
    ]


def marks(body: Body) -> list[Body]:
    """Return the blocks on which a cache mark stands."""
    content = [blocks(m.get("content")) for m in body.get("messages", ())]
    return [block for found in content for block in found if "cache_control" in block]


@pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession")  # Google's
@pytest.mark.parametrize("kind", ["words", "picture"])
@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("face", ["ChatMixture", "middleware"])
@pytest.mark.parametrize("name", CHOSEN)
def test_roles_are_those_of_the_plain_model(
    name: str, face: str, talk: str, kind: str
) -> None:
    """Nothing is refused; only words are added, and marks stay where they were."""
    alone, ours = (held(name, one, talk, kind) for one in ("plain", face))
    assert alone.writer.refused == ours.writer.refused == ours.advisers.refused == []
    assert ours.advisers.requests
    for request in (*ours.writer.requests, *ours.advisers.requests):
        assert ("tool", "user") not in pairwise(request.roles)
    assert [*map(outline, ours.writer.requests)] == [
        *map(outline, alone.writer.requests)
    ]
    assert [*map(marks, ours.writer.bodies)] == [*map(marks, alone.writer.bodies)]
    for request in ours.writer.requests:
        words = [turn.text for turn in request.turns if turn.role == "user"]
        assert ION.text in words[-1]  # the advice
