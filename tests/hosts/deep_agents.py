"""Deep agents with a scripted model: run by `run.py`, plain and in a mixture.

deepagents' source distribution holds no tests, so these stand in for them: what an
application does with a deep agent, one test each. They know nothing of mixtures.
"""

from __future__ import annotations

from typing import Any

import pytest
from deepagents import create_deep_agent
from deepagents.backends import StateBackend
from deepagents.middleware.summarization import create_summarization_middleware
from langchain.agents import create_agent
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAuthenticationError,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolCall, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import BaseTool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from pydantic import BaseModel, Field

Said = AIMessage | Exception


class Script(BaseChatModel):
    """Answers, or raises, what it was given, in that order, and keeps what it saw."""

    script: list[Any]
    seen: list[list[BaseMessage]] = Field(default_factory=list)
    tools: list[list[Any]] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "script"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return {"ls_provider": "script", "ls_model_type": "chat"}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        self.seen.append(list(messages))
        said = self.script[len(self.seen) - 1]
        if isinstance(said, Exception):
            raise said
        return ChatResult(generations=[ChatGeneration(message=said.model_copy())])

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        self.tools.append(list(tools))
        return self.bind()


def calls(tool: str, **arguments: Any) -> AIMessage:
    """Return a message which calls one tool."""
    return AIMessage("", tool_calls=[ToolCall(name=tool, args=arguments, id=tool)])


def asked(agent: Any, text: str = "Do it.", **config: Any) -> dict[str, Any]:
    """Return the agent's state after one turn."""
    said: dict[str, Any] = agent.invoke({"messages": [("user", text)]}, config or None)
    return said


def test_answer() -> None:
    """A deep agent answers."""
    agent = create_deep_agent(model=Script(script=[AIMessage("Done.")]))
    assert asked(agent)["messages"][-1].text == "Done."


def test_tools() -> None:
    """The model is given the agent's tools, as tools."""
    model = Script(script=[AIMessage("Done.")])
    asked(create_deep_agent(model=model))
    names = {tool.name for tool in model.tools[-1] if isinstance(tool, BaseTool)}
    assert {"write_file", "read_file", "task"} <= names


def test_files() -> None:
    """What the model writes into a file is there for it to read."""
    model = Script(
        script=[
            calls("write_file", file_path="/note.md", content="tungsten"),
            calls("read_file", file_path="/note.md"),
            AIMessage("Done."),
        ]
    )
    state = asked(create_deep_agent(model=model))
    assert "tungsten" in state["messages"][-2].text
    assert state["messages"][-1].text == "Done."


def test_empty_end_of_turn() -> None:
    """A model that has nothing to add behind a tool's result ends its turn."""
    model = Script(
        script=[
            calls("write_file", file_path="/note.md", content="tungsten"),
            AIMessage(""),
        ]
    )
    assert asked(create_deep_agent(model=model))["messages"][-1].text == ""


def test_subagent_with_a_model() -> None:
    """A subagent with a model of its own does the task it is given."""
    worker = Script(script=[AIMessage("The metal is tungsten.")])
    helper: Any = {
        "name": "chemist",
        "description": "Knows metals.",
        "system_prompt": "You know metals.",
        "model": worker,
    }
    task = calls("task", description="Which metal?", subagent_type="chemist")
    model = Script(script=[task, AIMessage("Tungsten.")])
    state = asked(create_deep_agent(model=model, subagents=[helper]))
    assert state["messages"][-2].text == "The metal is tungsten."
    assert state["messages"][-1].text == "Tungsten."


def test_general_purpose_subagent() -> None:
    """A subagent without a model uses the agent's."""
    task = calls("task", description="Which metal?", subagent_type="general-purpose")
    said = [task, AIMessage("Tungsten it is."), AIMessage("Tungsten.")]
    state = asked(create_deep_agent(model=Script(script=said)))
    assert state["messages"][-2].text == "Tungsten it is."


def test_malformed_call() -> None:
    """A tool call whose arguments cannot be read is the model's to repair."""
    broken = AIMessage(
        "",
        invalid_tool_calls=[
            {
                "name": "write_file",
                "args": '{"file_path": ',
                "id": "1",
                "error": None,
                "type": "invalid_tool_call",
            }
        ],
    )
    written = calls("write_file", file_path="/note.md", content="tungsten")
    model = Script(script=[broken, written, AIMessage("Done.")])
    agent = create_deep_agent(model=model, checkpointer=InMemorySaver())
    asked(agent, configurable={"thread_id": "1"})
    state = asked(agent, "Again.", configurable={"thread_id": "1"})
    assert state["messages"][-1].text == "Done."


