"""Nothing wrong is called complete: what went wrong is in the result, in words."""

from copy import deepcopy
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, Send

from langchain_mixture import (
    Aggregate,
    ChatMixture,
    Filter,
    Map,
    NoResponsesError,
    Propose,
    Rank,
    Refine,
    Result,
    Shuffle,
    StepFailedError,
    Synthesize,
    Take,
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
        Rank(make(change), 1, fallbacks=[make(change), second], responses_in="system"),
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


BROKEN: Any = {"name": "f", "args": '{"a', "id": "1", "error": "cut"}
PICTURE: Any = {"type": "image", "base64": "iVBO", "mime_type": "image/png"}
RESULT = [
    HumanMessage("Why?"),
    AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "1"}]),
    ToolMessage("done", tool_call_id="1"),
]


@pytest.mark.parametrize(
    ("said", "talk", "status"),
    [
        (AIMessage("", invalid_tool_calls=[BROKEN]), None, "complete"),
        (AIMessage([PICTURE]), None, "complete"),
        (
            AIMessage("", additional_kwargs={"audio": {"id": "a", "data": "AA"}}),
            None,
            "complete",
        ),
        (
            AIMessage(
                [{"type": "server_tool_use", "id": "s", "name": "web", "input": {}}],
                response_metadata={"stop_reason": "pause_turn"},
            ),
            None,
            "complete",
        ),
        (AIMessage(""), RESULT, "complete"),
        (AIMessage("", additional_kwargs={"refusal": "No."}), None, "degraded"),
        (
            AIMessage("", response_metadata={"finish_reason": "SAFETY"}),
            None,
            "degraded",
        ),
        (
            AIMessage("", response_metadata={"finish_reason": "content_filter"}),
            None,
            "degraded",
        ),
        (
            AIMessage(
                "", response_metadata={"finish_reason": "MALFORMED_FUNCTION_CALL"}
            ),
            None,
            "degraded",
        ),
    ],
    ids=[
        "a malformed call",
        "a picture",
        "sound",
        "a pause",
        "the end of a turn",
        "a refusal",
        "Gemini's filter",
        "OpenAI's filter",
        "Gemini's malformed call",
    ],
)
@pytest.mark.parametrize("advised", [False, True], ids=["alone", "advised"])
def test_an_answer_without_text_is_handed_on_as_the_model_gave_it(
    said: AIMessage, talk: Any, status: str, advised: bool
) -> None:
    """Agents cope with it as with the plain model; nothing is asked twice for it."""
    model = Scripted(model="m", script=said)
    steps: Any = [Propose([A]), Aggregate(model)] if advised else [Propose([model])]
    answer = ChatMixture(steps).invoke(talk or "Why?")
    assert (answer.content, answer.invalid_tool_calls) == (
        said.content,
        said.invalid_tool_calls,
    )
    assert answer.additional_kwargs == said.additional_kwargs
    assert answer.response_metadata["mixture"]["status"] == status
    assert len(model.asked) == 1


@pytest.mark.parametrize(
    ("said", "talk"),
    [
        (AIMessage(""), None),
        (AIMessage("", response_metadata={"finish_reason": "stop"}), None),
        (AIMessage([{"type": "reasoning", "reasoning": "Hm."}]), None),
        (AIMessage("", response_metadata={"finish_reason": "length"}), RESULT),
    ],
    ids=["to the user", "with a usual end", "thinking alone", "cut off behind a tool"],
)
def test_an_empty_answer_that_nothing_explains_is_an_error(
    said: AIMessage, talk: Any
) -> None:
    """The plain model would hand on nothing at all."""
    with pytest.raises(NoResponsesError, match="empty answer"):
        ChatMixture([Propose([Scripted(model="m", script=said)])]).invoke(talk or "?")


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


# -- Cut off -------------------------------------------------------------------------

