"""MixtureMiddleware: an agent with its own model, advised once a user turn."""

import logging
from itertools import pairwise
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents import middleware as langchain_middleware
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver

from langchain_mixture import (
    Aggregate,
    ChatMixture,
    InvalidMixtureError,
    Propose,
    Rank,
)
from langchain_mixture.middleware import MixtureMiddleware
from langchain_mixture.steps.prompts import ADVICE
from tests.models import Scripted
from tests.test_consult import Adviser, Loop, extends, flat, look, mixture_of, turns


def advised(**kwargs: Any) -> tuple[MixtureMiddleware, list[Adviser]]:
    """Make a panel of two advisers."""
    advisers = [Adviser(model="a"), Adviser(model="b")]
    return MixtureMiddleware([Propose(advisers)], **kwargs), advisers


def without_advice(request: list[Any]) -> list[Any]:
    """Take the block of advice out of a request."""
    kept = []
    for message in flat(request):
        if isinstance(message[1], str):
            message[1] = message[1].split(f"\n\n{ADVICE}")[0]
        kept.append(message)
    return kept


def test_the_panel_is_asked_once_a_turn_and_requests_only_grow() -> None:
    """The agent's own model reads the advice beside the user's message."""
    middleware, advisers = advised()
    writer = Loop(model="w")
    messages = turns(create_agent(writer, [look], middleware=[middleware]), 3)
    assert [len(adviser.asked) for adviser in advisers] == [3, 3]
    assert len(writer.asked) == 9
    for before, request in pairwise(writer.asked):
        assert extends(request, before)
    human = [m for m in writer.asked[-1] if isinstance(m, HumanMessage)]
    assert all("a answers" in m.text and ADVICE in m.text for m in human)
    assert len([m for m in messages if "responses" in mixture_of(m)]) == 3
    assert all(ADVICE not in m.text for m in messages)


class Chooser(Scripted):
    """Chooses the tool `look`, where a tool selector asks it."""

    def with_structured_output(self, schema: Any, **kwargs: Any) -> Any:
        return RunnableLambda(lambda _: {"tools": ["look"]})


def classifier(answer: dict[str, Any]) -> Any:
    """Return a model that answers each question of a router or a guard so."""
    decisions: Any = pytest.importorskip("langchain_core.decisions")

    class Judge(decisions.BaseDecisionModel):  # type: ignore[misc]  # a module that may be missing
        model: str = "judge"
        _provider = "judge"

        def _classify(self, state: Any, questions: Any) -> Any:
            answers = dict.fromkeys(questions, answer)
            said = {"model": "judge", "answers": answers}
            return decisions.ClassifierResponse.model_validate(said)

    return Judge()


def routed(writer: Any) -> dict[str, Any]:
    """Return a router's arguments: every question goes to the agent's own model."""
    choice = langchain_middleware.ModelChoice(writer, "All questions.")
    certain = {"probabilities": {}, "confidence": 1}
    judge = classifier({"type": "choice", "choice": "own", **certain})
    return {"choices": {"own": choice}, "instructions": "?", "classifier": judge}


def guarded(writer: Any) -> dict[str, Any]:
    """Return a guard's arguments: every tool call is allowed."""
    return {"tools": ["look"], "classifier": classifier({"type": "noul", "noul": 0.0})}


OTHERS: dict[str, Any] = {
    "AutoModeMiddleware": guarded,
    "ContextEditingMiddleware": {},
    "FilesystemFileSearchMiddleware": {"root_path": "."},
    "HumanInTheLoopMiddleware": {"interrupt_on": {"delete": True}},
    "LLMToolEmulator": {"model": Scripted(model="e", script="emulated")},
    "LLMToolSelectorMiddleware": {"model": Chooser(model="t")},
    "ModelCallLimitMiddleware": {"run_limit": 9},
    "ModelFallbackMiddleware": {"first_model": Scripted(model="x")},
    "ModelRefusalMiddleware": {},
    "ModelRetryMiddleware": {},
    "ModelRouterMiddleware": routed,
    "PIIMiddleware": {"pii_type": "email"},
    "ProviderToolSearchMiddleware": {},
    "SummarizationMiddleware": {
        "model": Scripted(model="s", script="summary"),
        "trigger": ("messages", 6),
        "keep": ("messages", 4),
    },
    "TodoListMiddleware": {},
    "ToolCallLimitMiddleware": {"run_limit": 9},
    "ToolErrorMiddleware": {"on_error": lambda error, request: "it failed"},
    "ToolRetryMiddleware": {},
}
"""LangChain's own middleware: its arguments, or a function of the model to them.

ShellToolMiddleware is left out: it leaves the pipes of its shell open.
"""


def other_middleware(name: str, writer: Any) -> Any:
    """Return one of LangChain's, where the installed version has it."""
    if not hasattr(langchain_middleware, name):
        pytest.skip(f"this version of langchain has no {name}")
    arguments = OTHERS[name]
    if callable(arguments):
        arguments = arguments(writer)
    return getattr(langchain_middleware, name)(**arguments)


@pytest.mark.filterwarnings("ignore:The .* is in beta")
@pytest.mark.parametrize("order", ["in front", "behind"])
@pytest.mark.parametrize("other", OTHERS)
def test_an_advised_agent_sends_what_a_plain_one_sends(other: str, order: str) -> None:
    """But for the block of advice, beside each of LangChain's own middleware."""
    plain, writer = Loop(model="w"), Loop(model="w")
    alone = [other_middleware(other, plain)]
    turns(create_agent(plain, [look], middleware=alone), 2)
    middleware, advisers = advised()
    both = [middleware, other_middleware(other, writer)]
    if order == "behind":
        both.reverse()
    turns(create_agent(writer, [look], middleware=both), 2)
    assert [len(adviser.asked) for adviser in advisers] == [2, 2]
    assert len(writer.asked) == len(plain.asked)
    for ours, theirs in zip(writer.asked, plain.asked, strict=True):
        assert without_advice(ours) == flat(theirs)
        kinds = [m.type for m in ours]
        assert ("tool", "human") not in pairwise(kinds)


