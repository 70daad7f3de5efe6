"""The events of a run: what is told, to whom, and in which order."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from langchain_mixture import (
    Aggregate,
    ChatMixture,
    Propose,
    Refine,
    Step,
    StepFailedError,
    Take,
    create_mixture,
    run,
)
from langchain_mixture.middleware import MixtureMiddleware
from langchain_mixture.running import events
from tests.models import Scripted, Streaming, Tooled, add, ask, called, mixture, models

WAYS = ["invoke", "ainvoke", "stream", "astream"]
STEPS = [Propose(["a", "b"]), Aggregate("c")]
WHOLE = Counter(
    {
        ("began", ""): 1,
        ("asked", "1_propose/0"): 1,
        ("asked", "1_propose/1"): 1,
        ("replied", "1_propose/0"): 1,
        ("replied", "1_propose/1"): 1,
        ("kept", "1_propose"): 1,
        ("asked", "2_aggregate/0"): 1,
        ("replied", "2_aggregate/0"): 1,
        ("kept", "2_aggregate"): 1,
    }
)
"""The events of the steps above."""


class Ear(BaseCallbackHandler):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def on_custom_event(self, name: str, data: Any, **about: Any) -> None:
        assert name == "mixture"
        assert about["run_id"]
        self.heard.append(data)


class InlineEar(Ear):
    """Hears at once, in the thread of the run."""

    run_inline = True


class AsyncEar(AsyncCallbackHandler):
    """Keeps what it hears, on an event loop."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    async def on_custom_event(self, name: str, data: Any, **about: Any) -> None:
        await asyncio.sleep(0)
        self.heard.append(data)


def named(heard: list[Any]) -> list[tuple[str, str]]:
    """Give each event with the call or the step that it is of."""
    return [(e["event"], e.get("call") or e.get("step", "")) for e in heard]


def is_ordered(heard: list[Any]) -> bool:
    """Whether a run begins first, and each question is before its reply."""
    order = named(heard)
    asked = [call for kind, call in order if kind == "asked"]
    return (
        order[0][0] == "began"
        and order[-1][0] == "kept"
        and all(order.index(("asked", c)) < order.index(("replied", c)) for c in asked)
        and order.index(("kept", "1_propose")) > order.index(("replied", "1_propose/1"))
    )


# -- Who is told -----------------------------------------------------------------------


@pytest.mark.parametrize("ear", [Ear, InlineEar, AsyncEar])
@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("is_model", [True, False], ids=["ChatMixture", "graph"])
async def test_a_handler_hears_each_event_once_and_in_order(
    is_model: bool, how: str, ear: Callable[[], Any]
) -> None:
    """However the mixture is called, and whatever kind of handler it is."""
    listener = ear()
    client = {name: Streaming(model=name) for name in "abc"}
    face: Any = ChatMixture(STEPS, client=client)
    face = face if is_model else create_mixture(STEPS, client=client)
    inputs = "Why?" if is_model else ask("Why?")
    await called(face, how, inputs, {"callbacks": [listener]})
    assert Counter(named(listener.heard)) == WHOLE
    assert is_ordered(listener.heard)
    assert len({event["run"] for event in listener.heard}) == 1


async def test_run_tells_those_who_listen_in_its_context() -> None:
    """`run` takes no config; a Runnable around it brings the handlers."""
    listener = InlineEar()
    around = RunnableLambda(lambda text: text)

    async def answer(text: str) -> str:
        return (await run(STEPS, text, models("a", "b", "c")))[0]

    chain = around | RunnableLambda(answer)
    await chain.ainvoke("Why?", {"callbacks": [listener]})
    assert Counter(named(listener.heard)) == WHOLE


