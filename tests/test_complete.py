"""Nothing wrong is called complete: what went wrong is in the result, in words."""

from copy import deepcopy
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, Send

from langchain_mixture import (
    Aggregate,
    ChatMixture,
    Filter,
    Map,
    Propose,
    Rank,
    Refine,
    Shuffle,
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


# -- Who said what -------------------------------------------------------------------


def said_by(history: Any) -> dict[str, str]:
    """Map the id of each response in a history to the agent of its call."""
    calls = [call for row in history for call in row["llm_calls"] if call["response"]]
    assert len({call["response"] for call in calls}) == len(calls)
    return {call["response"]: call["agent"] for call in calls}


@pytest.mark.parametrize("how", WAYS)
async def test_the_history_tells_who_said_what(how: str) -> None:
    """Each call has its agent and the id of its response, or None."""
    down = Scripted(model="down", script=OSError("down"))
    client = {name: Scripted(model=name) for name in "abcd"}
    steps = [
        Propose(["a", down, "b"]),
        Shuffle(seed=1),
        Refine(["c", down]),
        Rank(Scripted(model="judge", script="Ranking: 2, 1"), 2),
        Aggregate(down, fallbacks=["d"]),
    ]
    graph = create_mixture(steps, client=client)
    history = (await called(graph, how, ask(), None))["mixture"]["history"]
    agents = said_by(history)
    for row in history:
        said = zip(row["responses"], row["outputs"], strict=True)
        assert all(text == f"{agents[key]} answers" for key, text in said)
    made = [(c["agent"], c["response"]) for c in history[0]["llm_calls"]]
    assert made == [("a", "1_propose/0"), ("down", None), ("b", "1_propose/2")]
    made = [(c["agent"], c["response"]) for c in history[-1]["llm_calls"]]
    assert made == [("down", None), ("d", "5_aggregate/0")]


@pytest.mark.parametrize(
    ("fallbacks", "made"),
    [
        ([], [("refuses", "1_propose/0")]),
        (["b"], [("refuses", None), ("b", "2_aggregate/0")]),
        (["refuses"], [("refuses", None), ("refuses", "2_aggregate/0")]),
    ],
    ids=["the only one", "a fallback answers", "the fallback refuses too"],
)
def test_a_refusal_is_a_response_only_where_it_is_passed_on(
    fallbacks: list[str], made: list[tuple[str, str | None]]
) -> None:
    """It is, where the step has nothing better; the call before it is not."""
    said = AIMessage("", additional_kwargs={"refusal": "I will not."})
    client = {
        "a": Scripted(model="a"),
        "b": Scripted(model="b"),
        "refuses": Scripted(model="refuses", script=said),
    }
    steps: Any = [Propose(["refuses"])]
    if fallbacks:
        steps = [Propose(["a"]), Aggregate("refuses", fallbacks=fallbacks)]
    graph = create_mixture(steps, client=client)
    row = graph.invoke(ask())["mixture"]["history"][-1]
    assert [(c["agent"], c["response"]) for c in row["llm_calls"]] == made
    assert row["responses"] == [made[-1][1]]


def behind(first: Any, *others: Any) -> Any:
    """Make an agent of one model with others as its fallbacks."""
    return first.with_fallbacks(list(others))


DOWN = Scripted(model="gpt-4o", script=OSError("down"))


def telling(model: str, /, **metadata: str) -> Scripted:
    """Make a model whose message tells which one it is."""
    script = AIMessage("So.", response_metadata=metadata)
    return Scripted(model=model, script=script)


@pytest.mark.parametrize(
    ("agent", "wrote"),
    [
        (behind(telling("gpt-4o", model_name="gpt-4o-2024-08-06"), DOWN), "gpt-4o"),
        (behind(DOWN, telling("llama", model="llama")), "llama"),
        (
            behind(DOWN, telling("gpt-4o-mini", model_name="gpt-4o-mini-2024-07-18")),
            "gpt-4o-mini",
        ),
        (behind(DOWN, telling("azure", model_name="gpt-4.1")), "gpt-4.1"),
        (behind(DOWN, RunnableLambda(lambda _: "So.")), "gpt-4o"),
        (behind(DOWN, telling("llama", model_name="llama")).with_retry(), "llama"),
        (behind(DOWN.bind(stop=["x"]), behind(DOWN, telling("b"))), "b"),
        (
            telling("gpt-4o", model_name="other").configurable_alternatives(
                ConfigurableField(id="which"), llama=telling("llama", model_name="l3")
            ),
            "other",
        ),
        (telling("gpt-4o", model_name="gpt-4o-2024-08-06"), "gpt-4o"),
        (telling("deployment", model_name="gpt-4o-2024-08-06"), "deployment"),
    ],
    ids=[
        "the first",
        "a fallback",
        "a longer name",
        "by an alias",
        "no word of it",
        "wrapped",
        "nested",
        "an alternative",
        "one model",
        "one model by an alias",
    ],
)
@pytest.mark.parametrize("how", WAYS)
async def test_an_answer_is_credited_to_the_model_that_wrote_it(
    how: str, agent: Any, wrote: str
) -> None:
    """The history and the usage have it by its name in the pipeline, or its own."""
    graph = create_mixture([Propose([agent])], timeout=60)
    mixture = (await called(graph, how, ask(), None))["mixture"]
    (call,) = mixture["history"][0]["llm_calls"]
    assert call["model"] == wrote
    assert call["agent"] == mixture["responses"][0]["agent"]
    assert list(mixture["usage"]["models"]) == [wrote]