AT_LIMIT = "at its token limit"
FILTER = "by a content filter"
ENDINGS: list[tuple[dict[str, Any], str]] = [
    ({"finish_reason": "length"}, AT_LIMIT),
    ({"stop_reason": "max_tokens"}, AT_LIMIT),
    ({"stopReason": "max_tokens"}, AT_LIMIT),
    ({"done_reason": "length", "done": True}, AT_LIMIT),
    ({"finish_reason": "MAX_TOKENS"}, AT_LIMIT),
    ({"finish_reason": "FinishReason.MAX_TOKENS"}, AT_LIMIT),
    (
        {
            "status": "incomplete",
            "incomplete_details": {"reason": "max_output_tokens"},
        },
        AT_LIMIT,
    ),
    ({"stop_reason": "model_context_window_exceeded"}, AT_LIMIT),
    ({"finish_reason": "content_filter"}, FILTER),
    ({"finish_reason": "SAFETY"}, FILTER),
    ({"stopReason": "guardrail_intervened"}, FILTER),
    (
        {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
        FILTER,
    ),
    ({"status": "incomplete", "incomplete_details": None}, "by its provider"),
]


def cutting(metadata: dict[str, Any], name: str = "cut", **fields: Any) -> Scripted:
    """Make a model whose answer ends early."""
    script = AIMessage("An ion is", response_metadata=metadata, **fields)
    return Scripted(model=name, script=script)


@pytest.mark.parametrize(("metadata", "cut"), ENDINGS, ids=lambda value: str(value))
def test_an_answer_that_is_cut_off_is_degraded(
    metadata: dict[str, Any], cut: str
) -> None:
    """As each provider says it; the answer is there, and so is the reason."""
    steps = [Propose([Scripted(model="a")]), Aggregate(cutting(metadata))]
    mixture = create_mixture(steps).invoke(ask())["mixture"]
    assert mixture["status"] == "degraded"
    assert mixture["reasons"] == [
        f"2_aggregate: the answer of cut was cut off {cut}",
    ]
    assert mixture["history"][-1]["llm_calls"][0]["cut_off"] == cut
    assert mixture["responses"][0]["text"] == "An ion is"


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"finish_reason": "stop"},
        {"finish_reason": "tool_calls"},
        {"stop_reason": "end_turn"},
        {"stop_reason": "stop_sequence"},
        {"stopReason": "tool_use"},
        {"done_reason": "stop"},
        {"finish_reason": "STOP"},
        {"status": "completed", "incomplete_details": None},
    ],
    ids=str,
)
def test_an_answer_that_ends_by_itself_is_complete(metadata: dict[str, Any]) -> None:
    """Whatever its provider calls that."""
    mixture = create_mixture([Propose([cutting(metadata)])]).invoke(ask())["mixture"]
    assert (mixture["status"], mixture["reasons"]) == ("complete", [])


LENGTH = {"finish_reason": "length"}
CUT = cutting(LENGTH)
A = Scripted(model="a")
JUDGE = Scripted(model="judge", script="Ranking: 1")


