"""A mixture in a tool loop: advisers once a turn, requests that grow at their end."""

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    messages_from_dict,
    messages_to_dict,
)
from langgraph.checkpoint.memory import InMemorySaver

from langchain_mixture import (
    Aggregate,
    ChatMixture,
    InvalidMixtureError,
    Propose,
    Rank,
    Synthesize,
    Vote,
    without_tools,
)
from tests.models import Scripted


def look(n: int) -> str:
    """Look something up."""
    return f"result {n}"


class Loop(Scripted):
    """Calls a tool so many times in a turn, and then answers."""

    steps: int = 2

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self

    def _message(self, messages: list[BaseMessage], kwargs: Any) -> AIMessage:
        self.asked.append(messages)
        results = 0
        for message in reversed(messages):
            advice = message.text.startswith("There are")
            if isinstance(message, HumanMessage) and not advice:
                break
            results += isinstance(message, ToolMessage)
        if results < self.steps:
            number = len(self.asked)
            call = {"name": "look", "args": {"n": number}, "id": f"c{number}"}
            return AIMessage("", tool_calls=[call])
        return AIMessage("done")


class Adviser(Scripted):
    """Answers, whatever tools it is offered."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self


def panel(**kwargs: Any) -> tuple[ChatMixture, list[Adviser], Loop]:
    """Make two advisers in front of a model that loops."""
    advisers = [Adviser(model="a"), Adviser(model="b")]
    writer = Loop(model="w")
    steps = [Propose(advisers), Aggregate(writer)]
    return ChatMixture(steps, **kwargs), advisers, writer


def turns(agent: Any, count: int, config: Any = None) -> list[BaseMessage]:
    """Let an agent answer so many questions, each in the conversation so far."""
    messages: list[BaseMessage] = []
    for number in range(count):
        asked = [*messages, HumanMessage(f"question {number}")]
        messages = agent.invoke({"messages": asked}, config)["messages"]
    return messages


def flat(messages: Sequence[BaseMessage]) -> list[Any]:
    """Write messages as a request has them: roles, contents, tool calls."""
    return [
        [m.type, m.content, getattr(m, "tool_calls", None), m.additional_kwargs]
        for m in messages
    ]


def extends(request: Sequence[BaseMessage], before: Sequence[BaseMessage]) -> bool:
    """Whether a request begins with the whole of the one before it."""
    return flat(request)[: len(before)] == flat(before)


def test_advisers_are_asked_once_a_turn_and_requests_only_grow() -> None:
    """Three turns of two tool steps: three times advice, nine growing requests."""
    model, advisers, writer = panel()
    messages = turns(create_agent(model, [look]), 3)
    assert [len(adviser.asked) for adviser in advisers] == [3, 3]
    assert len(writer.asked) == 9
    for before, request in pairwise(writer.asked):
        assert extends(request, before)
    human = [m for m in writer.asked[-1] if isinstance(m, HumanMessage)]
    assert [m.text.splitlines()[0] for m in human] == [
        "question 0",
        "question 1",
        "question 2",
    ]
    assert all("a answers" in m.text and "b answers" in m.text for m in human)
    system = writer.asked[-1][0]
    assert isinstance(system, SystemMessage)
    assert "answers" not in system.text
    carrying = [m for m in messages if "responses" in mixture_of(m)]
    assert len(carrying) == 3  # the first answer of each turn, and no other


def mixture_of(message: BaseMessage) -> Any:
    """Give what a mixture tells in its answer."""
    return message.response_metadata.get("mixture", {})


def test_no_request_has_a_human_message_behind_a_tools() -> None:
    """Some servers refuse that order."""
    model, _, writer = panel()
    turns(create_agent(model, [look]), 2)
    for request in writer.asked:
        kinds = [m.type for m in request]
        pairs = list(pairwise(kinds))
        assert ("tool", "human") not in pairs
        assert ("human", "human") not in pairs


@pytest.mark.parametrize(
    ("consult", "asked"),
    [
        ("turn", 2),
        (1, 6),
        (2, 3),
        (100, 1),
        (lambda messages: isinstance(messages[-1], HumanMessage), 2),
        (lambda messages: False, 0),
    ],
    ids=["turn", "each call", "every second", "once", "function", "never"],
)
def test_consult_says_how_often_advisers_are_asked(consult: Any, asked: int) -> None:
    """In two turns of two tool steps, six answers."""
    model, advisers, writer = panel(consult=consult)
    turns(create_agent(model, [look]), 2)
    assert [len(adviser.asked) for adviser in advisers] == [asked, asked]
    assert len(writer.asked) == 6
    if asked == 0:
        assert [m.type for m in writer.asked[0]] == ["human"]
        assert writer.asked[0][0].text == "question 0"


def test_new_advice_in_mid_turn_stands_behind_what_was_there() -> None:
    """For good: older advice stays in its place, and requests only grow."""
    model, _, writer = panel(consult=1)
    turns(create_agent(model, [look]), 1)
    last = writer.asked[-1]
    assert [m.type for m in last] == [
        *["system", "human", "ai", "tool", "human", "ai", "tool", "human"]
    ]
    assert all("a answers" in m.text for m in last if m.type == "human")
    for before, request in pairwise(writer.asked):
        assert extends(request, before)


@pytest.mark.parametrize("value", ["never", 0, -1, None, 1.5], ids=repr)
def test_a_wrong_consult_says_what_is_allowed(value: Any) -> None:
    """When the model is made."""
    with pytest.raises(InvalidMixtureError, match=r'consult is .*; allowed: "turn"'):
        panel(consult=value)


def again(model: ChatMixture, messages: list[BaseMessage]) -> Any:
    """Ask with tools, as an agent does."""
    return model.bind_tools([look]).invoke(messages)


CASES: dict[str, tuple[Callable[[list[Any]], list[Any]], int]] = {
    "as it was": (lambda m: m, 0),
    "through JSON": (
        lambda m: messages_from_dict(json.loads(json.dumps(messages_to_dict(m)))),
        0,
    ),
    "another system prompt": (lambda m: [SystemMessage("Be brief."), *m], 0),
    "a summary in front": (
        lambda m: [
            HumanMessage("summary", additional_kwargs={"lc_source": "summarization"}),
            *m,
        ],
        0,
    ),
    "a summary behind": (
        lambda m: [
            *m,
            HumanMessage("note", additional_kwargs={"lc_source": "rubric"}),
        ],
        0,
    ),
    "the question trimmed away": (lambda m: m[1:], 0),
    "the carrying answer trimmed away": (lambda m: [m[0], *m[3:]], 1),
    "a new question in mid-turn": (lambda m: [*m, HumanMessage("And?")], 1),
    "metadata dropped": (
        lambda m: [
            x.model_copy(update={"response_metadata": {}})
            if isinstance(x, AIMessage)
            else x
            for x in m
        ],
        1,
    ),
    "only the question": (lambda m: m[:1], 1),
}


@pytest.mark.parametrize("case", CASES)
def test_advice_is_found_where_its_answer_is(case: str) -> None:
    """Whatever became of the conversation; else the advisers are asked once more."""
    model, advisers, _ = panel()
    messages: list[BaseMessage] = [HumanMessage("Why?")]
    for _ in range(2):
        answer = again(model, messages)
        result = ToolMessage("result", tool_call_id=answer.tool_calls[0]["id"])
        messages += [answer, result]
    assert len(advisers[0].asked) == 1
    change, more = CASES[case]
    again(model, change(messages))
    assert len(advisers[0].asked) == 1 + more


def test_a_conversation_that_another_model_began_is_advised_once() -> None:
    """In mid-turn, at the turn's question."""
    model, advisers, writer = panel()
    call = {"name": "look", "args": {"n": 0}, "id": "c0"}
    begun = [
        HumanMessage("Why?"),
        AIMessage("", tool_calls=[call]),
        ToolMessage("result", tool_call_id="c0"),
    ]
    answer = again(model, list(begun))
    result = ToolMessage("more", tool_call_id=answer.tool_calls[0]["id"])
    again(model, [*begun, answer, result])
    assert len(advisers[0].asked) == 1
    assert [m.type for m in writer.asked[0]] == ["system", "human", "ai", "tool"]
    assert extends(writer.asked[1], writer.asked[0])


