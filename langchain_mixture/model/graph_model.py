"""A chat model that runs a graph: invoke, stream, and event streams."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

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
    """A chat model that runs a graph, nested in the run of its caller.

    A subclass supplies the graph and its input, and turns its state into a message.
    """

    @abstractmethod
    def _prepared(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        kwargs: dict[str, Any],
    ) -> tuple[Any, dict[str, Any], Request]:
        """Return the graph, its input, and the tools and settings of this call."""

    @abstractmethod
    def _message(self, state: dict[str, Any], run: Run) -> AIMessage:
        """Return the message for a final state of the graph."""

    _carried: Run | None = PrivateAttr(default=None)
    """The run of a version 3 event stream; set on the copy that makes the stream."""

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
            message = super().invoke(input, config, stop=stop, **kwargs)
        return _with_usage(message, run)

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
                message = await super().ainvoke(input, config, stop=stop, **kwargs)
            finally:
                await run.close()
        return _with_usage(message, run)

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
        # The variable is set for each chunk and not for the whole loop: between two
        # chunks the caller's own code runs in this context.
        try:
            while True:
                with during(RUN, run):
                    chunk = next(chunks, None)
                if chunk is None:
                    return
                last = chunk.chunk_position == "last"
                yield _with_usage(chunk, run) if last else chunk
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
                    last = chunk.chunk_position == "last"
                    yield _with_usage(chunk, run) if last else chunk
            finally:
                await run.close()

    if not TYPE_CHECKING:  # callers should see the signatures of langchain-core

        def stream_events(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
            model, config = self._for_events(CallbackManager, config, kwargs)
            return BaseChatModel.stream_events(model, input, config, **kwargs)

        def astream_events(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
            model, config = self._for_events(AsyncCallbackManager, config, kwargs)
            return BaseChatModel.astream_events(model, input, config, **kwargs)

    def _for_events(
        self, manager: Any, config: RunnableConfig | None, kwargs: dict[str, Any]
    ) -> tuple[GraphChatModel, RunnableConfig | None]:
        """Return the model to stream from, and the config: for version 3 a copy.

        A version 3 stream runs in the task that reads it, where no context variable
        can be set from here: the graph would be a second root in a trace
        (langchain-core 1.8.3). So a copy of the model carries the run. The tests of
        version 3 in `test_chat_stream.py` hold it.
        """
        if kwargs.get("version") != "v3":
            return self, config
        twin = self.model_copy()
        twin._carried, config = _begin(manager, config)  # noqa: SLF001  # our own class
        return twin, config

    def _entered(
        self,
        core: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None,
        request: Request,
    ) -> Run:
        """Return the run that this call began, or a new one under core's run."""
        # The variable may hold the run of a mixture around this one: that one has
        # begun, or core's run is not its caller.
        run = self._carried or RUN.get()
        ours = run is not None and not run.is_begun and run.is_under(core)
        entered = run if ours and run else Run(Caller.of(core) if core else None)
        entered.request, entered.is_models = request, True
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
        return self._result(graph.invoke(inputs, config, run=run), run)

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
        return self._result(await graph.ainvoke(inputs, config, run=run), run)

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
            yield self._last_chunk(state, run)
        finally:
            # Without this, closing waits for the sync calls in flight, as LangGraph
            # waits for its tasks (langgraph 1.2.24). `test_chat_stream.py` holds it.
            run.cancel()
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
        # Core never closes the iterator that it reads: after an early end the models
        # would go on (langchain-core 1.8.3). So the run closes it, or the end of the
        # task in which an event stream runs. `test_chat_stream.py` holds both.
        if run is RUN.get():
            run.streams.append(chunks)
        elif (task := asyncio.current_task()) is not None:
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
        yield self._last_chunk(state, run)

    def _result(self, state: dict[str, Any], run: Run) -> ChatResult:
        message = self._message(state, run)
        # Callbacks expect the model's name there. Tokens they have from those inside.
        told = {"model_name": message.response_metadata["model_name"]}
        return ChatResult(
            generations=[ChatGeneration(message=message)], llm_output=told
        )

    def _last_chunk(self, state: dict[str, Any], run: Run) -> ChatGenerationChunk:
        message = self._message(state, run)
        chunk = AIMessageChunk(
            content="" if isinstance(message.content, str) else [],
            id=message.id,
            name=message.name,
            response_metadata=message.response_metadata,
            usage_metadata=message.usage_metadata,
            chunk_position="last",
        )
        return ChatGenerationChunk(message=chunk)


M = TypeVar("M", bound=AIMessage)


def _with_usage(message: M, run: Run) -> M:
    """Return the message with the tokens of the call that wrote it.

    Middleware compacts a conversation by them. They are put there behind the callbacks
    and the trace, which have them from the model inside and would count them twice.
    """
    if run.answer_usage is None or message.usage_metadata is not None:
        return message
    return message.model_copy(update={"usage_metadata": run.answer_usage})


def _begin(
    manager: type[CallbackManager | AsyncCallbackManager], config: RunnableConfig | None
) -> tuple[Run, RunnableConfig]:
    config = ensure_config(config)
    return begin(manager.configure(config["callbacks"]), config)


_closing: set[asyncio.Task[None]] = set()
"""References to running tasks: asyncio itself holds only weak ones."""


def _close(chunks: AsyncGenerator[Any]) -> None:
    async def close() -> None:
        await chunks.aclose()

    task = asyncio.get_running_loop().create_task(close())
    _closing.add(task)
    task.add_done_callback(_closing.discard)


# The tokens, the state, and the updates, which include interrupts.
_MODES: Final = ["messages", "values", "updates"]


def distinct(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Return the messages with distinct ids, as copies where an id is new.

    Of two messages with one id, LangGraph's `add_messages` keeps only the last
    (langgraph 1.2.24). `test_chat.py` holds it.
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
    """Return the chunk for a part of the graph's stream, or store the part's state."""
    mode, value = part
    if mode == "messages":
        return _chunk(value[0])
    if mode == "values" or "__interrupt__" in value:
        state.update(value)
    return None


def _chunk(message: BaseMessage) -> ChatGenerationChunk:
    """Return the chunk for a token or a whole message of the answer.

    Its id, usage and most metadata are left out: they come once, in the last chunk.
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
    """Return the metadata by which core reads a message's content blocks."""
    kept = ("model_provider", "output_version")
    return {k: v for k, v in message.response_metadata.items() if k in kept}