@pytest.mark.parametrize(
    ("steps", "status", "step"),
    [
        ([Propose([CUT, A]), Aggregate(A)], "complete", "1_propose"),
        (
            [Propose([A]), Synthesize([CUT, A]), Aggregate(A)],
            "complete",
            "2_synthesize",
        ),
        ([Propose([A, CUT]), Take(1)], "complete", "1_propose"),
        ([Propose([A, CUT], quorum=2)], "complete", "1_propose"),
        ([Propose([CUT, A]), Take(1)], "degraded", "1_propose"),
        ([Propose([CUT, A]), Rank(JUDGE, 1)], "degraded", "1_propose"),
        ([Propose([CUT]), Map(str.upper)], "degraded", "1_propose"),
        ([Propose([A]), Refine([CUT])], "degraded", "2_refine"),
        ([Propose([CUT | StrOutputParser()])], "degraded", "1_propose"),
        ([Propose([CUT.with_fallbacks([A])])], "degraded", "1_propose"),
        ([Propose([create_agent(CUT)])], "degraded", "1_propose"),
    ],
    ids=[
        "a proposal",
        "a response in the middle",
        "one that is dropped",
        "one of a quorum",
        "one that is taken",
        "one that a judge chose",
        "one that was changed",
        "a refined one",
        "behind a parser",
        "behind fallbacks",
        "of an agent",
    ],
)
@pytest.mark.parametrize("how", WAYS)
async def test_it_is_the_answer_that_decides(
    how: str, steps: Any, status: str, step: str
) -> None:
    """A proposal that was cut off is a reason; it degrades the answer if it is it."""
    mixture = (await called(create_mixture(steps), how, ask(), None))["mixture"]
    assert mixture["status"] == status
    (reason,) = mixture["reasons"]
    assert reason.startswith(f"{step}: the answer of ")
    assert reason.endswith(f"was cut off {AT_LIMIT}")


@pytest.mark.parametrize(
    "agent",
    [
        create_mixture([Propose([CUT])]),
        create_mixture([Propose([CUT])]) | (lambda state: state["messages"][-1].text),
        ChatMixture([Propose([CUT])]),
        ChatMixture([Propose([CUT])]).with_retry(),
        ChatMixture([Propose([CUT])]) | StrOutputParser(),
    ],
    ids=["a graph", "a graph in a chain", "a model", "a wrapped one", "with a parser"],
)
@pytest.mark.parametrize("how", WAYS)
async def test_a_mixture_inside_says_once_that_its_answer_is_cut_off(
    how: str, agent: Any
) -> None:
    """It is degraded for the mixture around it, behind a parser, too."""
    message = await called(ChatMixture([Propose([agent])]), how, "Why?", None)
    told = message.response_metadata["mixture"]
    assert told["status"] == "degraded"
    (reason,) = told["reasons"]
    assert reason.endswith("was cut off at its token limit")


@pytest.mark.parametrize("how", WAYS)
async def test_a_message_of_a_chat_mixture_tells_that_it_is_cut_off(how: str) -> None:
    """A tool call that was cut short, too."""
    broken = [{"name": "f", "args": '{"a', "id": "1", "error": "cut"}]
    for model in (CUT, cutting(LENGTH, invalid_tool_calls=broken)):
        message = await called(ChatMixture([Propose([model])]), how, "Why?", None)
        assert message.response_metadata["mixture"]["status"] == "degraded"
        assert message.response_metadata["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (AIMessage([{"type": "refusal", "refusal": "No."}]), "No."),
        (
            AIMessage(["Let me see. ", {"type": "refusal", "refusal": "No."}]),
            "No.",
        ),
        (AIMessage([{"type": "refusal", "refusal": ""}]), "no reason given"),
        (
            AIMessage(
                [{"type": "non_standard", "value": {"type": "refusal", "refusal": "N"}}]
            ),
            "N",
        ),
        (AIMessage("", additional_kwargs={"refusal": "No."}), "No."),
        (AIMessage("So", response_metadata={"stop_reason": "refusal"}), "So"),
        (AIMessage("", response_metadata={"stopReason": "refusal"}), "no reason given"),
        (
            AIMessage(
                "",
                response_metadata={
                    "stop_reason": "refusal",
                    "stop_details": {"explanation": "It is dangerous."},
                },
            ),
            "It is dangerous.",
        ),
    ],
    ids=[
        "a block",
        "text before it",
        "no words",
        "non-standard block",
        "OpenAI",
        "Anthropic",
        "Bedrock",
        "with details",
    ],
)
def test_a_refusal_is_a_failed_call_in_its_words(
    message: AIMessage, words: str
) -> None:
    """In whichever place its provider puts it."""
    refuses = Scripted(model="refuses", script=message)
    mixture = create_mixture([Propose([refuses, A])]).invoke(ask())["mixture"]
    assert mixture["reasons"] == [
        f"1_propose: refuses failed: refused to answer: {words}"
    ]
    assert mixture["responses"][0]["text"] == "a answers"


