"""Turning what an agent returned or raised into a reply."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from typing import Any, Final

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ToolMessage,
    message_chunk_to_message,
)
from langchain_core.runnables import RunnableConfig

from langchain_mixture.agents.resolve import ResolvedAgent
from langchain_mixture.callbacks import is_streamed
from langchain_mixture.compat import saver_of
from langchain_mixture.errors import counted, shown
from langchain_mixture.records import Outcome, Reply, Reported, estimated
from langchain_mixture.running.attempt import Attempt
from langchain_mixture.running.endings import (
    AT_LIMIT,
    cut_off,
    ending,
    explained,
    refusal,
)
from langchain_mixture.running.reports import (
    Reports,
    inner_reports,
    is_cached,
    mixture_of,
    model_of,
    reported_by,
)
from langchain_mixture.running.waiting import GivenUpError, StoppedError, Wait
from langchain_mixture.secrets import describe, in_texts, one_line, redact_error

logger = logging.getLogger("langchain_mixture")


class Recorder:
    """The record of one attempt: its start, its tokens, its outcome.

    `reply` is set by `answered`, `failed` or `unasked`. `handlers` are the callbacks
    with which the agent must be invoked, if any.
    """

    def __init__(
        self,
        attempt: Attempt,
        config: RunnableConfig,
        wait: Wait,
        sign: Callable[[], None],
    ) -> None:
        self.reply: Reply
        self.message: AIMessage | None = None
        """The agent's whole message."""
        self.handlers: list[BaseCallbackHandler]
        self._attempt = attempt
        self._saver = saver_of(config)
        self.wait = wait
        self._started = time.time()
        self._clock = time.perf_counter()
        # An agent may ask several models, and fail after some of them have answered.
        self._reports = Reports()
        self.handlers = []
        self._signs: _SignsOfLife | None = None
        if attempt.is_unheard(config):
            return
        self.handlers += [_Redactor(attempt.agent), self._reports]
        if attempt.streams and is_streamed(config):
            self._signs = _SignsOfLife(wait, sign)
            self.handlers.append(self._signs)

    def answered(self, output: object) -> None:
        """Record the agent's output: an answer, or a failure if it is none."""
        message = self.message = _message(output, self._attempt.agent)
        if isinstance(output, str):
            message.response_metadata = self._reports.metadata_of(output)
        reason = self._not_carried(message)
        if reason is not None:
            # Only the text and the tokens of such a message can be written down.
            message = AIMessage(message.text, usage_metadata=message.usage_metadata)
        problem = reason or _problem(message, self._attempt)
        if problem is not None:  # it may quote the model's text
            problem = one_line(problem, self._attempt.agent.without_secrets)
        outcome: Outcome = "answered" if problem is None else "failed"
        self.reply = self._reply(outcome, message, problem, is_whole=reason is None)

    def _not_carried(self, message: AIMessage) -> str | None:
        """Return why no checkpoint can carry a message; None if one can.

        Integers beyond 64 bits and 250 levels of nesting are among what it cannot
        (langgraph-checkpoint 4.3.2). They come in what is no text, such as the
        arguments of a tool call. `test_complete.py` holds it.
        """
        if self._saver is None:
            return None
        parts: list[Any] = [message.tool_calls]
        if self._attempt.may_answer:  # then the message itself is kept
            parts = [getattr(message, part) for part in _PARTS]
        kept: Any = [part for part in parts if part and not isinstance(part, str)]
        if not kept:
            return None
        for _ in range(_DEPTH):
            kept = [kept]
        try:
            self._saver.serde.dumps_typed(kept)
        except Exception as error:  # noqa: BLE001  # each serializer has its own
            return f"no checkpoint can carry it: {describe(error)}"
        return None

    def failed(self, error: Exception) -> None:
        """Record an error: a failed call, or one that was given up."""
        if isinstance(error, GivenUpError):
            self.reply = self._reply("given up", None, str(error))
        else:
            attempt = self._attempt
            redact_error(error, attempt.agent.without_secrets)
            key = (attempt.step, attempt.index, attempt.attempt)
            attempt.run.errors[key] = error
            _log_traceback(error, attempt)
            said = describe(error, attempt.agent.without_secrets)
            self.reply = self._reply("failed", None, said + _hint(said, self._attempt))

    def unasked(self, why: str) -> Recorder:
        """Record a call that was not made."""
        self.reply = self._reply("not asked", None, why)
        return self

    def _reply(
        self,
        outcome: Outcome,
        message: AIMessage | None,
        error: str | None,
        *,
        is_whole: bool = True,
    ) -> Reply:
        attempt = self._attempt
        reported, cached = self._reported(message)
        inner = mixture_of(message).get("usage") or {}
        # Where the step has nothing better, these are the answer, as of a plain model.
        keeps = error is None
        if message is not None and is_whole and not keeps:
            told = refusal(message) is not None or explained(message)
            keeps = told or _is_answer(message, attempt)
        # Tokens that the user has seen cannot be taken back, so no fallback may answer.
        if error is not None and self._signs is not None and self._signs.seen:
            outcome = "broken off"
        reply: Reply = {
            "id": attempt.id,
            "text": "" if message is None else _text(message),
            "agent": attempt.agent.name,
            "model": attempt.agent.model_of(message),
            "step": attempt.step,
            "parents": attempt.call["parents"],
            "tool_calls": [] if message is None else message.tool_calls,
            "index": attempt.index,
            "attempt": attempt.attempt,
            "error": error,
            "started": self._started,
            "time": time.perf_counter() - self._clock,
            "in_tokens": sum(model["input_tokens"] for model in reported),
            "out_tokens": sum(model["output_tokens"] for model in reported),
            "message": message if keeps and attempt.may_answer else None,
            "estimated_tokens": inner.get("estimated_tokens", 0),
            "cut_off": _cut_off(message) if error is None else None,
            "outcome": outcome,
            "reasons": _reasons(message) if error is None else [],
            "reported": reported,
        }
        if cached:
            reply["cached"] = True
        elif not reported and not reply["estimated_tokens"] and outcome != "not asked":
            # A failed call may have been billed: what was sent counts in any case.
            written = 0 if message is None else estimated([message])
            reply["estimated_out_tokens"] = written
            reply["estimated_tokens"] = estimated(attempt.call["messages"]) + written
        if message is not None:
            _add_model(reply, message)
        return reply

    def _reported(self, message: AIMessage | None) -> tuple[list[Reported], bool]:
        """Return the tokens that models reported, and whether a cache answered."""
        said = self._reports.messages
        is_own = self._attempt.agent.is_model or not said
        if message is not None and is_own and not mixture_of(message):
            reported = reported_by([message])
            return reported, not reported and is_cached(message)
        reported = reported_by(said)
        if message is not None:
            # A chain may return what a client without callbacks wrote, and a mixture
            # may have asked one.
            told = inner_reports(message) or reported_by([message])
            if _total(told) > _total(reported):
                reported = told
        return reported, bool(said) and not reported and all(map(is_cached, said))