def test_without_a_listener_no_event_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for a handler that ignores them, nor for a stream of another kind."""

    class Deaf(BaseCallbackHandler):
        pass

    def refuse(_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(events, "_event", refuse)
    graph = create_mixture(STEPS, client=models("a", "b", "c"))
    config: Any = {"callbacks": [Deaf()]}
    assert list(graph.stream(ask(), config, stream_mode="updates"))
    assert mixture().invoke("Why?", config).text == "c answers"


def test_a_wrapped_handler_is_asked_itself() -> None:
    """One that takes tokens is wrapped in a stream, and hears all the same."""

    class Tokens(Ear):
        tokens = 0

        def on_llm_new_token(self, *_: Any, **__: Any) -> None:
            self.tokens += 1

    listener = Tokens()
    list(mixture().stream("Why?", {"callbacks": [listener]}))
    assert Counter(named(listener.heard)) == WHOLE
    assert listener.tokens


# -- Streams ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["stream", "astream"])
async def test_the_custom_stream_of_a_graph_has_the_events(how: str) -> None:
    """As parts of `stream_mode="custom"`."""
    graph = create_mixture(STEPS, client=models("a", "b", "c"))
    if how == "stream":
        parts = list(graph.stream(ask(), stream_mode="custom"))
    else:
        parts = [p async for p in graph.astream(ask(), stream_mode="custom")]
    assert Counter(named(parts)) == WHOLE
    assert is_ordered(parts)


def around(model: ChatMixture, *, asynchronous: bool = False) -> Any:
    """Put a chat model into a graph of one node."""

    def node(state: MessagesState) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    async def anode(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("node", anode if asynchronous else node)
    builder.add_edge(START, "node")
    return builder.compile()


@pytest.mark.parametrize("subgraphs", [True, False])
@pytest.mark.parametrize("how", ["stream", "astream"])
async def test_the_custom_stream_of_a_graph_around_a_mixture_has_them(
    how: str, subgraphs: bool
) -> None:
    """Though the mixture's own graph is detached from it."""
    outer = around(mixture(), asynchronous=how == "astream")
    options: Any = {"stream_mode": "custom", "subgraphs": subgraphs}
    if how == "stream":
        parts = list(outer.stream(ask(), **options))
    else:
        parts = [part async for part in outer.astream(ask(), **options)]
    if subgraphs:
        assert {path for path, _ in parts} == {()}  # it is the outer node that writes
        parts = [part for _, part in parts]
    assert Counter(named(parts)) == WHOLE


def test_a_mixture_as_a_subgraph_is_heard_with_subgraphs() -> None:
    """As any subgraph is, each event once, under the name of its node."""
    builder = StateGraph(MessagesState)
    builder.add_node("node", create_mixture(STEPS, client=models("a", "b", "c")))
    builder.add_edge(START, "node")
    outer = builder.compile()
    parts = list(outer.stream(ask(), stream_mode="custom", subgraphs=True))
    assert Counter(named([event for _, event in parts])) == WHOLE
    assert {path[0].partition(":")[0] for path, _ in parts} == {"node"}
    assert list(outer.stream(ask(), stream_mode="custom")) == []


@pytest.mark.parametrize(
    ("face", "inputs"),
    [
        (mixture(), "Why?"),
        (mixture().graph, ask()),
        (around(mixture()), ask()),
        (around(mixture(), asynchronous=True), ask()),
        (create_agent(mixture()), ask()),
    ],
    ids=["model", "graph", "sync node", "async node", "agent"],
)
async def test_astream_events_has_them(face: Any, inputs: Any) -> None:
    """Each under a run that the stream knows, with that run's parents."""
    stream = face.astream_events(inputs, version="v2")
    custom = [event async for event in stream if event["event"] == "on_custom_event"]
    assert Counter(named([event["data"] for event in custom])) == WHOLE
    assert {event["name"] for event in custom} == {"mixture"}


# -- Agents, and mixtures in mixtures --------------------------------------------------


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
async def test_in_an_agent_each_call_of_the_mixture_is_a_run(how: str) -> None:
    """The second one, in the tool loop, starts from the advice of the first."""
    listener = InlineEar()
    client = {"a": Scripted(model="a"), "b": Tooled(model="b")}
    model = ChatMixture([Propose(["a"]), Aggregate("b")], client=client)
    await called(create_agent(model, [add]), how, ask(), {"callbacks": [listener]})
    first, second = [e for e in listener.heard if e["event"] == "began"]
    assert first["run"] != second["run"]
    assert [step["name"] for step in first["steps"]] == ["1_propose", "2_aggregate"]
    assert [step["name"] for step in second["steps"]] == ["2_aggregate"]
    assert first["responses"] == []
    assert [r["text"] for r in second["responses"]] == ["a answers"]


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
async def test_the_panel_of_a_middleware_is_heard(how: str) -> None:
    """By handlers and by the stream of the agent."""
    listener = InlineEar()
    advice = MixtureMiddleware([Propose(["a", "b"])], client=models("a", "b"))
    agent = create_agent(Scripted(model="c"), middleware=[advice])
    await called(agent, how, ask(), {"callbacks": [listener]})
    panel = Counter({k: n for k, n in WHOLE.items() if "aggregate" not in k[1]})
    assert Counter(named(listener.heard)) == panel
    parts = [part async for part in agent.astream(ask(), stream_mode="custom")]
    assert Counter(named(parts)) == panel
    events = agent.astream_events(ask(), version="v2")
    custom = [e["data"] async for e in events if e["event"] == "on_custom_event"]
    assert Counter(named(custom)) == panel


