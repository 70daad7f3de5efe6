"""Scripted chat models: what they are asked is kept, what they answer is given."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import Field, PrivateAttr

from langchain_mixture import Aggregate, ChatMixture, Propose
from tests.openai_stub import Stub

Script = Callable[[list[BaseMessage]], str | AIMessage]

KEY: Any = "sk-secret-secret-secret"


class Scripted(BaseChatModel):
    """Answers by script; a script that raises is a model that fails."""

    model: str
    script: Any = None
    """A text, a message, an error to raise, or a function of the messages."""
    asked: list[list[BaseMessage]] = Field(default_factory=list)
    """The messages of each call."""
    arguments: list[dict[str, Any]] = Field(default_factory=list)
    """The keyword arguments of each call."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model}

    def _message(
        self, messages: list[BaseMessage], kwargs: dict[str, Any]
    ) -> AIMessage:
        self.asked.append(messages)
        self.arguments.append(kwargs)
        said = self.script(messages) if callable(self.script) else self.script
        if isinstance(said, BaseException):
            raise said
        if said is None:
            said = f"{self.model} answers"
        return said.model_copy() if isinstance(said, AIMessage) else AIMessage(said)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        message = self._message(messages, {**kwargs, "stop": stop} if stop else kwargs)
        if message.usage_metadata is None:
            usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
            message = message.model_copy(
                update={
                    "usage_metadata": usage,
                    "response_metadata": {
                        "model_name": self.model,
                        **message.response_metadata,
                    },
                }
            )
        return ChatResult(generations=[ChatGeneration(message=message)])


class Tooled(Scripted):
    """A scripted model that takes tools and calls one first."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self

    def _message(self, messages: Any, kwargs: Any) -> AIMessage:
        if messages[-1].type == "tool":
            return AIMessage("Done.")
        call: Any = {"name": "add", "args": {"a": 1, "b": 2}, "id": "1"}
        return AIMessage("", tool_calls=[call])


class Streaming(Scripted):
    """Writes its answer word by word."""

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        words = self._message(messages, kwargs).text.split(" ")
        for index, word in enumerate(words):
            text = word if index == 0 else f" {word}"
            yield ChatGenerationChunk(message=AIMessageChunk(content=text))


class Crowd(Scripted):
    """Counts its calls in flight; each waits until `together` have met there."""

    together: int
    most: int = 0
    _now: int = PrivateAttr(default=0)
    _changed: Any = PrivateAttr(default_factory=threading.Condition)

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        with self._changed:
            self._now += 1
            self.most = max(self.most, self._now)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.most >= self.together, timeout=30)
        threading.Event().wait(0.02)  # one call too many would show up meanwhile
        with self._changed:
            self._now -= 1
        return super()._generate(*args, **kwargs)


def models(*names: str, **scripts: Any) -> dict[str, Scripted]:
    """Make one scripted model a name; those with a script answer by it."""
    plain = {name: Scripted(model=name) for name in names}
    return {
        **plain,
        **{name: Scripted(model=name, script=said) for name, said in scripts.items()},
    }


def ask(text: str = "What is an ion?") -> Any:
    """Give a graph's input with one question."""
    return {"messages": [("user", text)]}


async def called(model: Any, how: str, inputs: Any, config: Any) -> Any:
    """Call a graph or a chat model in one of the ways, for its last word."""
    if how == "invoke":
        return await asyncio.to_thread(model.invoke, inputs, config)
    if how == "ainvoke":
        return await model.ainvoke(inputs, config)
    options = {} if isinstance(model, ChatMixture) else {"stream_mode": "values"}
    if how == "stream":
        parts = await asyncio.to_thread(
            lambda: list(model.stream(inputs, config, **options))
        )
    else:
        parts = [part async for part in model.astream(inputs, config, **options)]
    return (
        sum(parts[1:], start=parts[0]) if isinstance(model, ChatMixture) else parts[-1]
    )


def mixture(*extra: Any, **fields: Any) -> ChatMixture:
    """Make a mixture of two proposers and an aggregator that stream."""
    client = {name: Streaming(model=name) for name in "abc"}
    steps = [Propose(["a", "b"]), Aggregate("c"), *extra]
    return ChatMixture(steps=steps, client=client, **fields)


def over(stub: Stub, *names: str, **fields: Any) -> ChatMixture:
    """Make a mixture of real clients; the last name aggregates."""
    clients = {
        name: ChatOpenAI(
            base_url=stub.url,
            api_key=KEY,
            model=name,
            stream_usage=True,
            max_retries=0,
        )
        for name in names
    }
    *proposers, last = names
    return ChatMixture([Propose(proposers), Aggregate(last)], client=clients, **fields)


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def settle() -> None:
    """Let what was cancelled come to its end."""
    for _ in range(10):
        await asyncio.sleep(0)


def saved_bytes(saver: Any) -> int:
    """Return the size of all that a SqliteSaver keeps: checkpoints, and writes."""
    columns = {"checkpoints": ("checkpoint", "metadata"), "writes": ("value",)}
    return sum(
        saver.conn.execute(f"select sum(length({column})) from {table}").fetchone()[0]
        for table, names in columns.items()
        for column in names
    )
