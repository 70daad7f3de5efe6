"""Helpers for a run's callbacks and context variables."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar, Token
from typing import Any

from langchain_core.callbacks import (
    BaseCallbackHandler,
    BaseCallbackManager,
    CallbackManager,
)
from langchain_core.runnables import RunnableConfig

from langchain_mixture.compat import makes_models_stream


class during:  # noqa: N801  # as contextlib's own
    """Set a context variable for the duration of a block.

    A class, because a generator would take three times as long: each call has one.
    """

    def __init__(self, variable: ContextVar[Any], value: object) -> None:
        self._variable = variable
        self._value = value

    def __enter__(self) -> None:
        self._token: Token[Any] = self._variable.set(self._value)

    def __exit__(self, *_: object) -> None:
        self._variable.reset(self._token)


def is_streamed(config: RunnableConfig) -> bool:
    """Whether a handler of this config makes models stream.

    Example:
        >>> is_streamed({})
        False
    """
    return any(map(makes_models_stream, handlers_of(config)))


def handlers_of(config: RunnableConfig) -> Sequence[BaseCallbackHandler]:
    """Return the handlers of a config.

    Example:
        >>> handlers_of({"callbacks": []})
        []
    """
    callbacks = config.get("callbacks")
    if isinstance(callbacks, BaseCallbackManager):
        return callbacks.handlers
    return callbacks or []


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