@pytest.mark.parametrize("inner", ["model", "graph"])
@pytest.mark.parametrize("outer", ["model", "graph"])
@pytest.mark.parametrize("to", ["handler", "astream_events", "custom"])
async def test_a_mixture_in_a_mixture_names_the_call_that_it_runs_in(
    to: str, outer: str, inner: str
) -> None:
    """Its events are told once, to all who hear those of the mixture around it."""
    inside: Any = mixture(name="inside")
    inside = inside if inner == "model" else inside.graph
    steps = [Propose([inside, "a"]), Aggregate("c")]
    face: Any = ChatMixture(steps, client=models("a", "c"))
    face = face if outer == "model" else face.graph
    inputs: Any = "Why?" if outer == "model" else ask()
    if to == "handler":
        listener = InlineEar()
        await face.ainvoke(inputs, {"callbacks": [listener]})
        heard = listener.heard
    elif to == "astream_events":
        stream = face.astream_events(inputs, version="v2")
        heard = [e["data"] async for e in stream if e["event"] == "on_custom_event"]
    else:
        face = around(face, asynchronous=True) if outer == "model" else face
        stream = face.astream(ask(), stream_mode="custom", subgraphs=True)
        heard = [event async for _, event in stream]
    begun = {e["run"]: e for e in heard if e["event"] == "began"}
    assert [e["parent"] for e in begun.values()] == [
        None,
        {"run": next(iter(begun)), "call": "1_propose/0"},
    ]
    for one in begun:
        assert Counter(named([e for e in heard if e["run"] == one])) == WHOLE


# -- What is told ----------------------------------------------------------------------


def heard_of(steps: Any, client: Any, **options: Any) -> list[Any]:
    """Run a pipeline for its events."""
    listener = InlineEar()
    graph = create_mixture(steps, client=client, **options)
    graph.invoke(ask("Why?"), {"callbacks": [listener]})
    return listener.heard


def test_a_run_begins_with_its_steps_and_its_conversation() -> None:
    """The agents have the names that they have in the pipeline."""
    began = heard_of([Propose(["a", "a"]), Take(1)], models("a"), name="two")[0]
    assert began["name"] == "two"
    assert began["steps"] == [
        {"name": "1_propose", "step": "Propose", "agents": ["a", "a"]},
        {"name": "2_take", "step": "Take", "agents": []},
    ]
    assert [message.text for message in began["messages"]] == ["Why?"]


def test_a_question_has_the_messages_as_they_are_sent() -> None:
    """And the ids of the responses that they show."""
    client = models("a", "b", "c")
    heard = heard_of(STEPS, client)
    last = [event for event in heard if event["event"] == "asked"][-1]
    assert [m.content for m in last["messages"]] == [
        m.content for m in client["c"].asked[0]
    ]
    assert (last["agent"], last["attempt"]) == ("c", 0)
    assert last["parents"] == ["1_propose/0", "1_propose/1"]


def test_a_reply_has_the_whole_message_of_any_step() -> None:
    """A proposal's too, which no state keeps."""
    thought = AIMessage([{"type": "thinking", "thinking": "Hm."}, "So."])
    heard = heard_of(STEPS, models("b", "c", a=thought))
    reply = next(
        e for e in heard if e["event"] == "replied" and e["reply"]["text"] == "So."
    )
    assert reply["message"].content == thought.content
    assert reply["reply"]["outcome"] == "answered"


def outcomes(heard: list[Any]) -> list[tuple[str, int, str]]:
    """Give how each attempt ended."""
    return sorted(
        (e["call"], e["attempt"], e["reply"]["outcome"])
        for e in heard
        if e["event"] == "replied"
    )


@pytest.mark.parametrize(
    ("steps", "options", "ended"),
    [
        (
            [Propose(["a"]), Aggregate("bad", fallbacks=["b"])],
            {},
            [
                ("1_propose/0", 0, "answered"),
                ("2_aggregate/0", 0, "failed"),
                ("2_aggregate/0", 1, "answered"),
            ],
        ),
        (
            [Propose(["a", "b"])],
            {"max_calls": 1},
            [("1_propose/0", 0, "answered"), ("1_propose/1", 0, "not asked")],
        ),
        (
            [Propose(["a", "hangs"], quorum=1)],
            {},
            [("1_propose/0", 0, "answered"), ("1_propose/1", 0, "given up")],
        ),
    ],
    ids=["failed", "not asked", "given up"],
)
async def test_each_attempt_ends_in_a_reply(
    steps: list[Step], options: Any, ended: Any
) -> None:
    """Whether it answered, failed, was given up, or was not made at all."""
    listener = InlineEar()

    async def hangs(_: Any) -> str:
        await asyncio.Event().wait()
        return ""

    client = {**models("a", "b", bad=ValueError("no")), "hangs": RunnableLambda(hangs)}
    graph = create_mixture(steps, client=client, **options)
    await graph.ainvoke(ask(), {"callbacks": [listener]})
    assert outcomes(listener.heard) == ended
    # `asked` comes before each of these but one that is not asked.
    asked = [event for event in listener.heard if event["event"] == "asked"]
    assert len(asked) == sum(outcome != "not asked" for *_, outcome in ended)


