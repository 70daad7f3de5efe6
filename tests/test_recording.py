"""Recordings: what they hold of which runs, and how they are written and read."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler, dispatch_custom_event
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt
from pydantic import BaseModel

from langchain_mixture import (
    Aggregate,
    ChatMixture,
    InvalidMixtureError,
    Propose,
    StepFailedError,
    Synthesize,
    Take,
    create_mixture,
)
from langchain_mixture.middleware import MixtureMiddleware
from langchain_mixture.seeing import Recording
from tests.models import Scripted, Tooled, add, ask, called, mixture, models

WAYS = ["invoke", "ainvoke", "stream", "astream"]


def recorded(steps: Any, client: Any, **options: Any) -> Recording:
    """Record one run of a graph."""
    recording = Recording()
    graph = create_mixture(steps, client=client, **options)
    graph.invoke(ask("Why?"), {"callbacks": [recording]})
    return recording


# -- What is recorded ------------------------------------------------------------------


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("is_model", [True, False], ids=["ChatMixture", "graph"])
async def test_a_run_is_recorded_whole(is_model: bool, how: str) -> None:
    """With the messages and the reply of each call, what each step kept, the answer."""
    recording = Recording()
    face: Any = mixture() if is_model else mixture().graph
    inputs = "Why?" if is_model else ask("Why?")
    await called(face, how, inputs, {"callbacks": [recording]})
    [run] = recording.runs
    assert run["status"] == "complete"
    assert run["ended"] is not None
    assert run["ended"] >= run["began"]
    assert [message["content"] for message in run["messages"]] == ["Why?"]
    assert sorted(call["agent"] for call in run["calls"]) == ["a", "b", "c"]
    for call in run["calls"]:
        assert call["asked"] is not None
        assert call["replied"] is not None
        assert call["reply"] is not None
        assert call["messages"][-1]["content"].startswith("Why?")
        assert call["message"]["content"] == f"{call['agent']} answers"  # type: ignore[index]
    assert [kept["step"] for kept in run["kept"]] == ["1_propose", "2_aggregate"]
    assert run["answer"] is not None
    assert run["answer"]["content"] == "c answers"
    assert run["result"] is not None
    assert run["result"]["status"] == "complete"


def test_a_recording_without_a_run_is_empty() -> None:
    """And says so."""
    assert Recording().runs == []
    assert repr(Recording()) == "Recording(0 runs, 0 calls)"


def test_a_recording_that_is_cleared_has_only_what_comes_after() -> None:
    """For one handler in many questions."""
    recording = Recording()
    model = mixture()
    model.invoke("First?", {"callbacks": [recording]})
    recording.clear()
    model.invoke("Second?", {"callbacks": [recording]})
    assert [run["messages"][0]["content"] for run in recording.runs] == ["Second?"]


def test_a_recording_that_is_cleared_meanwhile_leaves_that_run_out() -> None:
    """What is heard of it later has no beginning; the next run is whole."""
    recording = Recording()

    def clears(_: Any) -> str:
        recording.clear()
        return "So."

    client = models("b", a=clears)
    steps = [Propose(["a"]), Aggregate("b")]
    create_mixture(steps, client=client).invoke(ask(), {"callbacks": [recording]})
    assert recording.runs == []
    mixture().invoke("Why?", {"callbacks": [recording]})
    assert [run["status"] for run in recording.runs] == ["complete"]


async def test_runs_at_once_are_told_apart() -> None:
    """Each has its own calls."""
    recording = Recording()
    questions: list[Any] = [f"Question {number}?" for number in range(5)]
    await mixture().abatch(questions, {"callbacks": [recording]})
    found = {run["messages"][0]["content"]: run for run in recording.runs}
    assert sorted(found) == questions
    for question, run in found.items():
        assert len(run["calls"]) == 3
        assert all(
            c["messages"][-1]["content"].startswith(question) for c in run["calls"]
        )
    assert len({run["root"] for run in recording.runs}) == 5


def test_sync_runs_at_once_are_told_apart() -> None:
    """Also where they are threads."""
    recording = Recording()
    mixture().batch(["1?", "2?", "3?"], {"callbacks": [recording]})
    assert sorted(len(run["calls"]) for run in recording.runs) == [3, 3, 3]
    assert {run["status"] for run in recording.runs} == {"complete"}


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
async def test_in_an_agent_the_runs_of_a_turn_have_one_root(how: str) -> None:
    """The agent's own run, by its name."""
    recording = Recording()
    client = {"a": Scripted(model="a"), "b": Tooled(model="b")}
    model = ChatMixture([Propose(["a"]), Aggregate("b")], client=client)
    agent = create_agent(model, [add], name="calculator")
    for _ in range(2):
        await called(agent, how, ask(), {"callbacks": [recording]})
    roots = [run["root"] for run in recording.runs]
    assert len(roots) == 4
    assert roots[0] == roots[1] != roots[2] == roots[3]
    assert {run["root_name"] for run in recording.runs} == {"calculator"}
    assert [len(run["responses"]) for run in recording.runs] == [0, 1, 0, 1]


