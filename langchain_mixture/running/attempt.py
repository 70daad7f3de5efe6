"""One call to one agent, with all that it takes to ask it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.constants import TAG_NOSTREAM

from langchain_mixture.agents.resolve import ResolvedAgent
from langchain_mixture.agents.wrappers import over_messages
from langchain_mixture.callbacks import callbacks_of
from langchain_mixture.compat import is_message_stream
from langchain_mixture.records import Call
from langchain_mixture.running.run import Run


@dataclass(frozen=True)
class Attempt:
    """One call to one agent, with all that it takes to ask it."""

    agent: ResolvedAgent
    call: Call
    run: Run
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
        runnable, messages = self.agent.runnable, self.call["messages"]
        if self.run.request.binds:
            tooled = self._with_tools(config)
            if tooled is None:
                messages = tools_as_text(messages)
            else:
                runnable = tooled
        if self.agent.sample > 1 and messages:
            # A cache of model answers would else give every sample the same one.
            last = messages[-1]
            metadata = {**last.response_metadata, "sample": self.agent.sample}
            marked = last.model_copy(update={"response_metadata": metadata})
            messages = [*messages[:-1], marked]
        if self.agent.is_graph:
            runnable = over_messages(runnable, config)
        return runnable, messages

    def _with_tools(self, config: RunnableConfig) -> Runnable[Any, Any] | None:
        if not self.may_answer and not (self.writes and self.run.request.is_free):
            return None
        runnable = self.agent.runnable
        try:
            return self.run.request.bound(
                runnable, answering=self.may_answer, config=config
            )
        except NotImplementedError:
            if self.may_answer:
                raise
            return None

    def arguments(self) -> dict[str, Any]:
        """Give the keyword arguments: the caller's go before the step's."""
        own = dict(self.agent.arguments)
        return {**own, **self.run.request.arguments} if self.may_answer else own

    def config(
        self, config: RunnableConfig, handlers: Sequence[BaseCallbackHandler]
    ) -> RunnableConfig:
        """Mark the run with its step and agent, and silence what is not to be seen."""
        callbacks = callbacks_of(config)
        if not self.visible:
            # A message stream of LangGraph's would make every model stream.
            for handler in list(callbacks.handlers):
                if is_message_stream(handler):
                    callbacks.remove_handler(handler)
        # In front: who is given up must be stopped before a stream hears of it.
        callbacks.handlers[:0] = handlers
        callbacks.inheritable_handlers[:0] = handlers
        mark = {"mixture_step": self.step, "mixture_agent": self.agent.name}
        if self.run.has_own_pool:
            config = {**config, "max_concurrency": self.run.max_concurrency}
        return {
            **config,
            "callbacks": callbacks,
            "metadata": {**(config.get("metadata") or {}), **mark},
            "tags": [
                *(config.get("tags") or []),
                *([] if self.visible else [TAG_NOSTREAM]),
            ],
        }


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
