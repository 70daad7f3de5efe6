"""Asking one agent, sync and async: whatever happens becomes a recorded reply.

Only cancellation and LangGraph's own control flow (interrupts) pass through.
"""

from __future__ import annotations

import asyncio
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from langchain_core.callbacks import (
    BaseCallbackHandler,
    BaseCallbackManager,
    CallbackManager,
    UsageMetadataCallbackHandler,
)
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    convert_to_messages,
    message_chunk_to_message,
)
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import (
    get_executor_for_config,
    var_child_runnable_config,
)
from langgraph.constants import TAG_NOSTREAM
from langgraph.errors import GraphBubbleUp

from langchain_mixture.agents import Member
from langchain_mixture.errors import describe, redact
from langchain_mixture.limits import GivenUpError, Latch, Limit
from langchain_mixture.request import CANCELLED, Request, tools_as_text
from langchain_mixture.steps import Call, Outcome, Reply, shown

DEFAULT_TIMEOUT: Final = 300.0
"""Seconds that a call to a model may take, or the next chunk of a streamed answer."""


@dataclass(frozen=True)
class Question:
    """One call to one agent, with all that it takes to ask it."""

    member: Member
    call: Call
    request: Request
    step: str
    """The step's name, such as `1_propose`."""
    index: int
    """The position of the call among those of its step."""
    attempt: int
    """0 for the step's agent, more for its fallbacks."""
    timeout: float | None
    """Seconds; None = no limit."""
    ends: float | None
    """When its share of the deadline is used up, on the monotonic clock."""
    counts: bool
    """Whether tokens are estimated where the model reports none, for a budget."""
    unasked: str | None
    """Why it is not to be asked at all; None where it is."""
    streams: bool
    """Whether its tokens are the answer's stream."""
    visible: bool
    """Whether its tokens may be seen in a stream at all."""
    writes: bool
    """Whether it writes text, and does not judge."""
    may_answer: bool
    """Whether the model's own message may become the answer, and is kept."""

    def prepared(self, config: RunnableConfig) -> tuple[Runnable[Any, Any], Any]:
        """Give what is invoked, and with what."""
        runnable, messages = self.member.runnable, self.call["messages"]
        if self.request.binds:
            tooled = self._with_tools(config)
            if tooled is None:
                messages = tools_as_text(messages)
            else:
                runnable = tooled
        if self.member.sample > 1 and messages:
            # A cache of model answers would else give every sample the same one.
            last = messages[-1]
            metadata = {**last.response_metadata, "sample": self.member.sample}
            marked = last.model_copy(update={"response_metadata": metadata})
            messages = [*messages[:-1], marked]
        return runnable, {"messages": messages} if self.member.is_graph else messages

    def _with_tools(self, config: RunnableConfig) -> Runnable[Any, Any] | None:
        if not self.may_answer and not (self.writes and self.request.is_free):
            return None
        runnable = self.member.runnable
        try:
            return self.request.bound(
                runnable, answering=self.may_answer, config=config
            )
        except NotImplementedError:
            if self.may_answer:
                raise
            return None

    def arguments(self) -> dict[str, Any]:
        """Give the keyword arguments: the caller's go before the step's."""
        own = dict(self.member.arguments)
        return {**own, **self.request.arguments} if self.may_answer else own

    def config(
        self, config: RunnableConfig, handlers: Sequence[BaseCallbackHandler]
    ) -> RunnableConfig:
        """Mark the run with its step and agent, and silence what is not to be seen."""
        callbacks = _callbacks(config)
        if not self.visible:
            # A message stream of LangGraph's would make every model stream.
            for handler in list(callbacks.handlers):
                if listens(handler) and type(handler).__module__.startswith(
                    "langgraph"
                ):
                    callbacks.remove_handler(handler)
        # In front: who is given up must be stopped before a stream hears of it.
        callbacks.handlers[:0] = handlers
        callbacks.inheritable_handlers[:0] = handlers
        mark = {"mixture_step": self.step, "mixture_agent": self.member.name}
        return {
            **config,
            "callbacks": callbacks,
            "metadata": {**(config.get("metadata") or {}), **mark},
            "tags": [
                *(config.get("tags") or []),
                *([] if self.visible else [TAG_NOSTREAM]),
            ],
        }


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


def ask(
    attempts: Sequence[Question], config: RunnableConfig, latch: Latch | None = None
) -> list[Reply]:
    """Ask a question, and its fallbacks in turn until one answers."""
    replies: list[Reply] = []
    for question in attempts:
        replies.append(_ask(question, config, latch))
        if replies[-1]["outcome"] != "failed":
            break
    return replies


async def aask(
    attempts: Sequence[Question], config: RunnableConfig, latch: Latch | None = None
) -> list[Reply]:
    """Do what `ask` does, on the event loop."""
    replies: list[Reply] = []
    for question in attempts:
        replies.append(await _aask(question, config, latch))
        if replies[-1]["outcome"] != "failed":
            break
    return replies