def test_the_panel_of_a_middleware_is_recorded() -> None:
    """Though the agent's own model answers."""
    recording = Recording()
    advice = MixtureMiddleware([Propose(["a", "b"])], client=models("a", "b"))
    agent: Any = create_agent(Scripted(model="c"), middleware=[advice])
    agent.invoke(ask(), {"callbacks": [recording]})
    assert [len(run["calls"]) for run in recording.runs] == [2]


async def test_a_mixture_inside_another_names_the_call_around_it() -> None:
    """The one around it comes first."""
    recording = Recording()
    steps: Any = [Propose([mixture(), "a"]), Take(1)]
    outer = ChatMixture(steps, client=models("a"))
    await outer.ainvoke("Why?", {"callbacks": [recording]})
    first, second = recording.runs
    assert first["parent"] is None
    assert second["parent"] == {"run": first["id"], "call": "1_propose/0"}
    assert first["root"] == second["root"]


# -- How runs end ----------------------------------------------------------------------


@pytest.mark.parametrize("how", WAYS)
async def test_a_run_that_raises_is_recorded_to_its_end(how: str) -> None:
    """With the error, and the calls that were paid for."""
    recording = Recording()
    client = models("a", "b", c=ValueError("no"))
    model = ChatMixture([Propose(["a", "b"]), Aggregate("c")], client=client)
    with pytest.raises(StepFailedError):
        await called(model, how, "Why?", {"callbacks": [recording]})
    [run] = recording.runs
    assert run["status"] == "failed"
    assert run["error"] is not None
    assert "c failed: ValueError: no" in run["error"]
    assert [call["reply"]["outcome"] for call in run["calls"]] == [  # type: ignore[index]
        "answered",
        "answered",
        "failed",
    ]


async def test_a_run_that_is_cancelled_is_recorded_to_its_end() -> None:
    """A call that was under way has no reply."""
    recording = Recording()
    answered = asyncio.Event()

    class Ear(BaseCallbackHandler):
        run_inline = True

        def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
            if data["event"] == "replied":
                answered.set()

    async def hangs(_: Any) -> str:
        await asyncio.Event().wait()
        return ""

    client = {"a": Scripted(model="a"), "hangs": RunnableLambda(hangs)}
    model = ChatMixture([Propose(["a", "hangs"]), Aggregate("a")], client=client)
    config: Any = {"callbacks": [recording, Ear()]}
    task = asyncio.create_task(model.ainvoke("Why?", config))
    await answered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    [run] = recording.runs
    assert (run["status"], run["answer"]) == ("cancelled", None)
    assert run["ended"] is not None
    ended = {call["agent"]: call["replied"] is not None for call in run["calls"]}
    assert ended == {"a": True, "hangs": False}


def test_a_stream_that_is_left_is_recorded_as_cancelled() -> None:
    """Nobody asked for the rest."""
    recording = Recording()
    goes_on = threading.Event()

    class Held(Scripted):
        def _stream(self, *_: Any, **__: Any) -> Any:
            yield ChatGenerationChunk(message=AIMessageChunk(content="So"))
            goes_on.wait(30)
            yield ChatGenerationChunk(message=AIMessageChunk(content=" on."))

    client = {"a": Scripted(model="a"), "held": Held(model="held")}
    model = ChatMixture([Propose(["a"]), Aggregate("held")], client=client)
    stream: Any = model.stream("Why?", {"callbacks": [recording]})
    next(stream)
    stream.close()
    goes_on.set()
    assert [run["status"] for run in recording.runs] == ["cancelled"]


def test_a_run_that_an_agent_interrupts_is_paused_and_goes_on_as_another() -> None:
    """The second one starts from what the first has saved."""
    recording = Recording()
    asks: Any = RunnableLambda(lambda _: AIMessage(interrupt("May I?")))
    graph: Any = create_mixture(
        [Propose(["a", asks]), Aggregate("a")],
        client=models("a"),
        checkpointer=InMemorySaver(),
    )
    config: Any = {"configurable": {"thread_id": "1"}, "callbacks": [recording]}
    graph.invoke(ask(), config)
    graph.invoke(Command(resume="Yes."), config)
    assert [run["status"] for run in recording.runs] == ["paused", "complete"]


# -- What is written -------------------------------------------------------------------