def test_in_mid_turn_every_step_shows_responses_at_the_turns_question() -> None:
    """No request of any step has a human message behind a tool's."""
    judge = Adviser(model="j", script="Ranking: 2, 1")
    middle, writer = Adviser(model="m"), Loop(model="w", steps=1)
    advisers = [Adviser(model="a"), Adviser(model="b")]
    steps = [Propose(advisers), Rank(judge, 2), Synthesize([middle]), Vote(writer)]
    call = {"name": "look", "args": {"n": 0}, "id": "c0"}
    begun = [
        HumanMessage("Why?"),
        AIMessage("", tool_calls=[call]),
        ToolMessage("result", tool_call_id="c0"),
    ]
    again(ChatMixture(steps), list(begun))
    for model in (*advisers, judge, middle, writer):
        (request,) = model.asked
        assert [m.type for m in request][-3:] == ["human", "ai", "tool"] or (
            [m.type for m in request][-3:] == ["human", "ai", "human"]
        )
    assert "b answers" in middle.asked[0][1].text


def test_two_mixtures_over_one_history_take_over_their_own_advice_alone() -> None:
    """Each panel is asked once a turn."""
    one, first, _ = panel()
    steps = [Propose([Adviser(model="x")]), Vote(Loop(model="v"))]
    two = ChatMixture(steps)
    messages: list[BaseMessage] = [HumanMessage("Why?")]
    for model in (one, two, one, two):
        answer = again(model, messages)
        if not answer.tool_calls:
            break
        result = ToolMessage("result", tool_call_id=answer.tool_calls[0]["id"])
        messages += [answer, result]
    assert len(first[0].asked) == 1
    assert len(steps[0].agents[0].asked) == 1  # type: ignore[attr-defined]  # Propose


