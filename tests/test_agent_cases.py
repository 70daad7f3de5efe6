"""An agent's turn, whatever happens in it: each panel is asked once, or it is said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    HumanInTheLoopMiddleware,
    ModelRequest,
    SummarizationMiddleware,
    dynamic_prompt,
    wrap_model_call,
)
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    RemoveMessage,
    ToolMessage,
)
from langchain_core.tools import ToolException, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from pydantic import BaseModel

from langchain_mixture import Aggregate, ChatMixture, Propose
from langchain_mixture.middleware import MixtureMiddleware
from tests.models import Scripted
from tests.test_consult import Adviser

CONFIG: Any = {"configurable": {"thread_id": "1"}}


@tool
def look(n: int) -> str:
    """Look something up."""
    return f"result {n}"


@tool
def fail(n: int) -> str:
    """Fail."""
    raise ToolException(f"no result {n}")


fail.handle_tool_error = True


class Verdict(BaseModel):
    """A judgement."""

    is_true: bool


class Player(Scripted):
    """Says its lines in order: a text, or tools to call."""

    lines: Sequence[Any] = ()

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind(**kwargs)

    def _message(self, messages: list[BaseMessage], kwargs: Any) -> AIMessage:
        self.asked.append(messages)
        self.arguments.append(kwargs)
        line = self.lines[len(self.asked) - 1]
        if isinstance(line, str):
            return AIMessage(line)
        calls: list[Any] = [
            {"name": name, "args": args, "id": f"{self.model}{len(self.asked)}{index}"}
            for index, (name, args) in enumerate(line)
        ]
        return AIMessage("", tool_calls=calls)


class Face:
    """An agent that a panel of two advises."""

    def __init__(
        self, face: str, lines: Sequence[Any], name: str = "w", consult: Any = "turn"
    ) -> None:
        self.advisers = [Adviser(model=f"{name}1"), Adviser(model=f"{name}2")]
        self.writer = Player(model=name, lines=lines)
        panel = Propose(self.advisers)
        self.model: Any = self.writer
        self.middleware: list[Any] = []
        if face == "ChatMixture":
            self.model = ChatMixture([panel, Aggregate(self.writer)], consult=consult)
        else:
            self.middleware = [MixtureMiddleware([panel], consult=consult)]

    def agent(self, tools: Any = (look,), *middleware: Any, **options: Any) -> Any:
        """Return the agent, with other middleware in front."""
        every = [*middleware, *self.middleware]
        return create_agent(self.model, tools, middleware=every, **options)

    @property
    def asked(self) -> list[int]:
        """How often each adviser was asked, and the answering model."""
        return [len(x.asked) for x in (*self.advisers, self.writer)]


FACES = pytest.mark.parametrize("face", ["ChatMixture", "middleware"])
LOOK: Any = [("look", {"n": 1})]
QUESTION: Any = {"messages": [HumanMessage("Why?")]}
PICTURE: Any = {"type": "image", "base64": "AAAA", "mime_type": "image/png"}


@dynamic_prompt
def changing(request: ModelRequest[Any]) -> str:
    """Write another system prompt for each request."""
    return f"There are {len(request.messages)} messages."


@wrap_model_call
def forcing(request: ModelRequest[Any], handler: Any) -> Any:
    """Force a tool call, first of all."""
    choice = "look" if len(request.messages) == 1 else None
    return handler(request.override(tool_choice=choice))


def plainly(face: Face, *middleware: Any, **options: Any) -> None:
    """Ask once."""
    face.agent((look, fail), *middleware, **options).invoke(QUESTION)


def with_a_person(face: Face) -> None:
    """Ask; a person allows the first call and forbids the second."""
    person = HumanInTheLoopMiddleware(interrupt_on={"look": True})
    agent = face.agent((look,), person, checkpointer=InMemorySaver())
    agent.invoke(QUESTION, CONFIG)
    for decision in ({"type": "approve"}, {"type": "reject", "message": "No."}):
        agent.invoke(Command(resume={"decisions": [decision]}), CONFIG)


def about_a_picture(face: Face) -> None:
    """Ask about a picture."""
    text: Any = {"type": "text", "text": "What is this?"}
    asked = HumanMessage(content_blocks=[text, PICTURE])
    face.agent().invoke({"messages": [asked]})


ONCE: dict[str, tuple[list[Any], Callable[[Face], None]]] = {
    "a forced tool": ([LOOK, LOOK, "done"], lambda face: plainly(face, forcing)),
    "a schema": (
        [LOOK, LOOK, [("Verdict", {"is_true": True})]],
        lambda face: plainly(face, response_format=ToolStrategy(Verdict)),
    ),
    "parallel calls": ([LOOK * 3, LOOK * 2, "done"], plainly),
    "a failing tool": ([[("fail", {"n": 1})], LOOK, "done"], plainly),
    "a person": ([LOOK, LOOK, "done"], with_a_person),
    "a picture": ([LOOK, LOOK, "done"], about_a_picture),
    "changing prompts": ([LOOK, LOOK, "done"], lambda face: plainly(face, changing)),
}


@FACES
@pytest.mark.parametrize("case", ONCE)
def test_the_panel_is_asked_once_a_turn(case: str, face: str) -> None:
    """All three requests of the turn show its advice, where it was given."""
    lines, happens = ONCE[case]
    ours = Face(face, lines)
    happens(ours)
    assert ours.asked == [1, 1, 3]
    for request in ours.writer.asked:
        human = [m for m in request if m.type == "human"]
        assert len(human) == 1
        assert "w1 answers" in human[0].text
        kinds = [m.type for m in request]
        assert ("tool", "human") not in pairwise(kinds)


def test_a_forced_choice_is_the_answering_models_alone() -> None:
    """An adviser that must call a tool would give no advice."""
    ours = Face("ChatMixture", [LOOK, "done"])
    plainly(ours, forcing)
    first, second = ours.writer.arguments
    assert first["tool_choice"] == "look"
    assert "tool_choice" not in second


@FACES
@pytest.mark.parametrize(("consult", "asked"), [(1, 5), (2, 3), (3, 2), (100, 1)])
def test_a_number_asks_anew_after_so_many_answers(
    face: str, consult: int, asked: int
) -> None:
    """In a turn of four tool steps and an answer."""
    ours = Face(face, [*[LOOK] * 4, "done"], consult=consult)
    plainly(ours)
    assert ours.asked == [asked, asked, 5]


# -- What asks again -----------------------------------------------------------------


def summarising() -> Any:
    """Return the middleware that puts a summary in the place of old messages."""
    model = Scripted(model="s", script="summary")
    keep: Any = ("messages", 2)
    return SummarizationMiddleware(model, trigger=("messages", 5), keep=keep)


@FACES
def test_advice_that_was_summarised_away_is_asked_for_once_more(face: str) -> None:
    """The answer that carried it is gone; the new advice stands beside the summary."""
    ours = Face(face, [LOOK, LOOK, LOOK, "done"])
    ours.agent((look,), summarising()).invoke(QUESTION)
    assert ours.asked == [2, 2, 4]
    shown = [m for m in ours.writer.asked[2] if m.type == "human"]
    assert "summary" in shown[0].text
    assert "w1 answers" in shown[0].text
    assert [m.type for m in ours.writer.asked[3]][-2:] == ["ai", "tool"]


@FACES
def test_a_turn_that_is_taken_back_is_a_new_one(face: str) -> None:
    """Its question and answers are removed; another question is asked."""
    ours = Face(face, [LOOK, "done", LOOK, "done"])
    agent = ours.agent(checkpointer=InMemorySaver())
    said = agent.invoke(QUESTION, CONFIG)["messages"]
    removed = [RemoveMessage(id=message.id) for message in said]
    agent.invoke({"messages": [*removed, HumanMessage("How?")]}, CONFIG)
    assert ours.asked == [2, 2, 4]
    assert "Why?" not in str(ours.writer.asked[2:])


@FACES
def test_a_retry_around_the_mixture_asks_the_panel_again(face: str) -> None:
    """Beneath it, on the model that answers, it does not."""
    ours = Face(face, [LOOK, "done"])
    broken = iter([OSError("down"), None])
    real = ours.writer._message

    def flaky(messages: list[BaseMessage], kwargs: Any) -> AIMessage:
        if (error := next(broken, None)) is not None:
            raise error
        return real(messages, kwargs)

    object.__setattr__(ours.writer, "_message", flaky)

    @wrap_model_call
    def again(request: ModelRequest[Any], handler: Any) -> Any:
        try:
            return handler(request)
        except Exception:  # noqa: BLE001 # whatever it is
            return handler(request)

    ours.agent((look,), again).invoke(QUESTION)
    assert ours.asked == [2, 2, 2]


# -- What does not -------------------------------------------------------------------


@FACES
@pytest.mark.parametrize("forked", [False, True], ids=["time travel", "fork"])
def test_another_way_from_the_middle_of_a_turn_keeps_its_advice(
    face: str, forked: bool
) -> None:
    """From an older checkpoint, as it was or with another tool's result."""
    ours = Face(face, [LOOK, LOOK, "done", LOOK, "done again"])
    agent = ours.agent(checkpointer=InMemorySaver())
    agent.invoke(QUESTION, CONFIG)
    then = next(
        state
        for state in agent.get_state_history(CONFIG)
        if state.next == ("model",) and len(state.values["messages"]) == 3
    )
    config = then.config
    if forked:
        result = then.values["messages"][-1]
        other = ToolMessage("other", tool_call_id=result.tool_call_id, id=result.id)
        config = agent.update_state(config, {"messages": [other]}, "tools")
    state = agent.invoke(None, config)
    assert state["messages"][-1].text == "done again"
    assert ours.asked == [1, 1, 5]
    assert "w1 answers" in ours.writer.asked[3][-3].text
    assert ours.writer.asked[3][-1].text == ("other" if forked else "result 1")


