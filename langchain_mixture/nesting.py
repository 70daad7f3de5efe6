"""Which run lies within which: what is carried inward, and what stays outside."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final
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
from langchain_core.runnables.config import ensure_config, var_child_runnable_config
from langchain_core.tracers.base import AsyncBaseTracer, BaseTracer
from langchain_core.utils.uuid import uuid7
from langgraph.constants import TAG_HIDDEN, TAG_NOSTREAM
from langgraph.runtime import Runtime


class _Carrier(BaseCallbackHandler):
    """Brings a call's config to where core hands on its run and no config."""

    ignore_llm = ignore_chat_model = True

    def __init__(self, config: RunnableConfig) -> None:
        self.config = config


def carrying(config: RunnableConfig | None) -> RunnableConfig:
    """Make a config that can be read off the run that is begun with it."""
    config = ensure_config(config)
    callbacks = callbacks_of(config)
    callbacks.add_handler(_Carrier(config), inherit=False)
    return {**config, "callbacks": callbacks}


@dataclass(frozen=True)
class Parent:
    """The run that the graph's run belongs under."""

    run_id: UUID
    handlers: list[BaseCallbackHandler]
    tags: list[str]
    metadata: dict[str, Any]
    config: RunnableConfig
    """What the caller gave."""
    opened: list[AsyncGenerator[Any]] = field(default_factory=list)
    """The streams that the run has opened, to be closed with it."""

    @classmethod
    def of(
        cls, run: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun
    ) -> Parent:
        """Take the run that core has begun."""
        carriers = (h for h in run.handlers if isinstance(h, _Carrier))
        carrier = next(carriers, None)
        return cls(
            run.run_id,
            run.inheritable_handlers,
            run.inheritable_tags,
            run.inheritable_metadata,
            {} if carrier is None else carrier.config,
        )

    @classmethod
    def begun(
        cls, manager: CallbackManager | AsyncCallbackManager, config: RunnableConfig
    ) -> tuple[Parent, RunnableConfig]:
        """Settle the id and the handlers of a run; core begins it with the config."""
        run_id = config.get("run_id") or uuid7()
        parent = cls(
            run_id,
            manager.inheritable_handlers,
            [*manager.inheritable_tags, *(config.get("tags") or [])],
            {**manager.inheritable_metadata, **(config.get("metadata") or {})},
            config,
        )
        return parent, {**config, "callbacks": manager, "run_id": run_id}

    async def close(self) -> None:
        """Close the streams that the run has opened: core does not."""
        for opened in self.opened:
            await opened.aclose()


PARENT: ContextVar[Parent | None] = ContextVar("mixture_parent", default=None)


def inner_config(
    manager: type[CallbackManager | AsyncCallbackManager],
    run: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None,
    *,
    streams: bool = False,
) -> RunnableConfig:
    """Nest the graph's run under the model's, and carry over what is the caller's.

    The handlers of an outer stream stay behind: they would force every model inside to
    stream, and deliver its tokens a second time. So do the tags that silence a stream,
    and, where the model itself `streams`, the ears of the caller's handlers.
    """
    parent = PARENT.get()
    if run is not None and (parent is None or parent.run_id != run.run_id):
        parent = Parent.of(run)
    if parent is None:
        return {}
    handlers = [h for h in parent.handlers if not listens(h)]
    if streams:
        # Core adds those of context variables once more where it finds not the same.
        own = manager.configure().handlers
        handlers = [h if h in own else _Deaf.of(h, manager) for h in handlers]
    config: RunnableConfig = {
        "callbacks": manager(
            handlers=handlers,
            inheritable_handlers=handlers,
            parent_run_id=parent.run_id,
        ),
        "tags": [t for t in dict.fromkeys(parent.tags) if t not in _SILENT],
        "metadata": {
            key: value
            for key, value in parent.metadata.items()
            if not key.startswith(("ls_", "langgraph_", "checkpoint_"))
        },
        "configurable": {
            key: value
            for key, value in (parent.config.get("configurable") or {}).items()
            if isinstance(value, Runtime) or not key.startswith(("__", "checkpoint_"))
        },
    }
    if (most := parent.config.get("max_concurrency")) is not None:
        config["max_concurrency"] = most
    return config


_SILENT: Final = (TAG_HIDDEN, TAG_NOSTREAM)


class _Deaf:
    """A caller's handler, which hears the tokens from the model and not from within."""

    def __init__(self, handler: BaseCallbackHandler, silence: Any) -> None:
        self._handler = handler
        self.on_llm_new_token = self.on_stream_event = silence

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handler, name)

    @classmethod
    def of(cls, handler: BaseCallbackHandler, manager: type) -> Any:
        """Give the handler without its ears, or as it is: tracers need theirs."""
        hears = any(
            getattr(type(handler), name, None) is not getattr(BaseCallbackHandler, name)
            for name in ("on_llm_new_token", "on_stream_event")
        )
        if not hears or isinstance(handler, BaseTracer | AsyncBaseTracer):
            return handler
        return cls(handler, _asilence if manager is AsyncCallbackManager else _silence)


def _silence(*_: Any, **__: Any) -> None:
    """Hear nothing."""


async def _asilence(*_: Any, **__: Any) -> None:
    """Hear nothing, on the event loop."""


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
