"""Which run lies within which: what is carried inward, and what stays outside."""

from __future__ import annotations

from typing import Any, Final

from langchain_core.callbacks import (
    AsyncCallbackManager,
    BaseCallbackHandler,
    CallbackManager,
)
from langchain_core.runnables import RunnableConfig
from langchain_core.tracers.base import AsyncBaseTracer, BaseTracer
from langchain_core.utils.uuid import uuid7
from langgraph.constants import TAG_HIDDEN, TAG_NOSTREAM
from langgraph.runtime import Runtime

from langchain_mixture.compat import makes_models_stream
from langchain_mixture.running.run import Caller, Run


def begin(
    manager: CallbackManager | AsyncCallbackManager, config: RunnableConfig
) -> tuple[Run, RunnableConfig]:
    """Settle the id and the handlers of a chat model's run, before core begins it.

    Core hands on no run to `_stream` where `stream` or a streaming handler asks for it
    (langchain-core 1.8.3): the graph's run would be a second root in a trace.
    `test_tracing.py` holds it.

    Returns:
        The run; the config with which core begins the chat model's run.
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
    """Nest the graph's run under the model's, and carry over what is the caller's.

    The handlers of an outer stream stay behind: they would force every model inside to
    stream, and deliver its tokens a second time. So do the tags that silence a stream,
    and, where the model itself `streams`, the ears of the caller's handlers.
    """
    if caller is None:
        return {}
    handlers = [h for h in caller.handlers if not makes_models_stream(h)]
    if streams:
        # Core adds those of context variables once more where it finds not the same.
        own = manager.configure().handlers
        handlers = [h if h in own else _WithoutTokens.of(h, manager) for h in handlers]
    config: RunnableConfig = {
        "callbacks": manager(
            handlers=handlers,
            inheritable_handlers=handlers,
            parent_run_id=caller.run_id,
        ),
        "tags": [t for t in dict.fromkeys(caller.tags) if t not in _SILENT],
        "metadata": {
            key: value
            for key, value in caller.metadata.items()
            if not key.startswith(("ls_", "langgraph_", "checkpoint_"))
        },
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
