"""Finding, and replacing, the model inside bindings, retries, fallbacks and chains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

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
from langchain_mixture.runnables import leaves

Message = TypeVar("Message", bound=BaseMessage)


def over_messages(
    runnable: Runnable[Any, Any], config: RunnableConfig
) -> Runnable[Any, Any]:
    """Return a Runnable whose graphs take messages, and chains that begin with one.

    The change is made beneath wrappers: a model may be the fallback of a graph, and a
    graph that of a model.
    """

    def change(leaf: Runnable[Any, Any]) -> Runnable[Any, Any]:
        begins = any(isinstance(first, PregelProtocol) for first in leaves(leaf))
        return _OverMessages(leaf) if begins else leaf

    return beneath(runnable, change, config)


class _OverMessages(Runnable[list[BaseMessage], Any]):
    """A graph that takes messages and returns the last message of its state."""

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
        return output  # a chain has turned the state into a message or a text
    if not output.get("messages"):
        raise TypeError(
            "the graph returned a state without messages; it must return "
            '{"messages": [...]}'
        )
    # RemoteGraph returns messages as dicts.
    (message,) = convert_to_messages(output["messages"][-1:])
    # The state of a mixture's graph has its usage by model; its message, in total.
    told = message.response_metadata.get("mixture")
    result = output.get("mixture")
    if isinstance(told, dict) and isinstance(result, dict):
        total, usage = told.get("usage") or {}, result.get("usage") or {}
        if total and all(usage.get(key) == total[key] for key in total):
            return with_usage(message, usage)
    return message


def with_usage(message: Message, usage: Mapping[str, Any]) -> Message:
    """Return a mixture's answer with its usage by model and by step."""
    told = {**message.response_metadata["mixture"], "usage": usage}
    metadata = {**message.response_metadata, "mixture": told}
    return message.model_copy(update={"response_metadata": metadata})


def is_model(runnable: Runnable[Any, Any]) -> bool:
    """Whether a Runnable is a model, so that settings can be bound to it."""
    # `init_chat_model(configurable_fields=...)` returns a Runnable that is no
    # BaseChatModel, but has its methods (langchain 1.x). `test_agents.py` holds it.
    return isinstance(runnable, BaseLanguageModel) or (
        hasattr(runnable, "bind_tools") and not isinstance(runnable, PregelProtocol)
    )


def beneath(
    runnable: Runnable[Any, Any],
    change: Callable[[Runnable[Any, Any]], Runnable[Any, Any]],
    config: RunnableConfig | None = None,
) -> Runnable[Any, Any]:
    """Return a Runnable with the same wrappers, and what is beneath them changed.

    Core's `bind(...).bind_tools(...)` loses the earlier binding, and a Runnable with
    retries has no `bind_tools` (langchain-core 1.8.3). `test_chat_tools.py` holds it.

    Args:
        runnable: A model, maybe wrapped.
        change: Takes the model and returns its replacement.
        config: The config that sets configurable fields.

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


def to_schema(
    runnable: Runnable[Any, Any],
    schema: Mapping[str, Any],
    config: RunnableConfig | None = None,
) -> Runnable[Any, Any]:
    """Return an agent whose models write JSON by a schema, where their profile says so.

    Only the binding is taken from `with_structured_output`: the model's own message is
    what is recorded.
    """

    def change(leaf: Runnable[Any, Any]) -> Runnable[Any, Any]:
        if not (getattr(leaf, "profile", None) or {}).get("structured_output"):
            return leaf
        try:
            chain = cast("Any", leaf).with_structured_output(
                schema, method="json_schema", include_raw=True
            )
            return branches_of(chain.first)["raw"]
        except Exception:  # noqa: BLE001  # each package raises its own
            return leaf

    return beneath(runnable, change, config)


def with_model(
    chain: Runnable[Any, Any], change: Callable[[Any], Runnable[Any, Any]]
) -> Runnable[LanguageModelInput, Any]:
    """Return a chain for structured output with its model replaced."""
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
        "the answering model's structured output is not a chain of a model and a "
        'parser; allowed: method="function_calling".'
    )