def ask_all(
    questions: Sequence[Sequence[Question]],
    config: RunnableConfig,
    latch: Latch | None = None,
) -> list[Reply]:
    """Ask several questions at once, each with its fallbacks."""
    if len(questions) < 2:  # the caller's thread will do
        return [r for attempts in questions for r in ask(attempts, config, latch)]
    with get_executor_for_config(config) as executor:
        count = len(questions)
        asked = executor.map(ask, questions, [config] * count, [latch] * count)
        return [reply for replies in asked for reply in replies]


async def aask_all(
    questions: Sequence[Sequence[Question]],
    config: RunnableConfig,
    latch: Latch | None = None,
) -> list[Reply]:
    """Do what `ask_all` does, on the event loop."""
    if len(questions) < 2:
        return [r for asked in questions for r in await aask(asked, config, latch)]
    gate = asyncio.Semaphore(config.get("max_concurrency") or len(questions))

    async def one(attempts: Sequence[Question]) -> list[Reply]:
        async with gate:
            return await aask(attempts, config, latch)

    tasks = [asyncio.ensure_future(one(attempts)) for attempts in questions]
    try:
        return [reply for replies in await asyncio.gather(*tasks) for reply in replies]
    finally:
        for task in tasks:  # where one was interrupted
            task.cancel()


def _ask(question: Question, config: RunnableConfig, latch: Latch | None) -> Reply:
    limit = Limit(question.timeout, question.ends, latch)
    events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
    record = _Record(question, config, limit.tick)
    if (why := _unasked(question, latch)) is not None:
        return record.unasked(why)

    def invoke() -> object:
        runnable, value = question.prepared(config)
        agent_config = question.config(config, record.handlers)
        with detached():
            return runnable.invoke(value, agent_config, **question.arguments())

    def wake() -> None:
        events.put((_WAKE, None))

    question.request.waiting.add(events)
    if latch is not None:
        latch.enter(wake)
    answered = False
    try:
        reply = record.answered(_within(limit, invoke, events))
        answered = reply["outcome"] == "answered"
        return reply
    except GraphBubbleUp:
        raise
    except Exception as error:  # noqa: BLE001  # a failed call is a record, not an end
        return record.failed(error)
    finally:
        record.close()
        question.request.waiting.discard(events)
        if latch is not None:
            latch.leave(wake, answered=answered)


async def _aask(
    question: Question, config: RunnableConfig, latch: Latch | None
) -> Reply:
    limit = Limit(question.timeout, question.ends, latch)
    timer = asyncio.timeout(limit.left())
    loop, asking = asyncio.get_running_loop(), True

    def wake() -> None:
        left = limit.left()
        if asking and left is not None and not timer.expired():
            timer.reschedule(loop.time() + left)

    def tick() -> None:
        limit.tick()
        loop.call_soon_threadsafe(wake)  # a model may write in a thread of its own

    record = _Record(question, config, tick)
    if (why := _unasked(question, latch)) is not None:
        return record.unasked(why)
    if latch is not None:
        latch.enter(wake)
    answered = False
    try:
        async with timer:
            runnable, value = question.prepared(config)
            agent_config = question.config(config, record.handlers)
            arguments = question.arguments()
            with detached():
                output = await runnable.ainvoke(value, agent_config, **arguments)
        reply = record.answered(output)
        answered = reply["outcome"] == "answered"
        return reply
    except GraphBubbleUp:
        raise
    except Exception as error:  # noqa: BLE001  # a failed call is a record, not an end
        return record.failed(limit.error() if timer.expired() else error)
    finally:
        asking = False
        if latch is not None:
            latch.leave(wake, answered=answered)


def _unasked(question: Question, latch: Latch | None) -> str | None:
    if latch is not None and latch.is_closed():
        return f"not asked: {latch.quorum} others had answered"
    return question.unasked


# -- Waiting in sync code --------------------------------------------------------------

_Event = tuple[object, Any]
_WAKE: Final = object()
_ANSWER: Final = object()
_ERROR: Final = object()


def _within(
    limit: Limit, function: Callable[[], object], events: queue.SimpleQueue[_Event]
) -> object:
    """Call a function, and give it up when its limit is reached.

    A call that is given up goes on, on a daemon thread that cannot hold the process.
    """

    def work() -> None:
        try:
            events.put((_ANSWER, function()))
        except BaseException as error:  # noqa: BLE001  # raised again by the caller
            events.put((_ERROR, error))

    threading.Thread(target=copy_context().run, args=(work,), daemon=True).start()
    while True:
        try:
            left = limit.left()
            longest = threading.TIMEOUT_MAX
            event = events.get(timeout=None if left is None else min(left, longest))
        except queue.Empty:
            if limit.left():  # a sign of life has moved it
                continue
            raise limit.error() from None
        if event is CANCELLED:
            raise asyncio.CancelledError
        kind, value = event
        if kind is _ERROR:
            raise value
        if kind is _ANSWER:
            return value