def test_a_step_tells_what_it_was_given_and_what_it_keeps() -> None:
    """With its row of the history; the last one has the answer and the result."""
    heard = heard_of([*STEPS, Refine(["a"]), Take(1)], models("a", "b", "c"))
    kept = [event for event in heard if event["event"] == "kept"]
    assert [len(e["given"]) for e in kept] == [0, 2, 1, 1]
    assert [len(e["responses"]) for e in kept] == [2, 1, 1, 1]
    assert [[row["name"] for row in e["rows"]] for e in kept] == [
        ["1_propose"],
        ["2_aggregate"],
        ["3_refine"],
        ["4_take"],
    ]
    assert [event["answer"] is not None for event in kept] == [False] * 3 + [True]
    assert kept[-1]["answer"].text == "a answers"
    assert kept[-1]["result"]["status"] == "complete"


def test_a_step_that_is_skipped_is_a_row_of_the_step_in_front() -> None:
    """It has no event of its own."""
    always = Refine(["a"], unless=lambda _: True)
    kept = heard_of([*STEPS, always], models("a", "b", "c"))[-1]
    assert (kept["event"], kept["step"]) == ("kept", "2_aggregate")
    assert [row["name"] for row in kept["rows"]] == ["2_aggregate", "3_refine"]
    assert kept["rows"][1]["skipped"]


class Broken(Propose):
    """A step whose calls raise."""

    def calls(self, *_: Any) -> Any:
        raise KeyError("lost")


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        ([Propose(["bad", "bad"])], "no response is left"),
        ([Broken(["a", "b"])], "KeyError: 'lost'"),
        ([Propose(["a", "b"]), Take(1), Aggregate("bad")], "3_aggregate has no answer"),
    ],
    ids=["all calls fail", "branches raise", "the last step fails"],
)
@pytest.mark.parametrize("asynchronous", [True, False])
async def test_a_step_that_fails_is_told_once(
    steps: list[Step], error: str, asynchronous: bool
) -> None:
    """As the end of its step, with the error that the run raises."""
    listener = InlineEar()
    graph = create_mixture(steps, client=models("a", "b", bad=ValueError("no")))
    config: Any = {"callbacks": [listener]}
    with pytest.raises(StepFailedError, match=error) as raised:
        await called(graph, "ainvoke" if asynchronous else "invoke", ask(), config)
    failed = [e for e in listener.heard if e["event"] == "kept" and e["error"]]
    assert [event["error"] for event in failed] == [str(raised.value)]
    rows = raised.value.history[-1:]
    assert [row["name"] for row in failed[0]["rows"]] == [row["name"] for row in rows]
    assert failed[0]["answer"] is None


def test_a_run_that_goes_on_begins_with_what_was_saved() -> None:
    """It is a run of its own, with the same steps."""
    client = models("a", "b", c=ValueError("no"))
    graph: Any = create_mixture(STEPS, client=client, checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    with pytest.raises(StepFailedError):
        graph.invoke(ask(), config)
    client["c"].script = "better"
    listener = InlineEar()
    graph.invoke(None, {**config, "callbacks": [listener]})
    assert named(listener.heard) == [
        ("began", ""),
        ("asked", "2_aggregate/0"),
        ("replied", "2_aggregate/0"),
        ("kept", "2_aggregate"),
    ]
    began = listener.heard[0]
    assert [r["text"] for r in began["responses"]] == ["a answers", "b answers"]
    assert isinstance(began["messages"][0], HumanMessage)


async def test_one_graph_in_several_runs_at_once_tells_them_apart() -> None:
    """By the id of the run."""
    listener = AsyncEar()
    graph = create_mixture(STEPS, client=models("a", "b", "c"))
    await graph.abatch([ask()] * 3, {"callbacks": [listener]})
    counts = Counter(event["run"] for event in listener.heard)
    assert list(counts.values()) == [sum(WHOLE.values())] * 3


async def test_a_handler_that_raises_costs_no_call() -> None:
    """LangChain logs its error, and the run goes on."""

    class Raising(BaseCallbackHandler):
        run_inline = True

        def on_custom_event(self, *_: Any, **__: Any) -> None:
            raise ValueError("not today")

    answer = await mixture().ainvoke("Why?", {"callbacks": [Raising()]})
    assert answer.response_metadata["mixture"]["status"] == "complete"
