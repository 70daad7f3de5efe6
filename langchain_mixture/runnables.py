"""Finding the model inside bindings, retries, fallbacks and chains, and its name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import (
    Runnable,
    RunnableBinding,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.configurable import DynamicRunnable


def leaves(runnable: Runnable[Any, Any]) -> Iterator[Runnable[Any, Any]]:
    """Yield the innermost Runnables: beneath wrappers, and first in their chains.

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
    """Yield what is beneath the wrappers of a Runnable; chains stay whole."""
    if isinstance(runnable, RunnableBindingBase):
        yield from unwrapped(runnable.bound)
    elif isinstance(runnable, RunnableWithFallbacks):
        for member in runnable.runnables:
            yield from unwrapped(member)
    elif isinstance(runnable, DynamicRunnable):
        yield from unwrapped(runnable.default)
    else:
        yield runnable


def is_one(runnable: Runnable[Any, Any]) -> bool:
    """Whether the same Runnable answers each time: no fallback, nothing configurable.

    Example:
        >>> from langchain_core.runnables import RunnableLambda
        >>> is_one(RunnableLambda(str).with_fallbacks([RunnableLambda(repr)]))
        False
    """
    if isinstance(runnable, RunnableBindingBase):
        return is_one(runnable.bound)
    return not isinstance(runnable, RunnableWithFallbacks | DynamicRunnable)


def plain_model(runnable: Runnable[Any, Any]) -> BaseChatModel | None:
    """Return the one model that answers for an agent, by a single request; else None.

    A retry, a fallback or a chain may make several, and so may a model that holds
    another Runnable, such as a mixture.

    Example:
        >>> from langchain_core.language_models import FakeListChatModel
        >>> model = FakeListChatModel(responses=["Hi"])
        >>> plain_model(model.bind(stop=["."])) is model
        True
        >>> plain_model(model.with_retry())
    """
    # A retry is no RunnableBinding, and a binding may bring callbacks.
    while isinstance(runnable, RunnableBinding) and not (
        runnable.config or runnable.config_factories
    ):
        runnable = runnable.bound
    if not isinstance(runnable, BaseChatModel):
        return None
    private = runnable.__pydantic_private__ or {}
    waiting: list[object] = [vars(runnable), private]
    seen: set[int] = set()
    while waiting:
        thing = waiting.pop()
        if isinstance(thing, Runnable):
            return None
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, dict):
            waiting += thing.values()
        elif isinstance(thing, list | tuple | set):
            waiting += thing
        elif is_dataclass(thing) and not isinstance(thing, type):
            waiting += vars(thing).values() if hasattr(thing, "__dict__") else ()
    return runnable


def name_of(runnable: Runnable[Any, Any]) -> str:
    """Return the name of an agent: its own, or its model's, or that of its class.

    Example:
        >>> from langchain_core.language_models import FakeListChatModel
        >>> name_of(FakeListChatModel(responses=["Hi"], name="greeter").with_retry())
        'greeter'
    """
    if isinstance(runnable, RunnableBindingBase):
        bound = runnable.config.get("run_name") or runnable.kwargs.get("model")
        return str(runnable.name or bound or name_of(runnable.bound))
    if own := getattr(runnable, "name", None):  # a RunnableLambda may have none
        return str(own)
    leaf = next(leaves(runnable))
    if leaf is not runnable and not isinstance(runnable, RunnableSequence):
        return name_of(leaf)
    for attribute in ("name", *_MODEL):
        value = getattr(leaf, attribute, None)
        if isinstance(value, str) and value:
            return value
    return type(leaf).__name__


_MODEL = ("model_name", "model", "model_id", "deployment_name")


def model_name_of(runnable: Runnable[Any, Any], leaf: Runnable[Any, Any]) -> str | None:
    """Return the name of a model that an agent asks, as its provider knows it.

    Args:
        runnable: The agent.
        leaf: One of its `leaves`.

    Example:
        >>> from langchain_openai import ChatOpenAI
        >>> model = ChatOpenAI(model="gpt-4o", api_key="none", name="critic")
        >>> model_name_of(model, model)
        'gpt-4o'
        >>> model_name_of(model.bind(model="gpt-4o-mini"), model)
        'gpt-4o-mini'
    """
    part = runnable
    while isinstance(part, RunnableBindingBase):
        if bound := part.kwargs.get("model"):
            return str(bound)
        part = part.bound
    values = (getattr(leaf, attribute, None) for attribute in _MODEL)
    return next((v for v in values if isinstance(v, str) and v), None)


def provider_of(model: Runnable[Any, Any]) -> str | None:
    """Return the provider of a model: its package without `langchain_`.

    Example:
        >>> from langchain_openai import ChatOpenAI
        >>> provider_of(ChatOpenAI(model="gpt-4o", api_key="none"))
        'openai'
    """
    package = type(model).__module__.partition(".")[0]
    provider = package.removeprefix("langchain_")
    own = provider == package or provider in ("core", "mixture")
    return None if own else provider


def limit_of(runnable: Runnable[Any, Any]) -> int | None:
    """Return the most tokens that an agent's model writes, if that was set.

    What a model can write at most is no limit that somebody has set.

    Example:
        >>> from langchain_openai import ChatOpenAI
        >>> model = ChatOpenAI(model="gpt-4o", api_key="none", max_tokens=100)
        >>> limit_of(model), limit_of(model.bind(max_tokens=50).with_retry())
        (100, 50)
    """
    part: Any = runnable
    while isinstance(part, RunnableBindingBase):
        if (bound := part.kwargs.get("max_tokens")) is not None:
            return int(bound)
        part = part.bound
    limits = [_own_limit(leaf) for leaf in leaves(part)]
    known = [limit for limit in limits if limit is not None]
    return max(known) if len(known) == len(limits) else None


def _own_limit(model: Any) -> int | None:
    limit = getattr(model, "max_tokens", None)
    profile = getattr(model, "profile", None) or {}
    if not isinstance(limit, int) or limit == profile.get("max_output_tokens"):
        return None
    return limit