class _SignsOfLife(BaseCallbackHandler):
    """Tells that a model that streams is still writing, and whether it has begun."""

    run_inline = True
    raise_error = True

    def __init__(self, tick: Callable[[], None]) -> None:
        self._tick = tick
        self._parents: set[Any] = set()
        self.seen = False
        self.closed = False

    def on_chat_model_start(
        self, *args: Any, parent_run_id: Any = None, **kwargs: Any
    ) -> None:
        # The first model to start is the agent's own, and what starts beside it a
        # retry or a fallback beneath; models further down are an inner mixture's.
        if self.seen and parent_run_id in self._parents:
            raise RuntimeError("the streamed answer broke off")
        if not self._parents:
            self._parents.add(parent_run_id)

    def on_llm_new_token(
        self, token: Any, *, parent_run_id: Any = None, chunk: Any = None, **kwargs: Any
    ) -> None:
        message = getattr(chunk, "message", None)
        says = token or (
            isinstance(message, AIMessageChunk)
            and (message.content or message.tool_call_chunks)
        )
        self._heard(parent_run_id, bool(says))

    def on_stream_event(
        self, event: Any, *, parent_run_id: Any = None, **kwargs: Any
    ) -> None:
        self._heard(parent_run_id, event.get("event") == "content-block-delta")

    def _heard(self, parent_run_id: Any, says: bool) -> None:
        if self.closed:
            raise RuntimeError("the call was given up")
        self.seen = self.seen or (says and parent_run_id in self._parents)
        self._tick()


class _Redactor(BaseCallbackHandler):
    """Takes keys out of a provider's error before a trace records it."""

    run_inline = True

    def __init__(self, member: Member) -> None:
        self._member = member

    def on_llm_error(
        self, error: BaseException, *, response: Any = None, **kwargs: Any
    ) -> None:
        self._redact(error)
        # Core hands on what the provider's HTTP response said, too.
        for generations in getattr(response, "generations", []):
            for generation in generations:
                message = getattr(generation, "message", None)
                if isinstance(message, BaseMessage):
                    message.response_metadata = _in_texts(
                        message.response_metadata, self._member.without_secrets
                    )

    def on_chain_error(self, error: BaseException, **kwargs: Any) -> None:
        self._redact(error)

    def _redact(self, error: BaseException) -> None:
        seen: set[int] = set()
        link: BaseException | None = error
        while link is not None and id(link) not in seen:
            seen.add(id(link))
            link.args = tuple(
                _in_texts(part, self._member.without_secrets) for part in link.args
            )
            link = link.__cause__ or link.__context__


# -- From what an agent returned to a reply ------------------------------------------


class _Record:
    """Takes down one call: when it began, what it used, how it ended."""

    def __init__(
        self, question: Question, config: RunnableConfig, tick: Callable[[], None]
    ) -> None:
        self._question = question
        self._started = time.time()
        self._clock = time.perf_counter()
        self.handlers: list[BaseCallbackHandler] = [_Redactor(question.member)]
        # A chain or a graph may ask several models and return the last one's message.
        self._usage: UsageMetadataCallbackHandler | None = None
        if not question.member.is_model:
            self._usage = UsageMetadataCallbackHandler()
            self.handlers.append(self._usage)
        self._signs: _SignsOfLife | None = None
        if question.streams and is_streamed(config):
            self._signs = _SignsOfLife(tick)
            self.handlers.append(self._signs)

    def close(self) -> None:
        """Let nothing more be streamed by the call, which may go on in its thread."""
        if self._signs is not None:
            self._signs.closed = True

    def answered(self, output: object) -> Reply:
        message = _message(output, self._question.member)
        problem = _problem(message, self._question.call)
        return self._reply("failed" if problem else "answered", message, problem)

    def failed(self, error: BaseException) -> Reply:
        if isinstance(error, GivenUpError):
            return self._reply("given up", None, str(error))
        text = self._question.member.without_secrets(describe(error))
        return self._reply("failed", None, text)

    def unasked(self, why: str) -> Reply:
        return self._reply("not asked", None, why)

    def _reply(
        self, outcome: Outcome, message: AIMessage | None, error: str | None
    ) -> Reply:
        question = self._question
        read, written = self._tokens(message)
        guessed = question.counts and not read + written and outcome != "not asked"
        talk = [*question.call["messages"], *([] if message is None else [message])]
        keeps = question.may_answer and error is None
        if error is not None and self._signs is not None and self._signs.seen:
            outcome = "broken off"
        return {
            "id": f"{question.step}/{question.index}",
            "text": "" if message is None else message.text,
            "agent": question.member.name,
            "step": question.step,
            "parents": question.call["parents"],
            "tool_calls": [] if message is None else message.tool_calls,
            "index": question.index,
            "attempt": question.attempt,
            "error": error,
            "started": self._started,
            "time": time.perf_counter() - self._clock,
            "in_tokens": read,
            "out_tokens": written,
            "message": message if keeps else None,
            "estimated_tokens": estimated(talk) if guessed else 0,
            "truncated": error is None and _is_truncated(message),
            "outcome": outcome,
        }

    def _tokens(self, message: AIMessage | None) -> tuple[int, int]:
        counted: list[Any] = []
        if self._usage is not None:
            counted = list(self._usage.usage_metadata.values())
        if not counted and message is not None:
            of_mixture = message.response_metadata.get("mixture", {}).get("usage")
            counted = [of_mixture or message.usage_metadata or {}]
        # A cache hit may bring usage without counts.
        return (
            sum(usage.get("input_tokens", 0) for usage in counted),
            sum(usage.get("output_tokens", 0) for usage in counted),
        )


