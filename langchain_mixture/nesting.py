"""Which run lies within which: what is carried inward, and what stays outside."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    BaseCallbackHandler,
    BaseCallbackManager,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.utils.uuid import uuid7
from langgraph.runtime import Runtime


@dataclass(frozen=True)
class Parent:
    """The run that the graph's run belongs under."""

    run_id: UUID
    handlers: list[BaseCallbackHandler]
    tags: list[str]
    metadata: dict[str, Any]
    manager: Any = None
    opened: list[AsyncGenerator[Any]] = field(default_factory=list)
    """The streams that the run has opened, to be closed with it."""

    @classmethod
    def of(
        cls, run: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun
    ) -> Parent:
        """Take the run that core has begun."""
        return cls(
            run.run_id,
            run.inheritable_handlers,
            run.inheritable_tags,
            run.inheritable_metadata,
        )

    @classmethod
    def begun(
        cls, manager: CallbackManager | AsyncCallbackManager, config: RunnableConfig
    ) -> Parent:
        """Settle the id of a run that core is about to begin, and its handlers."""
        return cls(
            config.get("run_id") or uuid7(),
            manager.inheritable_handlers,
            [*manager.inheritable_tags, *(config.get("tags") or [])],
            {**manager.inheritable_metadata, **(config.get("metadata") or {})},
            manager,
        )

    def config(self, config: RunnableConfig) -> RunnableConfig:
        """Make core begin the run with the settled id and handlers."""
        return {**config, "callbacks": self.manager, "run_id": self.run_id}


CONFIG: ContextVar[RunnableConfig] = ContextVar("mixture_config", default={})  # noqa: B039  # never changed


PARENT: ContextVar[Parent | None] = ContextVar("mixture_parent", default=None)


def inner_config(
    manager: type[CallbackManager | AsyncCallbackManager],
    run: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None,
    steps: int,
) -> RunnableConfig:
    """Nest the graph's run under the model's, and carry over what is the caller's.

    The handlers of an outer stream stay behind: they would force every model inside to
    stream, and deliver its tokens a second time.
    """
    config: RunnableConfig = {"recursion_limit": 2 * steps + 25}
    outer = CONFIG.get()
    if outer.get("max_concurrency") is not None:
        config["max_concurrency"] = outer["max_concurrency"]
    config["configurable"] = {
        key: value
        for key, value in (outer.get("configurable") or {}).items()
        if isinstance(value, Runtime) or not key.startswith(("__", "checkpoint_"))
    }
    parent = Parent.of(run) if run is not None else PARENT.get()
    if parent is not None:
        handlers = [h for h in parent.handlers if not listens(h)]
        config["callbacks"] = manager(
            handlers=handlers,
            inheritable_handlers=handlers,
            parent_run_id=parent.run_id,
        )
        config["tags"] = list(dict.fromkeys(parent.tags))
        config["metadata"] = {
            key: value
            for key, value in parent.metadata.items()
            if not key.startswith(("ls_", "langgraph_", "checkpoint_"))
        }
    return config


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
