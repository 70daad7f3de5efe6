"""A chat model that asks a graph: invoked, streamed, nested in its caller's run."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, cast

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config
from langchain_core.utils.uuid import uuid7

from langchain_mixture.nesting import (
    PARENT,
    Parent,
    carrying,
    detached,
    during,
    inner_config,
)


class GraphChatModel(BaseChatModel):
    """A chat model that asks a graph, nested in its caller's run.

    A subclass says what goes into which graph, and what message comes of it.
    """

    @abstractmethod
    def _prepared(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        kwargs: dict[str, Any],
    ) -> tuple[Any, dict[str, Any]]:
        """Give the graph, and what goes into it."""

    @abstractmethod
    def _message(self, state: dict[str, Any]) -> AIMessage:
        """Make this model's message of what the graph came to."""

    def invoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        manager = CallbackManager.configure(ensure_config(config)["callbacks"])
        parent, config = Parent.begun(manager, ensure_config(config))
        with during(PARENT, parent):
            return super().invoke(input, config, stop=stop, **kwargs)

    async def ainvoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        manager = AsyncCallbackManager.configure(ensure_config(config)["callbacks"])
        parent, config = Parent.begun(manager, ensure_config(config))
        with during(PARENT, parent):
            try:
                return await super().ainvoke(input, config, stop=stop, **kwargs)
            finally:
                await parent.close()

    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        config = ensure_config(config)
        manager = CallbackManager.configure(config["callbacks"])
        parent, config = Parent.begun(manager, config)
        chunks = super().stream(input, config, stop=stop, **kwargs)
        try:
            while True:
                with during(PARENT, parent):
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
        parent, config = Parent.begun(manager, config)
        chunks = super().astream(input, config, stop=stop, **kwargs)
        async with aclosing(cast("Any", chunks)):
            try:
                while True:
                    with during(PARENT, parent):
                        chunk = await anext(chunks, None)
                    if chunk is None:
                        return
                    yield chunk
            finally:
                await parent.close()

    if not TYPE_CHECKING:  # core's own signatures are what callers are to see

        def stream_events(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
            if kwargs.get("version") == "v3":
                config = carrying(config)
            return super().stream_events(input, config, **kwargs)

        def astream_events(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
            if kwargs.get("version") == "v3":
                config = carrying(config)
            return super().astream_events(input, config, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        graph, inputs = self._prepared(messages, stop, kwargs)
        config = inner_config(CallbackManager, run_manager)
        with detached():
            state = graph.invoke(inputs, config)
        return self._result(state)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        graph, inputs = self._prepared(messages, stop, kwargs)
        config = inner_config(AsyncCallbackManager, run_manager)
        with detached():
            state = await graph.ainvoke(inputs, config)
        return self._result(state)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        graph, inputs = self._prepared(messages, stop, kwargs)
        config = inner_config(CallbackManager, run_manager, streams=True)
        parts = graph.stream(inputs, config, stream_mode=_MODES)
        state: dict[str, Any] = {}
        try:
            while True:
                with detached():
                    part = next(parts, None)
                if part is None:
                    break
                if (chunk := _chunk_of(part, state)) is not None:
                    yield chunk
            yield self._last_chunk(state)
        finally:
            inputs["request"].cancel()  # else closing waits for the calls under way
            with detached():
                parts.close()

    def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        chunks = self._achunks(messages, stop, run_manager, kwargs)
        # Core does not close what it iterates.
        if (parent := PARENT.get()) is not None:
            parent.opened.append(chunks)
        elif (task := asyncio.current_task()) is not None:  # an event stream's own
            task.add_done_callback(lambda _: _close(chunks))
        return chunks

    async def _achunks(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        run_manager: AsyncCallbackManagerForLLMRun | None,
        kwargs: dict[str, Any],
    ) -> AsyncGenerator[ChatGenerationChunk]:
        graph, inputs = self._prepared(messages, stop, kwargs)
        config = inner_config(AsyncCallbackManager, run_manager, streams=True)
        parts = graph.astream(inputs, config, stream_mode=_MODES)
        state: dict[str, Any] = {}
        async with aclosing(parts):
            while True:
                with detached():
                    part = await anext(parts, None)
                if part is None:
                    break
                if (chunk := _chunk_of(part, state)) is not None:
                    yield chunk
        yield self._last_chunk(state)

    def _result(self, state: dict[str, Any]) -> ChatResult:
        message = self._message(state)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _last_chunk(self, state: dict[str, Any]) -> ChatGenerationChunk:
        message = self._message(state)
        chunk = AIMessageChunk(
            content="" if isinstance(message.content, str) else [],
            name=message.name,
            response_metadata=message.response_metadata,
            usage_metadata=message.usage_metadata,
            chunk_position="last",
        )
        return ChatGenerationChunk(message=chunk)


_closing: set[asyncio.Task[None]] = set()
"""Kept from being collected before they are done."""


def _close(chunks: AsyncGenerator[Any]) -> None:
    async def close() -> None:
        await chunks.aclose()

    task = asyncio.get_running_loop().create_task(close())
    _closing.add(task)
    task.add_done_callback(_closing.discard)


_MODES: Final = ["messages", "values", "updates"]  # interrupts are among the updates


def distinct(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Give each message an id of its own: LangGraph would merge those that share one.

    The caller's messages stay as they are.
    """
    seen: set[str | None] = {None}
    distinct: list[BaseMessage] = []
    for message in messages:
        new = message.id in seen
        copy = message.model_copy(update={"id": str(uuid7())}) if new else message
        seen.add(copy.id)
        distinct.append(copy)
    return distinct


def _chunk_of(
    part: tuple[str, Any], state: dict[str, Any]
) -> ChatGenerationChunk | None:
    """Make a chunk of a part of the graph's stream, or take its state down."""
    mode, value = part
    if mode == "messages":
        return _chunk(value[0])
    if mode == "values" or "__interrupt__" in value:
        state.update(value)
    return None


def _chunk(message: BaseMessage) -> ChatGenerationChunk:
    """Make a chunk of a part of the answer: without id, usage and most metadata.

    These come once, in the last chunk.
    """
    if isinstance(message, AIMessageChunk):
        chunk = message.model_copy(
            update={
                "id": None,
                "usage_metadata": None,
                "response_metadata": _kind(message),
                "chunk_position": None,
            }
        )
        return ChatGenerationChunk(message=chunk)
    calls = message.tool_calls if isinstance(message, AIMessage) else []
    whole = AIMessageChunk(
        content=message.content,
        additional_kwargs=message.additional_kwargs,
        response_metadata=_kind(message),
        tool_calls=calls,
    )
    return ChatGenerationChunk(message=whole)


def _kind(message: BaseMessage) -> dict[str, Any]:
    """Keep what tells core how to read the blocks of a message's content."""
    kept = ("model_provider", "output_version")
    return {k: v for k, v in message.response_metadata.items() if k in kept}
