"""Going on where a run ended: nobody is paid twice, and no thread is a dead end."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

from langchain_mixture import (
    Aggregate,
    NoResponsesError,
    Propose,
    Refine,
    Reply,
    Response,
    Result,
    Step,
    StepFailedError,
    Take,
    create_mixture,
)
from tests.databases import postgres_programs, running_postgres
from tests.models import Scripted, ask, called, models
from tests.openai_stub import Answer, serve

ROOT = Path(__file__).parent.parent
CONFIG: Any = {"configurable": {"thread_id": "1"}}
ONE_SERVER = pytest.mark.xdist_group("postgres")
"""Keeps what needs PostgreSQL on one worker, so that only one is started."""


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a program, with a strict serializer."""
    return subprocess.Popen(
        [sys.executable, "-m", f"tests.{program}", *arguments],
        cwd=ROOT,
        env={**os.environ, "LANGGRAPH_STRICT_MSGPACK": "true"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(condition: Any) -> None:
    """Wait for a condition, for two minutes at most."""
    give_up = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < give_up, "it never came to pass"
        time.sleep(0.01)


def saved_replies(database: str) -> int:
    """Count the replies of branches that are safe in the database."""
    if not database.startswith("postgresql:"):
        connection: Any = sqlite3.connect(database)
        table = "writes"
    else:
        connection = psycopg.connect(database)
        table = "checkpoint_writes"
    with closing(connection):
        query = f"select count(*) from {table} where channel = 'replies'"
        try:
            (count,) = connection.execute(query).fetchone()
        except (sqlite3.OperationalError, psycopg.errors.UndefinedTable):
            return 0  # the tables are not there yet
    return int(count)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """Run a PostgreSQL of our own on a free loopback port, and give its URL."""
    programs = postgres_programs()
    if programs is None:
        pytest.skip("no PostgreSQL: install Debian's package postgresql")
    with running_postgres(programs) as url:
        yield url


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    """Give the name of a database file."""
    return str(tmp_path / "checkpoints.sqlite")


@pytest.mark.parametrize(
    ("database", "mode", "hanging", "saved"),
    [
        ("sqlite", "sync", "c", 2),
        ("sqlite", "async", "e", 4),
        ("sqlite", "sync", "f", 5),
        pytest.param("postgres", "async", "c", 2, marks=ONE_SERVER),
        pytest.param("postgres", "sync", "e", 4, marks=ONE_SERVER),
        pytest.param("postgres", "async", "f", 5, marks=ONE_SERVER),
    ],
)
def test_a_killed_run_goes_on_without_asking_again_who_had_answered(
    request: pytest.FixtureRequest, database: str, mode: str, hanging: str, saved: int
) -> None:
    """After SIGKILL only the call that was under way is made once more."""
    release = threading.Event()
    url = request.getfixturevalue(database)
    if database == "postgres":  # a database of its own for each case
        with closing(psycopg.connect(url, autocommit=True)) as connection:
            connection.execute(f"create database {mode}_{hanging}")
        url = url.replace("/postgres", f"/{mode}_{hanging}")

    def answer(request: dict[str, Any]) -> Answer | str:
        first = stub.asked().count(request["model"]) == 1
        hangs = first and request["model"] == hanging
        return Answer(f"{request['model']}!", after=release if hangs else None)

    with serve(answer) as stub:
        process = start("resumable", stub.url, url, mode)
        try:
            wait_until(lambda: hanging in stub.asked() and saved_replies(url) == saved)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        process = start("resumable", stub.url, url, mode)
        output, errors = process.communicate(timeout=120)
        release.set()
        assert output.strip() == "f!", errors
        assert errors == ""
        expected = Counter("abcdef") + Counter(hanging)
        assert Counter(stub.asked()) == expected


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("face", ["ChatMixture", "middleware"])
def test_an_agent_killed_in_its_tool_loop_keeps_its_advice(
    sqlite: str, face: str, mode: str
) -> None:
    """Another process goes on with the thread, and asks no adviser of that turn."""
    release = threading.Event()

    def answer(request: dict[str, Any]) -> Answer | str:
        if request["model"] != "writer":
            return f"{request['model']} advises"
        asked = stub.asked().count("writer")
        done = sum(message["role"] == "tool" for message in request["messages"])
        if done == 3:
            return "done"
        call = {"name": "look", "arguments": json.dumps({"n": done})}
        return Answer(
            tool_calls=[{"id": f"c{done}", "type": "function", "function": call}],
            finish="tool_calls",
            after=release if asked == 3 else None,
        )

    with serve(answer) as stub:
        process = start("resumable_agent", stub.url, sqlite, face, mode)
        try:
            wait_until(lambda: stub.asked().count("writer") == 3)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        process = start("resumable_agent", stub.url, sqlite, face, mode)
        output, errors = process.communicate(timeout=120)
        release.set()
        assert output.strip() == "done", errors
        assert errors == ""
        # Four requests, and the third once more; it is the same one, advice included.
        assert Counter(stub.asked()) == Counter({"writer": 5, "a": 1, "b": 1})
        killed, again = [r for r in stub.requests if r["model"] == "writer"][2:4]
        assert again["messages"] == killed["messages"]
        assert "a advises" in json.dumps(again["messages"])


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_thread_whose_calls_all_failed_is_asked_again(
    asynchronous: bool,
) -> None:
    """When the providers recover, invoke(None) on the thread gets an answer."""
    down = OSError("down")
    client = models("c", a=down, b=down)
    graph = create_mixture(
        [Propose(["a", "b"]), Aggregate("c")],
        client=client,
        checkpointer=InMemorySaver(),
    )

    async def invoke(value: Any) -> Any:
        if asynchronous:
            return await graph.ainvoke(value, CONFIG)
        return graph.invoke(value, CONFIG)

    with pytest.raises(NoResponsesError):
        await invoke(ask())
    with pytest.raises(NoResponsesError):
        await invoke(None)
    client["a"].script = client["b"].script = None
    state = await invoke(None)
    assert state["messages"][-1].text == "c answers"
    assert state["mixture"]["status"] == "complete"
    assert len(client["a"].asked) == 3


@dataclass(frozen=True)
class Unanimous(Propose):
    """A step of one's own that fails unless all of its agents answer."""

    def keep(
        self, responses: Sequence[Response], replies: Sequence[Reply]
    ) -> list[Response]:
        kept = super().keep(responses, replies)
        assert isinstance(kept, list)
        return kept if len(kept) == len(replies) else []


def test_of_a_failed_step_only_the_failed_calls_are_made_again() -> None:
    """Where one of three had answered, that one is not asked again."""
    client = models("a", "d", b=OSError("down"), c=OSError("down"))
    graph = create_mixture(
        [Unanimous(["a", "b", "c"]), Aggregate("d")],
        client=client,
        checkpointer=InMemorySaver(),
    )
    with pytest.raises(NoResponsesError):
        graph.invoke(ask(), CONFIG)
    client["b"].script = client["c"].script = None
    state = graph.invoke(None, CONFIG)
    assert state["mixture"]["history"][0]["outputs"] == [
        "a answers",
        "b answers",
        "c answers",
    ]
    assert [len(client[name].asked) for name in "abc"] == [1, 2, 2]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_resumed_step_keeps_to_its_quorum_and_concurrency(
    asynchronous: bool,
) -> None:
    """Calls that are made again wait for no more than the step does."""
    client = models(a=OSError("down"), b=OSError("down"), c=OSError("down"))
    graph = create_mixture(
        [Propose(["a", "b", "c"], quorum=1)],
        client=client,
        checkpointer=InMemorySaver(),
    )
    config: Any = {**CONFIG, "max_concurrency": 1}

    async def invoke(value: Any) -> Any:
        if asynchronous:
            return await graph.ainvoke(value, config)
        return graph.invoke(value, config)

    with pytest.raises(NoResponsesError):
        await invoke(ask())
    for model in client.values():
        model.script = None
    state = await invoke(None)
    assert state["mixture"]["status"] == "complete"
    assert sum(len(model.asked) for model in client.values()) == 4


def test_where_the_quorum_is_met_nobody_is_asked_after_a_resume() -> None:
    """A step that failed by its own code goes on with the answers that it had."""
    broken = [True]

    @dataclass(frozen=True)
    class Stumbling(Propose):
        def keep(self, responses: Any, replies: Any) -> Any:
            if broken:
                raise ValueError("not yet")
            return super().keep(responses, replies)

    client = models(*"abc")
    graph = create_mixture(
        [Stumbling(["a", "b", "c"], quorum=1)],
        client=client,
        checkpointer=InMemorySaver(),
    )
    config: Any = {**CONFIG, "max_concurrency": 1}
    with pytest.raises(StepFailedError, match="not yet"):
        graph.invoke(ask(), config)
    broken.clear()
    state = graph.invoke(None, config)
    assert sum(len(model.asked) for model in client.values()) == 1
    assert len(state["mixture"]["responses"]) == 1
    assert state["mixture"]["status"] == "complete"


@dataclass(frozen=True)
class Pair(Propose):
    """A step of one's own that fails unless two of its agents answer."""

    def keep(
        self, responses: Sequence[Response], replies: Sequence[Reply]
    ) -> list[Response]:
        kept = super().keep(responses, replies)
        assert isinstance(kept, list)
        return kept if len(kept) == 2 else []


def test_saved_answers_count_for_the_quorum_of_a_resumed_step() -> None:
    """Of a quorum of two one had answered: one more is asked, and not two."""
    client = models("a", b=OSError("down"), c=OSError("down"))
    graph = create_mixture(
        [Pair(["a", "b", "c"], quorum=2)],
        client=client,
        checkpointer=InMemorySaver(),
    )
    config: Any = {**CONFIG, "max_concurrency": 1}
    with pytest.raises(NoResponsesError):
        graph.invoke(ask(), config)
    client["b"].script = client["c"].script = None
    state = graph.invoke(None, config)
    assert state["mixture"]["status"] == "complete"
    assert sum(len(model.asked) for model in client.values()) == 4


async def test_an_interrupt_in_a_resumed_step_ends_the_calls_beside_it() -> None:
    """While a human is asked, no other call of the step runs on unheard."""
    down = [True]
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def consult(_: Any) -> str:
        if down:
            raise OSError("down")
        await begun.wait()
        return str(interrupt("what do you say?"))

    async def hang(_: Any) -> str:
        if down:
            raise OSError("down")
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return "late"

    agents = [RunnableLambda(str, consult), RunnableLambda(str, hang)]
    graph = create_mixture([Propose(agents)], checkpointer=InMemorySaver())
    with pytest.raises(NoResponsesError):
        await graph.ainvoke(ask(), CONFIG)
    down.clear()
    state = await graph.ainvoke(None, CONFIG)
    assert state["__interrupt__"][0].value == "what do you say?"
    async with asyncio.timeout(30):
        await cancelled.wait()


def test_only_what_may_be_the_answer_is_saved_as_a_whole_message() -> None:
    """Of a proposal a checkpoint holds the text, and not all that came with it."""

    def said(name: str) -> AIMessage:
        more = {"reasoning": f"the long thoughts of {name}"}
        return AIMessage(f"{name} answers", additional_kwargs=more)

    client = models(a=said("a"), b=said("b"), c=said("c"))
    graph = create_mixture(
        [Propose(["a", "b"]), Aggregate("c")],
        client=client,
        checkpointer=InMemorySaver(),
    )
    graph.invoke(ask(), CONFIG)
    saved = repr(list(graph.get_state_history(CONFIG)))
    assert "a answers" in saved
    assert "thoughts of c" in saved
    assert "thoughts of a" not in saved


def test_a_failed_aggregator_is_asked_again_and_the_proposers_are_not() -> None:
    """A step that failed after others had succeeded is the only one repeated."""
    client = models("a", "b", c=OSError("down"))
    graph = create_mixture(
        [Propose(["a", "b"]), Aggregate("c")],
        client=client,
        checkpointer=InMemorySaver(),
    )
    with pytest.raises(StepFailedError):
        graph.invoke(ask(), CONFIG)
    client["c"].script = None
    assert graph.invoke(None, CONFIG)["messages"][-1].text == "c answers"
    assert [len(client[name].asked) for name in "abc"] == [1, 1, 2]


def test_what_is_in_the_state_survives_the_serializer_in_silence(
    recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    """A run with every kind of step and a failure writes plain data only."""
    client: dict[str, Scripted] = {**models("a", "b"), "x": Scripted(model="x")}
    client["x"].script = OSError("down")
    graph = create_mixture(
        [Propose(["a", "x", "b"]), Refine(["a", "x"]), Aggregate("b")],
        client=client,
        checkpointer=InMemorySaver(),
    )
    graph.invoke(ask(), CONFIG)
    states = list(graph.get_state_history(CONFIG))
    assert len(states) > 5
    assert len(recwarn) == 0
    assert [r.name for r in caplog.records] == ["langchain_mixture"]


# -- A quorum, and answers that were saved -------------------------------------------


class Panel:
    """Three agents of a quorum of two; the run of their first calls is interrupted.

    The last of them interrupts first, so that the others' answers are saved with it.
    """

    def __init__(self, answering: str) -> None:
        self.asked: list[str] = []
        self.answering = answering
        """The agents that answer in the first run; the others interrupt it."""
        self.quorum: Any = 2
        self.is_resumed = False
        self._interrupted = threading.Event()
        self._hanging = threading.Event()
        self.release = threading.Event()

    def agent(self, name: str) -> Any:
        """Make an agent; after the resume the last one hangs until it is released."""

        def answer(_: Any) -> str:
            self.asked.append(name)
            if self.is_resumed and name == "c":
                self._hanging.set()
                assert self.release.wait(60)
            elif self.is_resumed:
                assert self._hanging.wait(60)
            elif name in self.answering:
                assert self._interrupted.wait(60)
            else:
                self._interrupted.set()
                interrupt("?")
            return f"{name} answers"

        async def aanswer(messages: Any) -> str:
            return await asyncio.to_thread(answer, messages)

        return RunnableLambda(answer, aanswer, name=name)

    def graph(self, place: str, saver: Any) -> Any:
        """Make a graph with a checkpointer, the mixture's own or one around it."""
        agents = [self.agent(name) for name in "abc"]
        steps = [Propose(agents, quorum=self.quorum), Take(2)]
        if place == "alone":
            return create_mixture(steps, checkpointer=saver)
        inner: Any = create_mixture(
            steps, checkpointer=True if place == "with its own history" else None
        )
        if place == "in a function":
            graph = inner
            inner = RunnableLambda(
                lambda state: graph.invoke(state),
                lambda state: graph.ainvoke(state),
            )
        builder = StateGraph(Outer)
        builder.add_node("mixture", inner)
        builder.add_edge(START, "mixture")
        return builder.compile(checkpointer=saver)


class Outer(MessagesState):
    """The state of a graph around a mixture."""

    mixture: Result


PLACES = ["alone", "as a subgraph", "with its own history", "in a function"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream", "astream"])
@pytest.mark.parametrize(
    ("answering", "given", "again"),
    [("ab", None, []), ("ab", Command(resume="yes"), []), ("a", None, ["b", "c"])],
    ids=["it is met", "it is met before a resume", "it lacks one"],
)
async def test_answers_that_were_saved_count_for_the_quorum(
    answering: str, again: list[str], given: Any, how: str, place: str
) -> None:
    """After a resume nobody is waited for who is not needed."""
    panel = Panel(answering)
    graph = panel.graph(place, InMemorySaver())
    await called(graph, how, ask(), CONFIG)
    panel.asked.clear()
    panel.is_resumed = True
    try:
        async with asyncio.timeout(50):
            state = await called(graph, how, given, CONFIG)
    finally:
        panel.release.set()
    assert sorted(panel.asked) == again
    mixture = state["mixture"]
    assert mixture["history"][0]["outputs"] == ["a answers", "b answers"]
    assert mixture["status"] == "complete"
    rests = "1_propose: rests on 2 of 3 answers, as its quorum of 2 allows"
    assert mixture["reasons"] == [rests]


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
async def test_a_quorum_that_is_a_condition_is_asked_about_saved_answers(
    how: str,
) -> None:
    """Where it is true of them, no call begins after a resume."""

    def two(responses: Sequence[Response]) -> bool:
        return len(responses) > 1

    panel = Panel("ab")
    panel.quorum = two
    graph = panel.graph("alone", InMemorySaver())
    await called(graph, how, ask(), CONFIG)
    panel.asked.clear()
    panel.is_resumed = True
    try:
        async with asyncio.timeout(50):
            state = await called(graph, how, None, CONFIG)
    finally:
        panel.release.set()
    assert panel.asked == []
    rests = "1_propose: rests on 2 of 3 answers, as its quorum two allows"
    assert state["mixture"]["reasons"] == [rests]


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream", "astream"])
async def test_time_travel_counts_no_answer_that_is_asked_for_again(how: str) -> None:
    """A step that is replayed asks its agents, whatever its thread has saved."""
    client = models("a", "b")
    graph = create_mixture(
        [Propose(["a", "b"], quorum=2)], client=client, checkpointer=InMemorySaver()
    )
    await called(graph, how, ask(), CONFIG)
    past = [s for s in graph.get_state_history(CONFIG) if "1_propose/a" in s.next]
    state = await called(graph, how, None, past[0].config)
    assert state["mixture"]["reasons"] == []
    assert [len(client[name].asked) for name in "ab"] == [2, 2]


# -- What is saved -------------------------------------------------------------------


def test_each_text_is_saved_once_and_read_as_often_as_it_stands() -> None:
    """A checkpoint holds no text of the history twice; who reads it sees them all."""
    long = {name: f"{name} says " + name * 2000 for name in "abc"}
    client = {name: Scripted(model=name, script=text) for name, text in long.items()}
    saver = InMemorySaver()
    graph = create_mixture(
        [Propose(["a", "b"]), Refine(["c", "c"]), Take(1), Aggregate("a")],
        client=client,
        checkpointer=saver,
    )
    final = graph.invoke(ask(), CONFIG)
    for state in graph.get_state_history(CONFIG):
        for row in state.values["mixture"].get("history", ()):
            assert len(row["outputs"]) == len(row["responses"]) > 0
    saved = next(iter(saver.list(CONFIG))).checkpoint["channel_values"]["mixture"]
    assert repr(saved["history"]).count(long["b"]) == 1
    assert repr(saved["history"]).count(long["a"]) == 1  # the answer is in responses
    assert [row["outputs"] for row in final["mixture"]["history"]] == [
        [long["a"], long["b"]],
        [long["c"]] * 2,
        [long["c"]],
        [long["a"]],
    ]


@dataclass(frozen=True)
class Twice(Step):
    """A user's step that hands one response on twice, with different texts."""

    def keep(
        self, responses: Sequence[Response], replies: Sequence[Reply]
    ) -> list[Response]:
        return [
            {**response, "text": text}
            for response in responses[:1]
            for text in ("one", "two")
        ]

    def bounds(self, n: int) -> tuple[Sequence[Any], int]:
        return (), 2


def test_texts_under_one_id_are_all_saved() -> None:
    """Texts are left out only where they are found elsewhere, letter by letter."""
    graph = create_mixture(
        [Propose(["a", "b"]), Twice(), Take(1), Aggregate("c")],
        client={name: Scripted(model=name) for name in "abc"},
        checkpointer=InMemorySaver(),
    )
    graph.invoke(ask(), CONFIG)
    state = graph.get_state(CONFIG).values["mixture"]
    assert [row["outputs"] for row in state["history"][1:3]] == [
        ["one", "two"],
        ["one"],
    ]