def test_a_recording_is_read_as_it_was_written(tmp_path: Path) -> None:
    """The runs are the same, and can be written again."""
    recording = recorded([Propose(["a", "b"]), Aggregate("c")], models("a", "b", "c"))
    recording.json(tmp_path / "run.json")
    loaded = Recording.load(tmp_path / "run.json")
    assert loaded.runs == recording.runs
    assert repr(loaded) == "Recording(1 run, 3 calls)"
    loaded.json(tmp_path / "again.json")
    assert (tmp_path / "run.json").read_text() == (tmp_path / "again.json").read_text()


def test_each_text_is_written_once(tmp_path: Path) -> None:
    """64 answers of 2 kB in three steps, each in 64 prompts, are under 1.5 MB."""
    names = [f"m{number}" for number in range(64)]
    client: Any = models(**{name: f"{name} says. " * 250 for name in names}, last="So.")
    steps = [Propose(names), Synthesize(names), Synthesize(names), Aggregate("last")]
    recorded(steps, client).json(tmp_path / "run.json")
    text = (tmp_path / "run.json").read_text()
    # Once by itself, and once in the one prompt that all calls of a step share.
    assert text.count("m63 says. m63 says. ") <= 2 * 125
    assert len(text) < 1_500_000


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{}", "is no recording"),
        ("<html>", "is no recording"),
        ('{"format": "another"}', "has the format 'another'"),
        ("[]", "is no recording"),
    ],
)
def test_a_file_that_is_no_recording_is_refused(
    content: str, said: str, tmp_path: Path
) -> None:
    """By its name, and with what is allowed."""
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(InvalidMixtureError, match=said) as raised:
        Recording.load(tmp_path / "x.json")
    assert "x.json" in str(raised.value)
    assert "allowed:" in str(raised.value)


KEY = "sk-proj-abcdefghijklmnop1234567890"


def test_keys_are_taken_out(tmp_path: Path) -> None:
    """Of what was asked, what was said, and why a call failed."""
    client = models(a=f"Use {KEY}.", b=ValueError(f"bad key {KEY}"), c="So.")
    recording = Recording()
    graph = create_mixture([Propose(["a", "b"]), Aggregate("c")], client=client)
    inputs: Any = {"messages": [HumanMessage(f"Is {KEY} yours?", name=KEY)]}
    graph.invoke(inputs, {"callbacks": [recording]})
    recording.json(tmp_path / "run.json")
    recording.html(tmp_path / "run.html")
    for file in ("run.json", "run.html"):
        text = (tmp_path / file).read_text()
        assert KEY not in text
        assert "[redacted]" in text


class Ion(BaseModel):
    """An ion."""

    charge: int


def test_what_is_no_json_is_written_as_text(tmp_path: Path) -> None:
    """A file's bytes, an object in a message, half a character."""
    odd = AIMessage(
        [{"type": "text", "text": "half \ud800"}],
        additional_kwargs={
            "bytes": b"abc",
            "set": {1},
            "object": object,
            "model": Ion(charge=1),
        },
    )
    recorded([Propose(["a"])], models(a=odd)).json(tmp_path / "run.json")
    saved = Recording.load(tmp_path / "run.json").runs[0]["calls"][0]["message"]
    assert saved is not None
    assert saved["content"][0]["text"] == "half ?"
    assert saved["additional_kwargs"]["bytes"] == "3 bytes"
    assert saved["additional_kwargs"]["model"] == {"charge": 1}
    assert json.loads((tmp_path / "run.json").read_text())


def test_with_prices_each_call_has_its_cost() -> None:
    """A model without one has none."""
    recording = Recording(prices={"a": {"input": 1.0, "output": 2.0}})
    graph = create_mixture([Propose(["a", "b"])], client=models("a", "b"))
    graph.invoke(ask(), {"callbacks": [recording]})
    costs = {call["agent"]: call["cost"] for call in recording.runs[0]["calls"]}
    assert costs == {"a": pytest.approx(20e-6), "b": None}


def test_prices_that_cannot_be_used_are_refused_at_once() -> None:
    """And not when the page is written."""
    with pytest.raises(InvalidMixtureError, match="prices"):
        Recording(prices=3)  # type: ignore[arg-type]


def test_a_call_that_was_not_asked_has_no_messages() -> None:
    """It is there all the same, with the reason."""
    [run] = recorded([Propose(["a", "b"])], models("a", "b"), max_calls=1).runs
    last = next(call for call in run["calls"] if call["call"] == "1_propose/1")
    assert (last["asked"], last["messages"]) == (None, [])
    assert last["reply"] is not None
    assert last["reply"]["outcome"] == "not asked"


def test_events_of_others_are_not_recorded() -> None:
    """An agent may tell events of its own."""
    recording = Recording()

    def tells(messages: Any) -> str:
        dispatch_custom_event("another", {"event": "began"})
        return "So."

    graph = create_mixture([Propose([RunnableLambda(tells)])])
    graph.invoke(ask(), {"callbacks": [recording]})
    assert len(recording.runs) == 1
