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
from pydantic import PrivateAttr

from langchain_mixture.callbacks import during
from langchain_mixture.model.nesting import begin, inner_config
from langchain_mixture.running.request import Request
from langchain_mixture.running.run import RUN, Caller, Run


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
    ) -> tuple[Any, dict[str, Any], Request]:
        """Return the graph, what goes into it, and the tools and settings."""

    @abstractmethod
    def _message(self, state: dict[str, Any]) -> AIMessage:
        """Make this model's message of what the graph came to."""

    _carried: Run | None = PrivateAttr(default=None)
    """The run of a version 3 event stream, for the copy of the model that makes it."""

    def invoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        run, config = _begin(CallbackManager, config)
        with during(RUN, run):
            return super().invoke(input, config, stop=stop, **kwargs)

    async def ainvoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        run, config = _begin(AsyncCallbackManager, config)
        with during(RUN, run):
            try:
                return await super().ainvoke(input, config, stop=stop, **kwargs)
            finally:
                await run.close()

    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        run, config = _begin(CallbackManager, config)
        chunks = super().stream(input, config, stop=stop, **kwargs)
        try:
            while True:
                with during(RUN, run):
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
        run, config = _begin(AsyncCallbackManager, config)
        chunks = super().astream(input, config, stop=stop, **kwargs)
        async with aclosing(cast("Any", chunks)):
            try:
                while True:
                    with during(RUN, run):
                        chunk = await anext(chunks, None)
                    if chunk is None:
                        return
                    yield chunk
            finally:
                await run.close()

    if not TYPE_CHECKING:  # core's own signatures are what callers are to see

        def stream_events(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
            model, config = self._for_events(CallbackManager, config, kwargs)
            return BaseChatModel.stream_events(model, input, config, **kwargs)

        def astream_events(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
            model, config = self._for_events(AsyncCallbackManager, config, kwargs)
            return BaseChatModel.astream_events(model, input, config, **kwargs)

    def _for_events(
        self, manager: Any, config: RunnableConfig | None, kwargs: dict[str, Any]
    ) -> tuple[GraphChatModel, RunnableConfig | None]:
        """Make a copy that carries its run: a version 3 stream runs where it is read.

        No context variable can be set around that (langchain-core 1.8.3).
        """
        if kwargs.get("version") != "v3":
            return self, config
        twin = self.model_copy()
        twin._carried, config = _begin(manager, config)  # noqa: SLF001  # it is ours
        return twin, config

    def _entered(
        self,
        core: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None,
        request: Request,
    ) -> Run:
        """Return the run that this call began, or a new one under core's run."""
        run = self._carried or RUN.get()
        ours = run is not None and not run.is_begun and run.is_under(core)
        entered = run if ours and run else Run(Caller.of(core) if core else None)
        entered.request = request
        return entered

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        graph, inputs, request = self._prepared(messages, stop, kwargs)
        run = self._entered(run_manager, request)
        config = inner_config(CallbackManager, run.caller)
        return self._result(graph.invoke(inputs, config, run=run))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        graph, inputs, request = self._prepared(messages, stop, kwargs)
        run = self._entered(run_manager, request)
        config = inner_config(AsyncCallbackManager, run.caller)
        return self._result(await graph.ainvoke(inputs, config, run=run))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        graph, inputs, request = self._prepared(messages, stop, kwargs)
        run = self._entered(run_manager, request)
        config = inner_config(CallbackManager, run.caller, streams=True)
        parts = graph.stream(inputs, config, stream_mode=_MODES, run=run)
        state: dict[str, Any] = {}
        try:
            for part in parts:
                if (chunk := _chunk_of(part, state)) is not None:
                    yield chunk
            yield self._last_chunk(state)
        finally:
            run.cancel()  # else closing waits for the calls in flight
            cast("Any", parts).close()

    def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        graph, inputs, request = self._prepared(messages, stop, kwargs)
        run = self._entered(run_manager, request)
        chunks = self._chunks(graph, inputs, run)
        # Core does not close what it iterates.
        if run is RUN.get():
            run.streams.append(chunks)
        elif (task := asyncio.current_task()) is not None:  # an event stream's own
            task.add_done_callback(lambda _: _close(chunks))
        return chunks

    async def _chunks(
        self, graph: Any, inputs: Any, run: Run
    ) -> AsyncGenerator[ChatGenerationChunk]:
        config = inner_config(AsyncCallbackManager, run.caller, streams=True)
        parts = graph.astream(inputs, config, stream_mode=_MODES, run=run)
        state: dict[str, Any] = {}
        async with aclosing(cast("Any", parts)):
            async for part in parts:
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


def _begin(
    manager: type[CallbackManager | AsyncCallbackManager], config: RunnableConfig | None
) -> tuple[Run, RunnableConfig]:
    config = ensure_config(config)
    return begin(manager.configure(config["callbacks"]), config)


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