# -- Tokens --------------------------------------------------------------------------


def last_text(state: Any) -> str:
    """Take the answer's text out of a graph's state."""
    return str(state["messages"][-1].text)


def inside(**fields: Any) -> ChatMixture:
    """Make a mixture of two calls, of 15 tokens each."""
    client = {name: Scripted(model=name) for name in "ab"}
    return ChatMixture([Propose(["a"]), Aggregate("b")], client=client, **fields)


@pytest.mark.parametrize("report_usage", [False, True])
@pytest.mark.parametrize(
    ("make", "total"),
    [
        (lambda model: model, 30),
        (lambda model: model.with_retry(), 30),
        (lambda model: RunnableLambda(lambda m: m) | model, 30),
        (lambda model: model | StrOutputParser(), 30),
        (lambda model: RunnableLambda(model.invoke), 30),
        (lambda model: create_agent(model), 30),
        (lambda model: create_agent(model) | last_text, 30),
        (lambda model: model.graph, 30),
        (lambda model: model | (lambda m: [m]) | Scripted(model="c"), 45),
        (lambda model: Scripted(model="c") | (lambda m: [m]) | model, 45),
        (lambda model: ChatMixture([Propose([model])], report_usage=True), 30),
        (
            lambda model: (
                ChatMixture([Propose([model | StrOutputParser()])]) | StrOutputParser()
            ),
            30,
        ),
    ],
    ids=[
        "itself",
        "wrapped",
        "last of a chain",
        "first of a chain",
        "in a function",
        "in an agent",
        "in an agent in a chain",
        "its graph",
        "another behind it",
        "another before it",
        "in a mixture",
        "in a chain in a chain",
    ],
)
@pytest.mark.parametrize("how", WAYS)
async def test_no_token_is_counted_twice(
    how: str, make: Any, total: int, report_usage: bool
) -> None:
    """However an agent holds a mixture, and whether or not that reports a total."""
    agent = make(inside(report_usage=report_usage))
    graph = create_mixture([Propose([agent])])
    usage = (await called(graph, how, ask(), None))["mixture"]["usage"]
    assert (usage["total_tokens"], usage["estimated_tokens"]) == (total, 0)


def test_an_agent_that_is_a_graph_tells_its_estimates_too() -> None:
    """Beside the tokens that some of its models report."""
    silent: Any = RunnableLambda(lambda _: "four" * 100)
    inner = create_mixture([Propose([silent]), Aggregate(A)])
    own = inner.invoke(ask())["mixture"]["usage"]
    outer = create_mixture([Propose([inner])]).invoke(ask())["mixture"]["usage"]
    assert own["estimated_tokens"] > 100
    for key in ("total_tokens", "estimated_tokens"):
        assert outer[key] == own[key]


@pytest.mark.parametrize(
    "own",
    [
        {"token_usage": {"total_tokens": 15}},
        {"usage": {"input_tokens": 10}},
        {"eval_count": 5, "prompt_eval_count": 10},
    ],
    ids=["OpenAI", "Anthropic", "Ollama"],
)
@pytest.mark.parametrize("how", WAYS)
async def test_beside_the_total_there_are_no_tokens_of_the_last_model(
    how: str, own: dict[str, Any]
) -> None:
    """Who reads them would take one call for the whole."""
    last = telling("last", finish_reason="stop")
    last.script.response_metadata.update(own)
    model = ChatMixture([Propose([A]), Aggregate(last)], report_usage=True)
    message = await called(model, how, "Why?", None)
    assert message.usage_metadata["total_tokens"] == 30
    assert message.response_metadata["finish_reason"] == "stop"
    assert not own.keys() & message.response_metadata.keys()


# -- What no checkpoint can carry ----------------------------------------------------