def test_structured_response() -> None:
    """A response format is filled in."""

    class Metal(BaseModel):
        """A metal."""

        name: str

    model = Script(script=[calls("Metal", name="tungsten")])
    state = asked(create_deep_agent(model=model, response_format=Metal))
    assert state["structured_response"] == Metal(name="tungsten")


def test_approval() -> None:
    """A tool call waits for approval and goes on from there."""
    model = Script(
        script=[
            calls("write_file", file_path="/note.md", content="tungsten"),
            AIMessage("Done."),
        ]
    )
    agent = create_deep_agent(
        model=model, interrupt_on={"write_file": True}, checkpointer=InMemorySaver()
    )
    config: Any = {"configurable": {"thread_id": "1"}}
    assert "__interrupt__" in asked(agent, configurable={"thread_id": "1"})
    resume: Any = Command(resume={"decisions": [{"type": "approve"}]})
    state = agent.invoke(resume, config)
    assert state["messages"][-1].text == "Done."
    assert len(model.seen) == 2


def test_context_overflow() -> None:
    """A conversation that does not fit any more is compacted and asked again."""
    turns = 8
    said: list[Said] = [AIMessage(f"{turn}.") for turn in range(1, turns)]
    overflow = ContextOverflowError("the prompt is too long")
    said += [overflow, AIMessage("What was said, in short."), AIMessage("The end.")]
    agent = create_deep_agent(model=Script(script=said), checkpointer=InMemorySaver())
    for turn in range(1, turns + 1):
        state = asked(agent, f"{turn}? " * 500, configurable={"thread_id": "1"})
    assert state["messages"][-1].text == "The end."


def test_compaction_by_reported_tokens() -> None:
    """A conversation that the provider counts as long is compacted in time."""
    usage: Any = {"input_tokens": 90_000, "output_tokens": 500, "total_tokens": 90_500}
    provider = {"model_provider": "script"}
    heavy = AIMessage("Two.", usage_metadata=usage, response_metadata=provider)
    said = [AIMessage("One."), heavy, AIMessage("In short."), AIMessage("Three.")]
    model = Script(script=said, profile={"max_input_tokens": 100_000})
    agent = create_deep_agent(model=model, checkpointer=InMemorySaver())
    for turn in (1, 2, 3):
        state = asked(agent, f"{turn}? " * 5_000, configurable={"thread_id": "1"})
    assert state["messages"][-1].text == "Three."
    assert len(model.seen) == 4


def test_summarization_of_deepagents_in_a_plain_agent() -> None:
    """The summarization of deepagents compacts a plain agent's conversation."""
    model = Script(script=[AIMessage("One."), AIMessage("Two.")])
    middleware = create_summarization_middleware(model, StateBackend())
    agent = create_agent(model, middleware=[middleware], checkpointer=InMemorySaver())
    asked(agent, "1?", configurable={"thread_id": "1"})
    state = asked(agent, "2?", configurable={"thread_id": "1"})
    assert state["messages"][-1].text == "Two."


def test_error_of_the_model() -> None:
    """An error that no retry can mend reaches the application as what it is."""
    model = Script(script=[ModelAuthenticationError("the key is wrong")])
    with pytest.raises(ModelAuthenticationError, match="the key is wrong"):
        asked(create_deep_agent(model=model))


async def test_async_stream() -> None:
    """The answer's tokens are streamed, and none of a subagent's, once."""
    task = calls("task", description="Which metal?", subagent_type="general-purpose")
    said = [task, AIMessage("Tungsten it is."), AIMessage("Done.")]
    agent = create_deep_agent(model=Script(script=said))
    inputs: Any = {"messages": [("user", "Which metal?")]}
    stream = agent.astream(inputs, stream_mode="messages")
    parts = [part async for part, _ in stream if not isinstance(part, ToolMessage)]
    assert "".join(part.text for part in parts) == "Done."


def test_names() -> None:
    """The agent's name is on its answer."""
    model = Script(script=[AIMessage("Done.")])
    agent = create_deep_agent(model=model, name="metallurgist")
    assert asked(agent)["messages"][-1].name == "metallurgist"
