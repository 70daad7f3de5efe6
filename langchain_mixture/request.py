"""What a model is asked: the caller's request, and the question of a step."""

from __future__ import annotations

import asyncio
import json
import queue
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSequence
from langgraph.constants import TAG_NOSTREAM

from langchain_mixture.agents import Member
from langchain_mixture.nesting import callbacks_of, listens
from langchain_mixture.records import Call
from langchain_mixture.wrappers import beneath, over_messages

FREE_CHOICES = (None, "auto")
"""The values of `tool_choice` under which a model need not call a tool."""


@dataclass(frozen=True)
class Request:
    """The tools and settings of one call of a ChatMixture.

    The answering step's calls get all of it. Under a free tool choice the other steps
    that write get the tools too, and what they would call is written out for the next.
    """

    tools: Sequence[Any] = ()
    tool_choice: Any = None
    binding: Mapping[str, Any] = field(default_factory=dict)
    """What else `bind_tools` was given: strict, response_format, …"""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the answering call: temperature, max_tokens, stop, …"""
    waiting: set[queue.SimpleQueue[Future[Any] | None]] = field(
        default_factory=set, compare=False
    )
    """Where sync calls that are under way wait for what comes of them."""

    def cancel(self) -> None:
        """Give up the sync calls that are under way."""
        for events in list(self.waiting):
            given_up: Future[Any] = Future()
            given_up.set_exception(asyncio.CancelledError())
            events.put(given_up)

    @property
    def binds(self) -> bool:
        """Whether there is anything for `bind_tools`."""
        return bool(self.tools or self.binding)

    @property
    def is_free(self) -> bool:
        """Whether the answer may do without a tool, so that advisers may have them."""
        return bool(self.tools) and self.tool_choice in FREE_CHOICES

    def bound(
        self,
        runnable: Runnable[Any, Any],
        *,
        answering: bool,
        config: RunnableConfig | None = None,
    ) -> Runnable[Any, Any]:
        """Bind the tools to an agent, beneath its wrappers.

        Raises:
            NotImplementedError: The agent cannot bind tools.
        """
        options: dict[str, Any] = dict(self.binding) if answering else {}
        if answering and self.tool_choice is not None:
            options["tool_choice"] = self.tool_choice
        return beneath(runnable, lambda leaf: _bind(leaf, self.tools, options), config)


@dataclass(frozen=True)
class Question:
    """One call to one agent, with all that it takes to ask it."""

    member: Member
    call: Call
    request: Request
    step: str
    """The step's name, such as `1_propose`."""
    index: int
    """The position of the call among those of its step."""
    attempt: int
    """0 for the step's agent, more for its fallbacks."""
    timeout: float | None
    """Seconds; None = no limit."""
    ends: float | None
    """When its share of the deadline is used up, on the monotonic clock."""
    refused: str | None
    """Why the budget allows for no such call; None where it does."""
    streams: bool
    """Whether its tokens are the answer's stream."""
    visible: bool
    """Whether its tokens may be seen in a stream at all."""
    writes: bool
    """Whether it writes text, and does not judge."""
    may_answer: bool
    """Whether the model's own message may become the answer, and is kept."""

    def prepared(
        self, config: RunnableConfig
    ) -> tuple[Runnable[Any, Any], list[BaseMessage]]:
        """Give what is invoked, and with what."""
        runnable, messages = self.member.runnable, self.call["messages"]
        if self.request.binds:
            tooled = self._with_tools(config)
            if tooled is None:
                messages = tools_as_text(messages)
            else:
                runnable = tooled
        if self.member.sample > 1 and messages:
            # A cache of model answers would else give every sample the same one.
            last = messages[-1]
            metadata = {**last.response_metadata, "sample": self.member.sample}
            marked = last.model_copy(update={"response_metadata": metadata})
            messages = [*messages[:-1], marked]
        if self.member.is_graph:
            runnable = over_messages(runnable, config)
        return runnable, messages

    def _with_tools(self, config: RunnableConfig) -> Runnable[Any, Any] | None:
        if not self.may_answer and not (self.writes and self.request.is_free):
            return None
        runnable = self.member.runnable
        try:
            return self.request.bound(
                runnable, answering=self.may_answer, config=config
            )
        except NotImplementedError:
            if self.may_answer:
                raise
            return None

    def arguments(self) -> dict[str, Any]:
        """Give the keyword arguments: the caller's go before the step's."""
        own = dict(self.member.arguments)
        return {**own, **self.request.arguments} if self.may_answer else own

    def config(
        self, config: RunnableConfig, handlers: Sequence[BaseCallbackHandler]
    ) -> RunnableConfig:
        """Mark the run with its step and agent, and silence what is not to be seen."""
        callbacks = callbacks_of(config)
        if not self.visible:
            # A message stream of LangGraph's would make every model stream.
            for handler in list(callbacks.handlers):
                if listens(handler) and type(handler).__module__.startswith(
                    "langgraph"
                ):
                    callbacks.remove_handler(handler)
        # In front: who is given up must be stopped before a stream hears of it.
        callbacks.handlers[:0] = handlers
        callbacks.inheritable_handlers[:0] = handlers
        mark = {"mixture_step": self.step, "mixture_agent": self.member.name}
        return {
            **config,
            "callbacks": callbacks,
            "metadata": {**(config.get("metadata") or {}), **mark},
            "tags": [
                *(config.get("tags") or []),
                *([] if self.visible else [TAG_NOSTREAM]),
            ],
        }


def _bind(
    leaf: Runnable[Any, Any], tools: Sequence[Any], options: Mapping[str, Any]
) -> Runnable[Any, Any]:
    if isinstance(leaf, RunnableSequence) or not hasattr(leaf, "bind_tools"):
        raise NotImplementedError
    bound: Runnable[Any, Any] = leaf.bind_tools(list(tools), **options)
    return bound


def tools_as_text(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Write the tool calls and results of a conversation out, for who has no tools.

    Example:
        >>> calls = [{"name": "add", "args": {"a": 1}, "id": "1"}]
        >>> talk = [AIMessage("", tool_calls=calls), ToolMessage("2", tool_call_id="1")]
        >>> [message.text for message in tools_as_text(talk)]
        ['[called the tool add with {"a": 1}]', '[the tool add returned] 2']
    """
    names: dict[str | None, str] = {}
    written: list[BaseMessage] = []
    for message in messages:
        if isinstance(message, AIMessage) and message.tool_calls:
            names |= {call["id"]: call["name"] for call in message.tool_calls}
            calls = [
                f"[called the tool {call['name']} with "
                f"{json.dumps(call['args'], ensure_ascii=False, default=str)}]"
                for call in message.tool_calls
            ]
            text = "\n".join(filter(None, [message.text, *calls]))
            written.append(AIMessage(text, id=message.id))
        elif isinstance(message, ToolMessage):
            tool = names.get(message.tool_call_id) or message.name or "called"
            said = f"[the tool {tool} returned]"
            content: str | list[str | dict[str, Any]] = f"{said} {message.content}"
            if isinstance(message.content, list):
                content = [{"type": "text", "text": said}, *message.content]
            written.append(HumanMessage(content, id=message.id))
        else:
            written.append(message)
    return written
