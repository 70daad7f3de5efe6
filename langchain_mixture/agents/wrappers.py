"""Seeing through what is wrapped around a model, and keeping what it carries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from langchain_core.language_models import BaseLanguageModel, LanguageModelInput
from langchain_core.messages import BaseMessage, convert_to_messages
from langchain_core.runnables import (
    Runnable,
    RunnableBinding,
    RunnableConfig,
    RunnableParallel,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.configurable import DynamicRunnable
from langgraph.pregel.protocol import PregelProtocol

from langchain_mixture.compat import branches_of
from langchain_mixture.errors import InvalidMixtureError


def leaves(runnable: Runnable[Any, Any]) -> Iterator[Runnable[Any, Any]]:
    """Give what is asked in the end, beneath wrappers and in front of parsers.

    Example:
        >>> from langchain_core.runnables import RunnableLambda
        >>> [type(r).__name__ for r in leaves(RunnableLambda(str).with_retry())]
        ['RunnableLambda']
    """
    for part in unwrapped(runnable):
        if isinstance(part, RunnableSequence):
            yield from leaves(part.first)
        else:
            yield part


def unwrapped(runnable: Runnable[Any, Any]) -> Iterator[Runnable[Any, Any]]:
    """Give what is beneath wrappers."""
    if isinstance(runnable, RunnableBindingBase):
        yield from unwrapped(runnable.bound)
    elif isinstance(runnable, RunnableWithFallbacks):
        for member in runnable.runnables:
            yield from unwrapped(member)
    elif isinstance(runnable, DynamicRunnable):
        yield from unwrapped(runnable.default)
    else:
        yield runnable


def over_messages(
    runnable: Runnable[Any, Any], config: RunnableConfig
) -> Runnable[Any, Any]:
    """Let graphs, and chains that begin with one, be asked with messages.

    Beneath wrappers, so that a model may be the fallback of a graph and a graph a
    model's.
    """

    def change(leaf: Runnable[Any, Any]) -> Runnable[Any, Any]:
        begins = any(isinstance(first, PregelProtocol) for first in leaves(leaf))
        return _OverMessages(leaf) if begins else leaf

    return beneath(runnable, change, config)


class _OverMessages(Runnable[list[BaseMessage], Any]):
    """Puts messages into a state, and takes the last one out of it."""

    def __init__(self, graph: Runnable[Any, Any]) -> None:
        self._graph = graph

    def invoke(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Any:
        return _last(self._graph.invoke({"messages": input}, config, **kwargs))

    async def ainvoke(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Any:
        return _last(await self._graph.ainvoke({"messages": input}, config, **kwargs))


def _last(output: object) -> object:
    if not isinstance(output, dict):
        return output  # a chain has made a message or a text of the state
    if not output.get("messages"):
        raise TypeError(
            "the graph returned a state without messages; it must return "
            '{"messages": [...]}'
        )
    (message,) = convert_to_messages(output["messages"][-1:])
    return message  # RemoteGraph gives dicts


def is_model(runnable: Runnable[Any, Any]) -> bool:
    """Tell whether it is a model: its settings can be bound."""
    # What init_chat_model(configurable_fields=...) returns is no BaseChatModel.
    return isinstance(runnable, BaseLanguageModel) or (
        hasattr(runnable, "bind_tools") and not isinstance(runnable, PregelProtocol)
    )


def name_of(runnable: Runnable[Any, Any]) -> str:
    """Name an agent: its own name, else its model's, else its class.

    Example:
        >>> from langchain_core.language_models import FakeListChatModel
        >>> name_of(FakeListChatModel(responses=["Hi"], name="greeter").with_retry())
        'greeter'
    """
    if isinstance(runnable, RunnableBindingBase):
        said = runnable.config.get("run_name") or runnable.kwargs.get("model")
        return str(runnable.name or said or name_of(runnable.bound))
    if own := getattr(runnable, "name", None):  # a RunnableLambda may have none
        return str(own)
    leaf = next(leaves(runnable))
    if leaf is not runnable and not isinstance(runnable, RunnableSequence):
        return name_of(leaf)
    for attribute in ("name", "model_name", "model", "model_id", "deployment_name"):
        value = getattr(leaf, attribute, None)
        if isinstance(value, str) and value:
            return value
    return type(leaf).__name__


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


def with_model(
    chain: Runnable[Any, Any], change: Callable[[Any], Runnable[Any, Any]]
) -> Runnable[LanguageModelInput, Any]:
    """Put another model in front of a structured output's parser."""
    if isinstance(chain, RunnableSequence):
        first = chain.first
        if isinstance(first, RunnableParallel):
            raw = branches_of(first).get("raw")
            if isinstance(raw, RunnableBinding):
                return RunnableSequence(
                    RunnableParallel(raw=change(raw)), *chain.middle, chain.last
                )
        if isinstance(first, RunnableBinding):
            return RunnableSequence(change(first), *chain.middle, chain.last)
    raise InvalidMixtureError(
        "the answering model's structured output is not a model and a parser; allowed: "
        'method="function_calling".'
    )