# -- Several agents ------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:create_react_agent has been moved")  # its own use
@FACES
def test_a_supervisor_and_its_worker_ask_their_own_panels_once(face: str) -> None:
    """The worker's panel, and the supervisor's where it is a mixture."""
    made: Any = pytest.importorskip("langgraph_supervisor").create_supervisor
    worker = Face(face, [LOOK, LOOK, "the worker's answer"], name="x")
    chief = Face("ChatMixture", [[("transfer_to_expert", {})], "done"], name="w")
    agents = [worker.agent(name="expert")]
    team = made(agents, model=chief.model).compile()
    state = team.invoke(QUESTION)
    assert state["messages"][-1].text == "done"
    assert worker.asked == [1, 1, 3]
    assert chief.asked == [1, 1, 2]
    for request in (*worker.writer.asked, *chief.writer.asked):
        assert ("tool", "human") not in pairwise([m.type for m in request])


@FACES
def test_the_agents_of_a_swarm_ask_their_own_panels_once(face: str) -> None:
    """A handoff in mid-turn: the one that takes over asks its panel once."""
    swarm: Any = pytest.importorskip("langgraph_swarm")
    first = Face(face, [[("transfer_to_bob", {})]], name="a")
    second = Face(face, [LOOK, LOOK, "done", "hello"], name="b")
    to_bob = swarm.create_handoff_tool(agent_name="bob")
    agents = [first.agent([to_bob], name="alice"), second.agent([look], name="bob")]
    team = swarm.create_swarm(agents, default_active_agent="alice")
    running = team.compile(checkpointer=InMemorySaver())
    running.invoke(QUESTION, CONFIG)
    assert first.asked == [1, 1, 1]
    assert second.asked == [1, 1, 3]
    running.invoke({"messages": [HumanMessage("And?")]}, CONFIG)  # still with Bob
    assert first.asked == [1, 1, 1]
    assert second.asked == [2, 2, 4]
    for request in second.writer.asked:
        assert ("tool", "human") not in pairwise([m.type for m in request])


@FACES
def test_a_deep_agents_task_is_a_conversation_of_its_own(face: str) -> None:
    """Its panel is asked once in each task, and the agent's once a turn."""
    made: Any = pytest.importorskip("deepagents").create_deep_agent
    task: Any = [("task", {"description": "Look.", "subagent_type": "expert"})]
    ours = Face(face, [task, task, "done"])
    expert = Face(face, [LOOK, "first", LOOK, "second"], name="x")
    subagent = {
        "name": "expert",
        "description": "It knows.",
        "system_prompt": "Know.",
        "model": expert.model,
        "tools": [look],
        "middleware": expert.middleware,
    }
    agent = made(ours.model, middleware=ours.middleware, subagents=[subagent])
    state = agent.invoke(QUESTION)
    assert state["messages"][-1].text == "done"
    assert ours.asked == [1, 1, 3]
    assert expert.asked == [2, 2, 4]
