"""What a mixture in a tool loop costs: cached input, requests, and saved bytes.

    python benchmarks/agents.py

Real `ChatOpenAI` and `ChatAnthropic` clients ask a stub on this machine. Of the
answering model's input it counts the share that the provider has in its cache, and
bills at about a tenth. By prefix, as OpenAI does: the characters that any earlier
request begins with. By marks, as Anthropic does: the longest beginning that ended at a
cache mark of an earlier request, at most 20 blocks in front of a mark of this one.
"""

from __future__ import annotations

import json
import sys
from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_anthropic.middleware import AnthropicPromptCachingMiddleware
from langchain_core.messages import HumanMessage
from langchain_core.runnables import Runnable
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.sqlite import SqliteSaver

from langchain_mixture import Aggregate, ChatMixture, Propose
from langchain_mixture.middleware import MixtureMiddleware

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.models import saved_bytes  # beside the project
from tests.providers.anthropic import Messages
from tests.providers.chat import Chat
from tests.providers.stub import Answer, Body, Request, Stub, serve

SYSTEM = "You look things up, step by step, and then answer. "
NAMES = ("one", "two", "three")
FACES = ("plain", "ChatMixture", "middleware")
LOOKBACK = 20
"""The blocks in front of a mark in which Anthropic looks for an entry."""


@dataclass(frozen=True)
class Setting:
    """A conversation, and when its advisers are asked."""

    turns: int
    steps: int
    advice: int
    """Characters of each adviser."""
    consult: Any = "turn"
    prompt: int = 2000
    """Characters of the agent's system prompt, roughly."""

    def __str__(self) -> str:
        size = f"{self.turns} x {self.steps} | {self.advice:,} | {self.prompt:,}"
        return f"{size} | {self.consult}"


def look(query: str) -> str:
    """Look something up."""
    return f"Result for {query}: " + "some facts about it, and more of them. " * 12


def answers(setting: Setting) -> Callable[[Request], Answer]:
    """Answer as advisers, and as a model that calls a tool so often in a turn."""

    def answer(request: Request) -> Answer:
        name = request.body["model"]
        if name != "writer":
            return Answer((f"Advice of {name} on what to do. " * 100)[: setting.advice])
        begun = [i for i, t in enumerate(request.turns) if t.text[:8] == "Question"]
        done = sum(turn.role == "tool" for turn in request.turns[begun[-1] :])
        if done == setting.steps:
            return Answer("That is the answer.")
        query = {"query": f"step {done} of turn {len(begun)}"}
        return Answer(calls=[("look", query)], finish="calls")

    return answer


class OpenAI:
    """`ChatOpenAI`, whose provider caches what any earlier request begins with."""

    wire = Chat()

    def model(self, stub: Stub, name: str) -> Any:
        url: Any = {"base_url": f"{stub.url}/v1", "api_key": "none"}
        return ChatOpenAI(model=name, **url)

    def caching(self, writer: Any) -> Runnable[Any, Any]:
        """Return the model as the last step of a mixture."""
        return writer  # type: ignore[no-any-return]  # a model

    middleware: Sequence[Any] = ()

    def blocks(self, body: Body) -> tuple[list[str], list[int]]:
        """Return what is read, block by block, and behind which blocks marks stand."""
        return [*map(json.dumps, [*body["tools"], *body["messages"]])], []


class Anthropic:
    """`ChatAnthropic` with LangChain's middleware for its cache."""

    wire = Messages()

    def model(self, stub: Stub, name: str) -> Any:
        settings: Any = {"base_url": stub.url, "api_key": "none", "max_tokens": 4096}
        return ChatAnthropic(model_name=name, **settings)

    def caching(self, writer: Any) -> Runnable[Any, Any]:
        """Return the model with a mark at the end of each request."""
        return writer.bind(cache_control={"type": "ephemeral"})  # type: ignore[no-any-return]  # a model

    middleware: Sequence[Any] = (AnthropicPromptCachingMiddleware(),)

    def blocks(self, body: Body) -> tuple[list[str], list[int]]:
        """Return what is read, block by block, and behind which blocks marks stand."""
        found = [*body["tools"], *contents("system", body.get("system") or [])]
        for message in body["messages"]:
            found += contents(message["role"], message["content"])
        marks = [n for n, block in enumerate(found, 1) if "cache_control" in block]
        if "cache_control" in body:  # for the last block
            marks.append(len(found))
        bare = [{k: v for k, v in b.items() if k != "cache_control"} for b in found]
        return [json.dumps(block) for block in bare], marks


def contents(role: str, content: str | list[Body]) -> list[Body]:
    """Return a message's blocks, each with the role in it."""
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    return [{"role": role, **block} for block in content]