def test_two_middlewares_are_told_apart_by_name() -> None:
    """Each panel is asked once a turn, and shown once."""
    one, first = advised()
    other = Adviser(model="x")
    two = MixtureMiddleware([Propose([other])], name="second")
    writer = Loop(model="w")
    turns(create_agent(writer, [look], middleware=[one, two]), 2)
    assert [len(a.asked) for a in (*first, other)] == [2, 2, 2]
    for before, request in pairwise(writer.asked):
        assert extends(request, before)
    assert writer.asked[-1][0].text.count(ADVICE) == 2


def test_an_agent_whose_model_is_a_mixture_may_be_advised_too() -> None:
    """Both carry their advice in the same answer."""
    middleware, advisers = advised()
    own, writer = Adviser(model="o"), Loop(model="w")
    model = ChatMixture([Propose([own]), Aggregate(writer)])
    turns(create_agent(model, [look], middleware=[middleware]), 2)
    assert [len(a.asked) for a in (*advisers, own)] == [2, 2, 2]
    for before, request in pairwise(writer.asked):
        assert extends(request, before)


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
async def test_a_panel_that_fails_costs_the_advice_and_nothing_else(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning a turn; it is not asked again in the turn."""
    bad = Adviser(model="a", script=OSError("down"))
    middleware = MixtureMiddleware([Propose([bad])])
    writer = Loop(model="w")
    agent: Any = create_agent(writer, [look], middleware=[middleware])
    question = {"messages": [HumanMessage("Why?")]}
    with caplog.at_level(logging.WARNING, "langchain_mixture"):
        if how == "invoke":
            state = agent.invoke(question)
        else:
            state = await agent.ainvoke(question)
    assert state["messages"][-1].text == "done"
    assert len(bad.asked) == 1
    assert len(writer.asked) == 3
    warnings = [r for r in caplog.records if "no advice in this turn" in r.message]
    assert len(warnings) == 1
    assert all(ADVICE not in request[0].text for request in writer.asked)


async def test_the_panel_is_silent_in_message_streams() -> None:
    """Sync and async, subgraphs included: the agent's own tokens and messages alone."""
    middleware, advisers = advised()
    agent: Any = create_agent(Loop(model="w"), [look], middleware=[middleware])
    question = {"messages": [HumanMessage("Why?")]}
    options: Any = {"stream_mode": "messages", "subgraphs": True}
    parts = list(agent.stream(question, **options))
    parts += [part async for part in agent.astream(question, **options)]
    texts = {part[1][0].text for part in parts}
    assert texts <= {"", "done", "result 1", "result 2", "result 4", "result 5"}
    assert [len(a.asked) for a in advisers] == [2, 2]


def test_the_panel_is_offered_the_agents_tools_and_reads_its_system_prompt() -> None:
    """What advisers would call is written out."""
    call = {"name": "look", "args": {"n": 7}, "id": "c7"}
    wishing = Adviser(model="a", script=AIMessage("", tool_calls=[call]))
    middleware = MixtureMiddleware([Propose([wishing])])
    writer = Loop(model="w")
    agent = create_agent(
        writer, [look], middleware=[middleware], system_prompt="Be brief."
    )
    turns(agent, 1)
    assert wishing.asked[0][0].text == "Be brief."
    assert '[would call the tool look with {"n": 7}]' in writer.asked[0][1].text


def test_the_advice_of_a_turn_survives_a_resume() -> None:
    """Another process finds it in the thread."""
    saver = InMemorySaver()
    config = {"configurable": {"thread_id": "1"}}
    middleware, advisers = advised()
    agent: Any = create_agent(
        Loop(model="w"),
        [look],
        middleware=[middleware],
        checkpointer=saver,
        interrupt_before=["tools"],
    )
    agent.invoke({"messages": [HumanMessage("Why?")]}, config)
    again, fresh = advised()
    writer = Loop(model="w")
    agent = create_agent(writer, [look], middleware=[again], checkpointer=saver)
    agent.invoke(None, config)
    assert [len(a.asked) for a in (*advisers, *fresh)] == [1, 1, 0, 0]
    assert "a answers" in writer.asked[0][0].text


def test_a_judge_may_choose_whose_advice_is_shown() -> None:
    """The steps are any pipeline."""
    judge = Adviser(model="j", script="Ranking: 2")
    advisers = [Adviser(model="a"), Adviser(model="b")]
    middleware = MixtureMiddleware([Propose(advisers), Rank(judge, 1)])
    writer = Loop(model="w", steps=0)
    turns(create_agent(writer, [look], middleware=[middleware]), 1)
    assert "b answers" in writer.asked[0][0].text
    assert "a answers" not in writer.asked[0][0].text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"consult": 0}, "MixtureMiddleware: consult is 0; allowed"),
        ({"deadline": -1}, "deadline is -1; allowed"),
        ({"steps": []}, "steps is"),
        ({"client": 5}, "client is 5"),
    ],
    ids=["consult", "deadline", "steps", "client"],
)
def test_a_wrong_argument_is_named_when_it_is_made(
    arguments: Any, message: str
) -> None:
    """And not in the middle of a conversation."""
    with pytest.raises(InvalidMixtureError, match=message):
        MixtureMiddleware(**{"steps": [Propose(["a"])], "client": {}, **arguments})