def is_streamed(config: RunnableConfig) -> bool:
    """Tell whether someone is listening to the tokens of a run.

    Example:
        >>> is_streamed({})
        False
    """
    return any(map(listens, _callbacks(config).handlers))


def _callbacks(config: RunnableConfig) -> BaseCallbackManager:
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


def _message(output: object, member: Member) -> AIMessage:
    if member.is_graph:
        messages = output.get("messages") if isinstance(output, dict) else None
        if not messages:
            raise TypeError(
                f"{member.name} returned {shown(output)} without messages; a graph "
                'must return {"messages": [...]}'
            )
        (output,) = convert_to_messages(messages[-1:])  # a RemoteGraph gives dicts
    if isinstance(output, str):
        output = AIMessage(output)
    if isinstance(output, AIMessageChunk):
        output = message_chunk_to_message(output)
    elif isinstance(output, BaseMessage) and not isinstance(output, AIMessage):
        output = AIMessage(output.content, id=output.id)
    if not isinstance(output, AIMessage):
        raise TypeError(
            f"{member.name} returned {shown(output)}; it must return a message or text"
        )
    return _encodable(output)


def _encodable(message: AIMessage) -> AIMessage:
    """Replace lone surrogates, which no request and no checkpoint can carry."""
    parts = {"content": message.content, "tool_calls": message.tool_calls}
    try:
        json.dumps(parts, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        clean = _in_texts(parts, lambda text: text.encode(errors="replace").decode())
        return message.model_copy(update=clean)
    return message


def _in_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Change every text in plain data."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_in_texts(item, change) for item in value]
    if isinstance(value, dict):
        return {key: _in_texts(item, change) for key, item in value.items()}
    return value


def _problem(message: AIMessage, call: Call) -> str | None:
    """Say why a message is no answer, or None where it is one."""
    refusal = _refusal(message)
    if refusal is not None:
        return redact(f"refused to answer: {refusal}")
    if not message.text.strip() and not message.tool_calls:
        return _why_empty(message)
    if "check" in call:
        try:
            call["check"](message.text)
        except ValueError as error:
            return str(error)
    return None


def _refusal(message: AIMessage) -> str | None:
    words = message.additional_kwargs.get("refusal")
    if isinstance(words, str) and words:
        return words
    for block in message.content:
        if isinstance(block, dict) and block.get("type") == "refusal":
            return str(block.get("refusal") or message.text)
    if message.response_metadata.get("stop_reason") == "refusal":
        return message.text or "no words"
    return None


def estimated(messages: Sequence[BaseMessage]) -> int:
    """Estimate the tokens of messages, at about four characters a token.

    Example:
        >>> estimated([AIMessage("four" * 100)])
        106
    """
    return count_tokens_approximately(messages)


def _is_truncated(message: AIMessage | None) -> bool:
    return message is not None and _finish(message) in ("length", "max_tokens")


def _finish(message: AIMessage) -> object:
    metadata = message.response_metadata
    return metadata.get("finish_reason") or metadata.get("stop_reason")


def _why_empty(message: AIMessage) -> str:
    reason = _finish(message)
    if message.invalid_tool_calls:
        tool = message.invalid_tool_calls[0]["name"]
        return f"empty answer: a malformed call of the tool {tool!r}"
    if _is_truncated(message):
        usage: dict[str, Any] = {**(message.usage_metadata or {})}
        thought = (usage.get("output_token_details") or {}).get("reasoning", 0)
        return (
            "empty answer: cut off at the token limit before any text, after "
            f"{usage.get('output_tokens', 0)} tokens ({thought} of them reasoning)"
        )
    return f"empty answer (finish reason: {reason})" if reason else "empty answer"
