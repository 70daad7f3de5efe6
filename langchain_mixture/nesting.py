"""Nesting: what lies between a ChatMixture's run and the run of its graph.

Core calls `_stream` without a run manager and `_generate` without the config; here is
kept what the graph needs of both.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    BaseCallbackHandler,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config
from langchain_core.utils.uuid import uuid7
from langgraph.runtime import Runtime

from langchain_mixture.calls import during, listens


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


class NestingChatModel(BaseChatModel):
    """A chat model that knows the config and the run of each of its calls."""

    def cacheable(self) -> BaseChatModel:
        """Give the model whose answers a cache may keep: this one, or a copy."""
        return self

    def closed_later(
        self, chunks: AsyncGenerator[ChatGenerationChunk]
    ) -> AsyncGenerator[ChatGenerationChunk]:
        """Have a stream closed with the run: core does not close what it iterates."""
        if (parent := PARENT.get()) is not None:
            parent.opened.append(chunks)
        return chunks

    def invoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        with during(CONFIG, ensure_config(config)):
            return super().invoke(input, config, stop=stop, **kwargs)

    async def ainvoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        with during(CONFIG, ensure_config(config)):
            return await super().ainvoke(input, config, stop=stop, **kwargs)

    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        config = ensure_config(config)
        parent = Parent.begun(CallbackManager.configure(config["callbacks"]), config)
        chunks = super().stream(input, parent.config(config), stop=stop, **kwargs)
        try:
            while True:
                with during(CONFIG, config), during(PARENT, parent):
                    chunk = next(chunks, None)
                if chunk is None:
                    return
                yield chunk
        finally:
            cast("Any", chunks).close()

    async def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        config = ensure_config(config)
        manager = AsyncCallbackManager.configure(config["callbacks"])
        parent = Parent.begun(manager, config)
        chunks = super().astream(input, parent.config(config), stop=stop, **kwargs)
        async with aclosing(cast("Any", chunks)):
            try:
                while True:
                    with during(CONFIG, config), during(PARENT, parent):
                        chunk = await anext(chunks, None)
                    if chunk is None:
                        return
                    yield chunk
            finally:
                for opened in parent.opened:
                    await opened.aclose()

    def _generate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        # Private, as core has no public place where a run manager is known before
        # `_stream` is called on behalf of `invoke`; the tests of traces pin it.
        model = BaseChatModel._generate_with_cache  # noqa: SLF001
        parent = Parent.of(run_manager) if run_manager else None
        with during(PARENT, parent):
            return model(self.cacheable(), messages, stop, run_manager, **kwargs)

    async def _agenerate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        model = BaseChatModel._agenerate_with_cache  # noqa: SLF001  # as above
        parent = Parent.of(run_manager) if run_manager else None
        with during(PARENT, parent):
            return await model(self.cacheable(), messages, stop, run_manager, **kwargs)