CONFIG: Any = {"configurable": {"thread_id": "1"}}


class Around(MessagesState):
    """The state of a graph around a mixture."""

    mixture: Result


def nested(depth: int) -> Any:
    """Nest a dict."""
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


def calling(args: Any, name: str = "odd") -> Scripted:
    """Make a model that calls a tool."""
    call = {"name": "search", "args": args, "id": "1"}
    return Scripted(model=name, script=AIMessage("So.", tool_calls=[call]))


TALKING = {
    "metadata": AIMessage("So.", response_metadata={"seed": 2**64}),
    "kwargs": AIMessage("So.", additional_kwargs={"raw": object()}),
    "blocks": AIMessage([{"type": "text", "text": "So.", "n": -(2**63) - 1}]),
}


@pytest.mark.parametrize(
    "odd",
    [
        calling({"n": 2**64}),
        calling({"list": [{"n": -(2**63) - 1}]}),
        calling({"thing": object()}),
        calling(nested(400)),
        *[Scripted(model="odd", script=message) for message in TALKING.values()],
    ],
    ids=["a large integer", "inside a list", "an object", "deep", *TALKING],
)
@pytest.mark.parametrize("around", [False, True])
@pytest.mark.parametrize("how", WAYS)
async def test_what_no_checkpoint_can_carry_costs_that_response_alone(
    how: str, around: bool, odd: Any
) -> None:
    """The run goes on, and its thread, in a graph around it, too."""
    steps = [Propose([odd, A]), Take(1)]
    graph: Any = create_mixture(steps, checkpointer=None if around else InMemorySaver())
    if around:
        builder = StateGraph(Around)
        builder.add_node("mixture", graph)
        builder.add_edge(START, "mixture")
        graph = builder.compile(checkpointer=InMemorySaver())
    state = await called(graph, how, ask(), CONFIG)
    assert state["messages"][-1].text == "a answers"
    (reason,) = state["mixture"]["reasons"]
    assert "1_propose: odd failed: no checkpoint can carry it: " in reason
    assert state["mixture"]["usage"]["total_tokens"] == 30
    await called(graph, how, ask("And?"), CONFIG)
    texts = [m.text for m in graph.get_state(CONFIG).values["messages"]]
    assert texts == ["What is an ion?", "a answers", "And?", "a answers"]


@pytest.mark.parametrize("depth", range(200, 300, 7))
def test_what_passes_the_check_is_carried(depth: int) -> None:
    """At no depth does a call pass that the checkpointer refuses afterwards."""
    odd = calling(nested(depth))
    for last in (Aggregate(A), Aggregate(odd, fallbacks=[A])):
        graph = create_mixture([Propose([odd, A]), last], checkpointer=InMemorySaver())
        graph.invoke(ask(), CONFIG)
        assert len(list(graph.get_state_history(CONFIG))) > 3


@pytest.mark.parametrize("args", [{"n": 2**64}, nested(300)], ids=["large", "deep"])
def test_without_a_checkpointer_it_is_an_answer(args: Any) -> None:
    """A tool call of such a number is as good as any."""
    state = create_mixture([Propose([calling(args)])]).invoke(ask())
    assert state["messages"][-1].tool_calls[0]["args"] == args
    message = ChatMixture([Propose([calling(args)])]).invoke("Why?")
    assert message.tool_calls[0]["args"] == args


class PickleSaver(InMemorySaver):
    """Carries more."""

    def __init__(self) -> None:
        super().__init__(serde=JsonPlusSerializer(pickle_fallback=True))


def test_what_the_users_own_checkpointer_can_carry_is_carried() -> None:
    """It is its serializer that is asked."""
    graph = create_mixture(
        [Propose([calling({"n": 2**64})])], checkpointer=PickleSaver()
    )
    state = graph.invoke(ask(), CONFIG)
    assert state["mixture"]["status"] == "complete"
