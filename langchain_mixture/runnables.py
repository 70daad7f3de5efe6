"""Finding the model inside bindings, retries, fallbacks and chains, and its name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from langchain_core.runnables import (
    Runnable,
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
    for attribute in ("name", "model_name", "model", "model_id", "deployment_name"):
        value = getattr(leaf, attribute, None)
        if isinstance(value, str) and value:
            return value
    return type(leaf).__name__
