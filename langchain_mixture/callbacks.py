"""Callbacks of a run: who listens, and what is hidden around a call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from langchain_core.callbacks import (
    BaseCallbackHandler,
    BaseCallbackManager,
    CallbackManager,
)
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config


@contextmanager
def during(variable: ContextVar[Any], value: object) -> Iterator[None]:
    """Set a context variable for the length of a block."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


detached = partial(during, var_child_runnable_config, None)
"""Hide the run around a block: wrappers and graphs would merge its callbacks in."""


def is_streamed(config: RunnableConfig) -> bool:
    """Tell whether someone is listening to the tokens of a run.

    Example:
        >>> is_streamed({})
        False
    """
    return any(map(listens, callbacks_of(config).handlers))


def callbacks_of(config: RunnableConfig) -> BaseCallbackManager:
    """Give a copy of a config's callbacks, to add to and to take from."""
    callbacks = config.get("callbacks")
    if isinstance(callbacks, BaseCallbackManager):
        return callbacks.copy()
    return CallbackManager(
        handlers=list(callbacks or []), inheritable_handlers=list(callbacks or [])
    )


def listens(handler: BaseCallbackHandler) -> bool:
    """Tell whether a handler makes models stream.

    Its protocol is private to langchain-core; these are its public methods.

    Example:
        >>> listens(BaseCallbackHandler())
        False
    """
    return hasattr(handler, "tap_output_iter")