def agent(face: str, client: Any, stub: Stub, setting: Setting, saver: Any) -> Any:
    """Return an agent: the plain one, or one of the two faces."""
    writer = client.model(stub, "writer")
    panel = [Propose([client.model(stub, name) for name in NAMES])]
    system = SYSTEM * (setting.prompt // len(SYSTEM))
    model, middleware = writer, [*client.middleware]
    if face == "ChatMixture":
        steps = [*panel, Aggregate(client.caching(writer))]
        model, middleware = ChatMixture(steps, consult=setting.consult), []
    elif face == "middleware":
        middleware.insert(0, MixtureMiddleware(panel, consult=setting.consult))
    return create_agent(
        model, [look], system_prompt=system, middleware=middleware, checkpointer=saver
    )


def common(one: str, other: str) -> int:
    """Return how many characters two requests begin with alike."""
    sizes = range(1, min(len(one), len(other)) + 1)
    return bisect(sizes, False, key=lambda size: one[:size] != other[:size])


def by_prefix(requests: Sequence[Sequence[str]]) -> float:
    """Return the share that an earlier request begins with."""
    texts = ["".join(blocks) for blocks in requests]
    held = sum(
        max((common(text, earlier) for earlier in texts[:index]), default=0)
        for index, text in enumerate(texts)
    )
    return held / sum(map(len, texts))


def by_marks(requests: Sequence[tuple[Sequence[str], Sequence[int]]]) -> float:
    """Return the share that ended at a mark of an earlier request."""
    entries: set[tuple[str, ...]] = set()
    held = total = 0
    for blocks, marks in requests:
        places = {n for mark in marks for n in range(max(0, mark - LOOKBACK), mark + 1)}
        found = [n for n in places if tuple(blocks[:n]) in entries]
        held += sum(map(len, blocks[: max(found, default=0)]))
        total += sum(map(len, blocks))
        entries |= {tuple(blocks[:mark]) for mark in marks}
    return held / total


@dataclass(frozen=True)
class Measured:
    """What one conversation took of the answering model's input, and else."""

    prefix: float
    """The share that an earlier request begins with."""
    most: float
    """The share that this could be: the longest request is read once in any case."""
    marks: float
    """The share that ended at a mark of an earlier request."""
    uncached: float
    """Characters that no earlier request begins with."""
    requests: int
    """Requests to the answering model."""
    advisers: int
    """Requests to the advisers."""
    saved: int
    """Bytes of the first turn in the checkpointer."""

    def __str__(self) -> str:
        marks = f"{self.marks:.3f}" if self.marks else ""
        shares = f"{self.prefix:.3f} | {self.most:.3f} | {marks}"
        counts = f"{self.requests} | {self.advisers} | {self.saved / 1000:.0f} k"
        return f"{shares} | {self.uncached / 1000:.0f} k | {counts}"


def measure(client: Any, setting: Setting, face: str) -> Measured:
    """Hold a conversation, and measure it."""
    with (
        serve(client.wire, answers(setting)) as stub,
        SqliteSaver.from_conn_string(":memory:") as saver,
    ):
        running = agent(face, client, stub, setting, saver)
        config = {"configurable": {"thread_id": "1"}}
        for turn in range(setting.turns):
            asked = [HumanMessage(f"Question {turn}: what about it?")]
            running.invoke({"messages": asked}, config)
            if turn == 0:
                saved = saved_bytes(saver)
        if stub.refused:
            raise RuntimeError(stub.refused[0])
        written = [body for body in stub.bodies if body["model"] == "writer"]
        advisers = len(stub.bodies) - len(written)
    requests = [client.blocks(body) for body in written]
    sizes = [sum(map(len, blocks)) for blocks, _ in requests]
    prefix = by_prefix([blocks for blocks, _ in requests])
    return Measured(
        prefix,
        most=1 - max(sizes) / sum(sizes),
        marks=by_marks(requests),
        uncached=sum(sizes) * (1 - prefix),
        requests=len(written),
        advisers=advisers,
        saved=saved,
    )


HEADS = (
    *("clients", "turns x steps", "advice", "system prompt", "consult", "agent"),
    *("cached by prefix", "at most", "by marks", "uncached", "requests"),
    *("of advisers", "saved by a turn"),
)


def main() -> None:
    print(f"| {' | '.join(HEADS)} |\n|{'---|' * len(HEADS)}")
    loops = [(2, 12), (6, 4)]
    once = [Setting(*loop, advice) for loop in loops for advice in (210, 2000)]
    always = [Setting(2, 12, 2000, 1, prompt) for prompt in (2000, 20_000)]
    for client, settings in ((OpenAI(), once + always), (Anthropic(), once)):
        for setting in settings:
            for face in FACES:
                found = measure(client, setting, face)
                name = type(client).__name__
                print(f"| {name} | {setting} | {face} | {found} |", flush=True)


if __name__ == "__main__":
    main()
