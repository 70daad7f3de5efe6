"""What a caller of ChatMixture asks beside the conversation: tools and settings."""

from __future__ import annotations

import json
import queue
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import (
    Runnable,
    RunnableConfig,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.configurable import DynamicRunnable

FREE_CHOICES = (None, "auto")
"""The values of `tool_choice` under which a model need not call a tool."""
CANCELLED = (object(), None)
"""The event that gives up a sync call."""


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
    waiting: set[queue.SimpleQueue[Any]] = field(default_factory=set, compare=False)
    """Where sync calls that are under way wait for what comes of them."""

    def cancel(self) -> None:
        """Give up the sync calls that are under way."""
        for events in list(self.waiting):
            events.put(CANCELLED)

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


def beneath(
    runnable: Runnable[Any, Any],
    change: Callable[[Runnable[Any, Any]], Runnable[Any, Any]],
    config: RunnableConfig | None = None,
) -> Runnable[Any, Any]:
    """Change what is under the wrappers of a Runnable, and keep what they carry.

    `bind(...).bind_tools(...)` would lose the earlier binding, and a Runnable with
    retry has no `bind_tools`.

    Args:
        runnable: A model, maybe wrapped.
        change: From the model to what takes its place.
        config: Settles configurable fields.

    Example:
        >>> from langchain_core.runnables import RunnableLambda
        >>> wrapped = RunnableLambda(len).with_retry()
        >>> beneath(wrapped, lambda leaf: leaf | str).invoke("abc")
        '3'
    """
    if isinstance(runnable, RunnableBindingBase):
        bound = beneath(runnable.bound, change, config)
        return runnable.model_copy(update={"bound": bound})
    if isinstance(runnable, RunnableWithFallbacks):
        first, *others = (beneath(r, change, config) for r in runnable.runnables)
        return runnable.model_copy(update={"runnable": first, "fallbacks": others})
    if isinstance(runnable, DynamicRunnable):
        prepared, _ = runnable.prepare(config)
        return beneath(prepared, change, config)
    return change(runnable)


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
            text = f"[the tool {tool} returned] {message.text}"
            written.append(HumanMessage(text, id=message.id))
        else:
            written.append(message)
    return written
