"""Helpers for a run's callbacks and context variables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from langchain_core.callbacks import (
    BaseCallbackManager,
    CallbackManager,
)
from langchain_core.runnables import RunnableConfig

from langchain_mixture.compat import makes_models_stream


@contextmanager
def during(variable: ContextVar[Any], value: object) -> Iterator[None]:
    """Set a context variable for the duration of a block."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def is_streamed(config: RunnableConfig) -> bool:
    """Whether a handler of this config makes models stream.

    Example:
        >>> is_streamed({})
        False
    """
    return any(map(makes_models_stream, callbacks_of(config).handlers))


def callbacks_of(config: RunnableConfig) -> BaseCallbackManager:
    """Return a copy of a config's callbacks, which may be changed."""
    # A config holds either a manager or a plain list of handlers, which also apply to
    # the runs inside.
    callbacks = config.get("callbacks")
    if isinstance(callbacks, BaseCallbackManager):
        return callbacks.copy()
    return CallbackManager(
        handlers=list(callbacks or []), inheritable_handlers=list(callbacks or [])
    )