def _total(reported: list[Reported]) -> int:
    return sum(model["total_tokens"] for model in reported)


def _add_model(reply: Reply, message: AIMessage) -> None:
    name, provider = model_of(message)
    if name is not None:
        reply["model_name"] = name
    if provider is not None:
        reply["model_provider"] = provider


def _hint(error: str, attempt: Attempt) -> str:
    """Return a hint for an error about a setting that comes from the step."""
    arguments = attempt.arguments
    for name, field in (("temperature", "temp"), ("max_tokens", "max_tokens")):
        value = attempt.agent.arguments.get(name)
        if value is not None and value == arguments[name] and name in error:
            return f" (the step sets {field}={value}; {field}=None leaves it out)"
    return ""


def _reasons(message: AIMessage | None) -> list[str]:
    inner = mixture_of(message)
    if inner.get("status") != "degraded":
        return []
    return [one_line(str(reason)) for reason in inner.get("reasons", ())]


def _cut_off(message: AIMessage | None) -> str | None:
    # A mixture has decided for itself what a call of its own that was cut off means.
    if message is None or mixture_of(message):
        return None
    return cut_off(message)


def _log_traceback(error: BaseException, attempt: Attempt) -> None:
    """Log where a failed call raised, without keys: the record has one line of it."""
    if logger.isEnabledFor(logging.DEBUG):
        lines = "".join(traceback.format_exception(error))
        told = attempt.agent.without_secrets(lines)
        logger.debug("%s: %s failed\n%s", attempt.step, attempt.agent.name, told)


