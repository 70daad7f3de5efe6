"""Nesting the graph's run in the chat model's: handlers, tags, metadata, settings."""

from __future__ import annotations

from typing import Any, Final

from langchain_core.callbacks import (
    AsyncCallbackManager,
    BaseCallbackHandler,
    CallbackManager,
)
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config
from langchain_core.tracers.base import AsyncBaseTracer, BaseTracer
from langchain_core.utils.uuid import uuid7
from langgraph.constants import TAG_HIDDEN, TAG_NOSTREAM
from langgraph.runtime import Runtime

from langchain_mixture.compat import makes_models_stream
from langchain_mixture.running.run import Caller, Run


def begin(
    manager: CallbackManager | AsyncCallbackManager, config: RunnableConfig
) -> tuple[Run, RunnableConfig]:
    """Choose the id and the handlers of a chat model's run, before core begins it.

    Core passes no run to `_stream` if `stream` or a streaming handler calls it: the
    graph's run would be a second root in a trace (langchain-core 1.8.3).
    `test_tracing.py` holds it.

    Returns:
        The run, and the config with which core begins the chat model's run.
    """
    run_id = config.get("run_id") or uuid7()
    caller = Caller(
        run_id,
        manager.inheritable_handlers,
        [*manager.inheritable_tags, *(config.get("tags") or [])],
        {**manager.inheritable_metadata, **(config.get("metadata") or {})},
        config,
    )
    return Run(caller), {**config, "callbacks": manager, "run_id": run_id}


def inner_config(
    manager: type[CallbackManager | AsyncCallbackManager],
    caller: Caller | None,
    *,
    streams: bool = False,
) -> RunnableConfig:
    """Return the config that nests the graph's run under the chat model's.

    Tags, metadata, `configurable` and `max_concurrency` of the caller are kept. Left
    out are the handlers of an outer stream, which would make every model inside stream
    and would deliver its tokens twice, and the tags that silence a stream, which would
    silence the answer.

    Args:
        manager: The class of callback manager, sync or async.
        caller: The chat model's run; None for a run of its own.
        streams: Whether the chat model streams. If so, it reports each token to the
            caller's handlers itself, and they must not get it from inside as well.
    """
    if caller is None:
        return {}
    handlers = [h for h in caller.handlers if not makes_models_stream(h)]
    if streams:
        # Core re-adds handlers from context variables unless it finds the same object:
        # a wrapped one would count each call twice (langchain-core 1.8.3).
        # `test_chat_stream.py` holds it.
        own = manager.configure().handlers
        handlers = [h if h in own else _WithoutTokens.of(h, manager) for h in handlers]
    config: RunnableConfig = {
        "callbacks": manager(
            handlers=handlers,
            inheritable_handlers=handlers,
            parent_run_id=caller.run_id,
        ),
        "tags": [t for t in dict.fromkeys(caller.tags) if t not in _SILENT],
        # These entries describe the chat model's run and the outer graph's, not this.
        "metadata": {
            key: value
            for key, value in caller.metadata.items()
            if not key.startswith(("ls_", "langgraph_", "checkpoint_"))
        },
        # LangGraph's own entries belong to the outer graph's task, but its runtime has
        # the context and the store that agents read. `test_graph.py` holds it.
        "configurable": {
            key: value
            for key, value in (caller.config.get("configurable") or {}).items()
            if isinstance(value, Runtime) or not key.startswith(("__", "checkpoint_"))
        },
    }
    if (most := caller.config.get("max_concurrency")) is not None:
        config["max_concurrency"] = most
    return config


_SILENT: Final = (TAG_HIDDEN, TAG_NOSTREAM)


class _WithoutTokens:
    """A caller's handler that gets no tokens from the models inside.

    It gets them from the chat model: otherwise it would get each token twice
    (langchain-core 1.8.3). `test_chat_stream.py` holds it.
    """

    def __init__(self, handler: BaseCallbackHandler, silence: Any) -> None:
        self._handler = handler
        self.on_llm_new_token = self.on_stream_event = silence

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handler, name)

    @classmethod
    def of(cls, handler: BaseCallbackHandler, manager: type) -> Any:
        """Return the handler without its token methods; as it is if it has none.

        Tracers are never wrapped: they need the tokens to record a stream.
        """
        has_token_methods = any(
            getattr(type(handler), name, None) is not getattr(BaseCallbackHandler, name)
            for name in ("on_llm_new_token", "on_stream_event")
        )
        if not has_token_methods or isinstance(handler, BaseTracer | AsyncBaseTracer):
            return handler
        return cls(handler, _asilence if manager is AsyncCallbackManager else _silence)


def _silence(*_: Any, **__: Any) -> None:
    """Ignore a token."""


async def _asilence(*_: Any, **__: Any) -> None:
    """Ignore a token, on the event loop."""


def around(manager: type[CallbackManager | AsyncCallbackManager]) -> Caller:
    """Return the run that this code is part of, as the caller of a graph's run."""
    config = ensure_config()
    known = manager.configure(config["callbacks"])
    return Caller(
        known.parent_run_id,
        known.inheritable_handlers,
        known.inheritable_tags,
        known.inheritable_metadata,
        config,
    )