def test_a_mixture_that_answers_inside_another_keeps_its_own_advice() -> None:
    """Both panels are asked once a turn, and the request only grows."""
    inner, advisers, writer = panel()
    outer_advisers = [Adviser(model="o")]
    model = ChatMixture([Propose(outer_advisers), Aggregate(inner)])
    turns(create_agent(model, [look]), 2)
    assert [len(x.asked) for x in (*advisers, *outer_advisers)] == [2, 2, 2]
    for before, request in pairwise(writer.asked):
        assert extends(request, before)


def test_the_users_own_blocks_stay_as_they_are() -> None:
    """Ours stands behind them, without a cache mark."""
    model, _, writer = panel()
    blocks = [
        {"type": "image", "url": "https://example.com/a.png"},
        {"type": "text", "text": "Why?", "cache_control": {"type": "ephemeral"}},
    ]
    again(model, [HumanMessage(blocks)])  # type: ignore[arg-type]  # blocks are dicts
    content = writer.asked[0][-1].content
    assert content[:2] == blocks
    assert isinstance(content[2], dict)
    assert set(content[2]) == {"type", "text"}


def test_in_the_papers_layout_all_stands_in_the_system_message() -> None:
    """`responses_in="system"`: the conversation stays untouched."""
    writer = Loop(model="w")
    advisers = [Adviser(model="a")]
    steps = [Propose(advisers), Aggregate(writer, responses_in="system")]
    turns(create_agent(ChatMixture(steps), [look]), 1)
    assert len(advisers[0].asked) == 1
    for request in writer.asked:
        assert "a answers" in request[0].text
        assert request[1].text == "question 0"
    assert extends(writer.asked[1], writer.asked[0])