class Guard(BaseCallbackHandler):
    """Stops a sync call that was given up from making another request.

    The call still runs on its thread, which cannot be killed: an agent's loop, a retry
    or a fallback would ask again.
    """

    run_inline = True  # as in `Reports`
    raise_error = True  # without it, core logs the error and makes the request

    def __init__(self, wait: Wait) -> None:
        self._wait = wait

    def on_chat_model_start(self, *_: Any, **__: Any) -> None:
        if self._wait.is_over:
            raise StoppedError("the call was given up")

    on_llm_start = on_retry = on_chat_model_start


class _SignsOfLife(BaseCallbackHandler):
    """Watches the tokens of a streamed answer.

    Each token restarts the timeout. The first one is noted, as the call can no longer
    fail unseen. A token of an abandoned call raises, which ends the model's stream.
    """

    run_inline = True  # as in `Reports`
    raise_error = True  # without it, core logs the error and the stream goes on

    def __init__(self, wait: Wait, sign: Callable[[], None]) -> None:
        self._wait = wait
        self._sign = sign
        self._parents: set[Any] = set()
        self._error: BaseException | None = None
        self.seen = False

    def on_chat_model_start(
        self, *args: Any, parent_run_id: Any = None, **kwargs: Any
    ) -> None:
        # The first model to start is the agent's own. Another with the same parent is
        # a retry or a fallback of it: after the first token it must not begin, or the
        # user would read two answers in one. Models further down are an inner
        # mixture's.
        if self.seen and parent_run_id in self._parents:
            raise StoppedError("the streamed answer broke off") from self._error
        if not self._parents:
            self._parents.add(parent_run_id)

    def on_llm_error(
        self, error: BaseException, *, parent_run_id: Any = None, **kwargs: Any
    ) -> None:
        if parent_run_id in self._parents:
            self._error = error

    def on_llm_new_token(
        self, token: Any, *, parent_run_id: Any = None, chunk: Any = None, **kwargs: Any
    ) -> None:
        message = getattr(chunk, "message", None)
        has_content = token or (
            isinstance(message, AIMessageChunk)
            and (message.content or message.tool_call_chunks)
        )
        self._on_chunk(parent_run_id, bool(has_content))

    def on_stream_event(
        self, event: Any, *, parent_run_id: Any = None, **kwargs: Any
    ) -> None:
        self._on_chunk(parent_run_id, event.get("event") == "content-block-delta")

    def _on_chunk(self, parent_run_id: Any, has_content: bool) -> None:
        if self._wait.is_over:
            raise StoppedError("the call was given up")
        self.seen = self.seen or (has_content and parent_run_id in self._parents)
        self._sign()


class _Redactor(BaseCallbackHandler):
    """Removes keys from an error before a trace records it."""

    run_inline = True  # as in `Reports`; a tracer must also find the error redacted
    # Without it, core writes all messages out as text for each call, because a handler
    # without `on_chat_model_start` gets them that way (langchain-core 1.8.3).
    ignore_chat_model = True

    def __init__(self, agent: ResolvedAgent) -> None:
        self._agent = agent

    def on_llm_error(
        self, error: BaseException, *, response: Any = None, **kwargs: Any
    ) -> None:
        self._redact(error)
        # Core also passes on the body of the provider's HTTP response, which may quote
        # a key (langchain-core 1.8.3). `test_tracing.py` holds it.
        for generations in getattr(response, "generations", []):
            for generation in generations:
                message = getattr(generation, "message", None)
                if isinstance(message, BaseMessage):
                    message.response_metadata = in_texts(
                        message.response_metadata, self._agent.without_secrets
                    )

    def on_retry(self, retry_state: Any, **kwargs: Any) -> None:
        outcome = retry_state.outcome
        if outcome is not None and (error := outcome.exception()) is not None:
            self._redact(error)

    def _redact(self, error: BaseException, **kwargs: Any) -> None:
        redact_error(error, self._agent.without_secrets)

    on_chain_error = on_tool_error = on_retriever_error = _redact


