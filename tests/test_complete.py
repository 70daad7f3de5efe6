"""Nothing wrong is called complete: what went wrong is in the result, in words."""

from copy import deepcopy
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, Send

from langchain_mixture import (
    Aggregate,
    ChatMixture,
    Filter,
    Map,
    Propose,
    Rank,
    StepFailedError,
    create_mixture,
)
from tests.models import Scripted, ask, called

WAYS = ["invoke", "ainvoke", "stream", "astream"]


def one_node(node: Any, name: str) -> Any:
    """Make an agent graph of one node."""
    builder = StateGraph(MessagesState)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    return builder.compile(name=name)


# -- Handoffs ------------------------------------------------------------------------


def desk(goto: Any = "billing") -> Any:
    """Make an agent that hands off instead of answering."""
    update = {"messages": [AIMessage("Transferred.")]}
    return one_node(
        lambda _: Command(graph=Command.PARENT, goto=goto, update=update), "desk"
    )


@pytest.mark.parametrize(
    ("goto", "to"),
    [
        ("billing", " to 'billing'"),
        ((), ""),
        (Send("billing", {}), " to 'billing'"),
        (["a", Send("b", {})], " to 'a', 'b'"),
    ],
    ids=["a node", "nowhere", "a Send", "several"],
)
@pytest.mark.parametrize("how", WAYS)
async def test_a_handoff_is_a_failed_call(how: str, goto: Any, to: str) -> None:
    """It costs that response, and nothing of it comes into the conversation."""
    graph = create_mixture([Propose([desk(goto), Scripted(model="a")])])
    state = await called(graph, how, ask(), None)
    assert state["mixture"]["reasons"] == [
        f"1_propose: desk failed: RuntimeError: ended in a handoff{to} "
        "(Command.PARENT), which a mixture cannot follow; the agent must answer itself"
    ]
    assert state["mixture"]["status"] == "degraded"
    assert [m.text for m in state["messages"]] == ["What is an ion?", "a answers"]


ONE = Propose([Scripted(model="a")])
TWO = Propose([Scripted(model="a"), Scripted(model="b")])


@pytest.mark.parametrize(
    "steps",
    [
        [Propose([desk()])],
        [Propose([desk() | (lambda state: state["messages"][-1])])],
        [Propose([create_mixture([Propose([desk()])])])],
        [Propose([ChatMixture([Propose([desk()])])])],
        [TWO, Aggregate(desk())],
        [ONE, Filter(lambda text: desk().invoke(ask(text)))],
        [ONE, Map(lambda text: desk().invoke(ask(text)))],
    ],
    ids=[
        "alone",
        "in a chain",
        "in a mixture inside",
        "in a ChatMixture inside",
        "as the last",
        "in a filter",
        "in a map",
    ],
)
@pytest.mark.parametrize("how", WAYS)
async def test_a_handoff_never_is_the_answer(steps: Any, how: str) -> None:
    """Where nothing else is left, the error has its words."""
    for model in (create_mixture(steps), ChatMixture(steps)):
        inputs = "Why?" if isinstance(model, ChatMixture) else ask()
        with pytest.raises(StepFailedError, match="ended in a handoff to 'billing'"):
            await called(model, how, inputs, None)


@pytest.mark.parametrize(
    "step", [Aggregate(desk(), fallbacks=[Scripted(model="a")]), Rank(desk(), 1)]
)
def test_a_step_goes_on_after_a_handoff(step: Any) -> None:
    """A fallback answers for it, and a judge that hands off has not judged."""
    state = create_mixture([TWO, step]).invoke(ask())
    assert state["messages"][-1].text == "a answers"
    (reason,) = state["mixture"]["reasons"]
    assert "desk failed: RuntimeError: ended in a handoff" in reason


# -- What another agent is asked -----------------------------------------------------


def appends(messages: list[BaseMessage]) -> str:
    """Adds to the list that it was given."""
    messages.append(HumanMessage("In French."))
    return "appended"


def rewrites(messages: list[BaseMessage]) -> str:
    """Changes the question itself."""
    messages[-1].content = "Another question."
    return "rewritten"


def reaches_in(messages: list[BaseMessage]) -> str:
    """Changes what is inside the messages."""
    for message in messages:
        message.additional_kwargs["seen"] = True
        message.response_metadata.clear()
        if isinstance(message.content, list):
            message.content[0]["text"] = "Another question."  # type: ignore[index]  # it is a dict
            message.content.append("In French.")
    return "reached in"


TALK: Any = [
    HumanMessage("Hello?", additional_kwargs={"a": {"b": 1}}),
    AIMessage("Hello.", response_metadata={"model_name": "m"}),
    HumanMessage([{"type": "text", "text": "Why?"}]),
]


@pytest.mark.parametrize("change", [appends, rewrites, reaches_in])
@pytest.mark.parametrize(
    "make",
    [
        RunnableLambda,
        lambda change: RunnableLambda(change).with_retry().with_config(tags=["x"]),
        lambda change: RunnableLambda(lambda messages: messages) | change,
        lambda change: one_node(
            lambda state: {"messages": [AIMessage(change(state["messages"]))]}, "graph"
        ),
    ],
    ids=["a function", "a wrapped one", "a chain", "a graph"],
)
@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
async def test_an_agent_cannot_change_what_another_is_asked(
    how: str, make: Any, change: Any
) -> None:
    """Nor the conversation: each works on its own copy, fallbacks too."""
    talk = deepcopy(TALK)
    first, second = Scripted(model="first"), Scripted(model="second")
    steps = [
        Propose([make(change), first]),
        Rank(make(change), 1, fallbacks=[make(change), second]),
    ]
    graph = create_mixture(steps)
    state = await called(graph, how, {"messages": talk}, {"max_concurrency": 1})
    (asked,) = first.asked
    (judged,) = second.asked
    given = [(m.content, m.additional_kwargs, m.response_metadata) for m in TALK]
    for messages in (asked, judged[1:], talk, state["messages"][:-1]):
        said = [(m.content, m.additional_kwargs, m.response_metadata) for m in messages]
        assert said == given
