"""What a mixture in a tool loop costs: cached input, and requests, against its model.

    python benchmarks/agents.py

Real `ChatOpenAI` clients ask a stub on this machine. Of the answering model's input it
counts the characters that an earlier request begins with, which providers bill at about
a tenth: by any common prefix, as OpenAI does, and by whole earlier requests alone, as
Anthropic does where a mark stands at the end of each.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI

from langchain_mixture import Aggregate, ChatMixture, Propose
from langchain_mixture.middleware import MixtureMiddleware

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.openai_stub import Answer, Stub, serve  # beside the project

SYSTEM = "You look things up, step by step, and then answer. " * 40


def look(query: str) -> str:
    """Look something up."""
    return f"Result for {query}: " + "some facts about it, and more of them. " * 12


def answers(steps: int, advice: int) -> Callable[[dict[str, Any]], Answer]:
    """Answer as advisers, and as a model that calls a tool so often in a turn."""

    def answer(request: dict[str, Any]) -> Answer:
        if request["model"] != "writer":
            words = f"Advice of {request['model']} on what to do next. "
            return Answer((words * 100)[:advice])
        messages = request["messages"]
        asked = (
            i for i, m in enumerate(messages) if str(m["content"])[:8] == "Question"
        )
        turn = max(asked)
        done = sum(m["role"] == "tool" for m in messages[turn:])
        if done < steps:
            arguments = json.dumps({"query": f"step {done} of turn {turn}"})
            call = {"name": "look", "arguments": arguments}
            ident = f"call-{turn}-{done}"
            return Answer(
                tool_calls=[{"id": ident, "type": "function", "function": call}],
                finish="tool_calls",
            )
        return Answer("That is the answer.")

    return answer


def model(stub: Stub, name: str) -> ChatOpenAI:
    return ChatOpenAI(base_url=stub.url, api_key="none", model=name)  # type: ignore[arg-type]  # a str will do


def agents(stub: Stub, consult: Any) -> dict[str, Callable[[], Any]]:
    writer = model(stub, "writer")
    panel = [Propose([model(stub, name) for name in ("one", "two", "three")])]
    mixture = ChatMixture([*panel, Aggregate(writer)], consult=consult)
    middleware = MixtureMiddleware(panel, consult=consult)
    return {
        "plain": lambda: create_agent(writer, [look], system_prompt=SYSTEM),
        "ChatMixture": lambda: create_agent(mixture, [look], system_prompt=SYSTEM),
        "middleware": lambda: create_agent(
            writer, [look], system_prompt=SYSTEM, middleware=[middleware]
        ),
    }


def common(one: str, other: str) -> int:
    """Return how many characters two requests begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    shorter = min(len(one), len(other))
    return next((index for index, (a, b) in pairs if a != b), shorter)


def cached(requests: list[str]) -> tuple[float, float]:
    """Return the shares that a cache holds: by prefix, and by whole requests."""
    prefix = whole = total = 0
    for index, request in enumerate(requests):
        total += len(request)
        earlier = requests[:index]
        prefix += max((common(request, one) for one in earlier), default=0)
        # A request ends with "]": what comes behind it in the next one is appended.
        wholes = (len(e) for e in earlier if request.startswith(e[:-1]))
        whole += max(wholes, default=0)
    return prefix / total, whole / total


def measure(turns: int, steps: int, advice: int, consult: Any) -> None:
    with serve(answers(steps, advice)) as stub:
        for name, make in agents(stub, consult).items():
            stub.requests.clear()
            agent = make()
            messages: list[Any] = []
            for turn in range(turns):
                asked = [*messages, HumanMessage(f"Question {turn}: what about it?")]
                messages = agent.invoke({"messages": asked})["messages"]
            written = [r for r in stub.requests if r["model"] == "writer"]
            sent = [json.dumps(r["messages"]) for r in written]
            advisers = len(stub.requests) - len(written)
            prefix, whole = cached(sent)
            uncached = sum(map(len, sent)) * (1 - prefix)
            print(
                f"| {turns} x {steps} | {advice} | {consult} | {name} "
                f"| {prefix:.3f} | {whole:.3f} | {uncached / 1000:.0f} k "
                f"| {len(written)} | {advisers} |"
            )


def main() -> None:
    print(
        "| turns x steps | advice, characters | consult | agent | cached, by prefix "
        "| by whole requests | uncached characters | requests | of advisers |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for turns, steps in ((2, 12), (6, 4)):
        for advice in (210, 2000):
            measure(turns, steps, advice, "turn")
    measure(2, 12, 2000, 1)


if __name__ == "__main__":
    main()