def test_a_resumed_agent_does_not_ask_the_advisers_again() -> None:
    """The advice is in the thread, for another process as well."""
    saver = InMemorySaver()
    config = {"configurable": {"thread_id": "1"}}
    model, advisers, _ = panel()
    agent: Any = create_agent(
        model, [look], checkpointer=saver, interrupt_before=["tools"]
    )
    agent.invoke({"messages": [HumanMessage("Why?")]}, config)
    other, fresh, writer = panel()
    agent = create_agent(other, [look], checkpointer=saver)
    agent.invoke(None, config)
    assert [len(a.asked) for a in (*advisers, *fresh)] == [1, 1, 0, 0]
    assert "a answers" in writer.asked[0][1].text


def test_steps_between_propose_and_the_answer_are_advisers_too() -> None:
    """What the answering step was shown is carried, whoever made it."""
    advisers = [Adviser(model="a"), Adviser(model="b")]
    middle = Adviser(model="m")
    judge = Adviser(model="j", script="Ranking: 2, 1")
    writer = Loop(model="w")
    model = ChatMixture(
        [Propose(advisers), Rank(judge, 2), Synthesize([middle]), Aggregate(writer)]
    )
    turns(create_agent(model, [look]), 1)
    assert [len(x.asked) for x in (*advisers, judge, middle)] == [1, 1, 1, 1]
    assert all("m answers" in request[1].text for request in writer.asked)


async def test_async_and_streamed_agents_consult_as_often() -> None:
    """The answer that carries the advice may come as a stream."""
    model, advisers, writer = panel()
    agent = create_agent(model, [look])
    question: Any = {"messages": [HumanMessage("Why?")]}
    await agent.ainvoke(question)
    _ = [part async for part in agent.astream(question, stream_mode="messages")]
    list(agent.stream(question, stream_mode="messages"))
    assert [len(adviser.asked) for adviser in advisers] == [3, 3]
    assert len(writer.asked) == 9


@pytest.mark.parametrize(
    ("view", "shown"),
    [
        (None, ["human", "ai", "tool", "human"]),
        (without_tools, ["human", "ai", "human"]),
        (lambda messages: messages[-1:], ["human"]),
    ],
    ids=["all", "without tools", "a function"],
)
def test_a_view_is_what_advisers_are_shown(view: Any, shown: list[str]) -> None:
    """The answering step sees the whole conversation all the same."""
    adviser, writer = Adviser(model="a"), Loop(model="w", steps=0)
    model = ChatMixture([Propose([adviser], view=view), Aggregate(writer)])
    call = {"name": "look", "args": {"n": 0}, "id": "c0"}
    talk: list[BaseMessage] = [
        HumanMessage("Why?"),
        AIMessage("I look.", tool_calls=[call]),
        ToolMessage("result", tool_call_id="c0"),
        HumanMessage("And?"),
    ]
    again(model, talk)
    assert [m.type for m in adviser.asked[0]] == shown
    assert len(writer.asked[0]) == 5


def test_a_second_step_that_answers_goes_on_from_the_first_one() -> None:
    """The advice is for the first of them; the second one reads what it has said."""
    advisers = [Adviser(model="a"), Adviser(model="b")]
    reviser, writer = Adviser(model="r"), Adviser(model="w")
    asked: list[int] = []

    def never(responses: Sequence[Any]) -> bool:
        asked.append(len(responses))
        return False

    steps = [Propose(advisers), Aggregate(writer), Aggregate(reviser, unless=never)]
    model = ChatMixture(steps, consult=2)
    talk: list[BaseMessage] = [HumanMessage("Why?")]
    for _ in range(2):
        talk += [model.invoke(talk), HumanMessage("And?")]
    assert [len(x.asked) for x in (*advisers, writer, reviser)] == [1, 1, 2, 2]
    assert asked == [1, 1]
    for request in writer.asked:
        assert any("a answers" in message.text for message in request)
    for request in reviser.asked:
        assert any("w answers" in message.text for message in request)