def _message(output: object, agent: ResolvedAgent) -> AIMessage:
    if type(output) is AIMessage:  # nearly always; pydantic's checks of types take 1 µs
        return _encodable(output)
    if isinstance(output, str):
        output = AIMessage(output)
    if isinstance(output, AIMessageChunk):
        output = message_chunk_to_message(output)
    elif isinstance(output, BaseMessage) and not isinstance(output, AIMessage):
        output = AIMessage(output.content, id=output.id)
    if not isinstance(output, AIMessage):
        raise TypeError(
            f"{agent.name} returned {shown(output)}; it must return a message or text"
        )
    return _encodable(output)


def _text(message: AIMessage) -> str:
    # `.text` makes a copy: with answers of 1 MB, a run would cost a fifth more.
    return message.content if isinstance(message.content, str) else message.text


def _encodable(message: AIMessage) -> AIMessage:
    """Return a message without lone surrogates, which UTF-8 cannot encode.

    One of them would fail every later request and the checkpoint.
    """
    parts = {part: value for part in _PARTS if (value := getattr(message, part))}
    try:
        for part in parts.values():
            in_texts(part, str.encode)
    except UnicodeEncodeError:
        clean = in_texts(parts, lambda text: text.encode(errors="replace").decode())
        return message.model_copy(update=clean)
    return message


_PARTS = (
    "content",
    "tool_calls",
    "invalid_tool_calls",
    "additional_kwargs",
    "response_metadata",
)
"""The fields of a message that hold text from its model."""


_DEPTH: Final = 10
"""How deep the state of a graph, and of one around it, may hold a reply at most."""


def _problem(message: AIMessage, attempt: Attempt) -> str | None:
    """Return why a message is no answer; None if it is one."""
    words = refusal(message)
    if words is not None:
        return f"refused to answer: {words}"
    if not _text(message).strip() and not message.tool_calls:
        if attempt.may_answer and attempt.alone and _is_answer(message, attempt):
            return None
        return _empty_reason(message)
    if "check" in attempt.call:
        try:
            attempt.call["check"](message.text)
        except ValueError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001  # a paid reply must be recorded
            _log_traceback(error, attempt)
            return describe(error)
    return None


def _is_answer(message: AIMessage, attempt: Attempt) -> bool:
    """Whether a message without text is one that callers of a plain model cope with.

    These are a malformed tool call, which an agent lets the model repair; pictures,
    sound, and tools that run at the provider; and an empty end of turn behind a tool's
    result.
    """
    if message.invalid_tool_calls or message.additional_kwargs.get("audio"):
        return True
    if not isinstance(message.content, str):
        kinds = {block["type"] for block in message.content_blocks}
        if kinds - {"text", "reasoning"}:
            return True
    last = attempt.call["messages"][-1:]
    return cut_off(message) is None and any(isinstance(m, ToolMessage) for m in last)


def _empty_reason(message: AIMessage) -> str:
    reason = ending(message)
    if message.invalid_tool_calls:
        tool = message.invalid_tool_calls[0]["name"]
        return f"empty answer: a malformed call of the tool {tool!r}"
    if cut_off(message) == AT_LIMIT:
        usage: dict[str, Any] = {**(message.usage_metadata or {})}
        thought = (usage.get("output_token_details") or {}).get("reasoning", 0)
        return (
            "empty answer: cut off at the token limit before any text, after "
            f"{counted(usage.get('output_tokens', 0), 'token')} ({thought} of them "
            "reasoning)"
        )
    return f"empty answer (finish reason: {reason})" if reason else "empty answer"
