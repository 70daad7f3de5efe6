"""From what an agent returned, or raised, to a reply."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    message_chunk_to_message,
)
from langchain_core.messages.ai import add_usage
from langchain_core.runnables import RunnableConfig

from langchain_mixture.agents.resolve import ResolvedAgent
from langchain_mixture.callbacks import is_streamed
from langchain_mixture.errors import counted, shown
from langchain_mixture.records import Call, Outcome, Reply, estimated
from langchain_mixture.running.attempt import Attempt
from langchain_mixture.running.waiting import GivenUpError, Wait
from langchain_mixture.secrets import describe, in_texts, one_line, redact_error


class Recorder:
    """Takes down one call: when it began, what it used, how it ended."""

    def __init__(
        self,
        attempt: Attempt,
        config: RunnableConfig,
        wait: Wait,
        sign: Callable[[], None],
    ) -> None:
        self.reply: Reply
        self._attempt = attempt
        self._wait = wait
        self._started = time.time()
        self._clock = time.perf_counter()
        self.handlers: list[BaseCallbackHandler] = [_Redactor(attempt.agent)]
        # A chain or a graph may ask several models and return the last one's message.
        self._usage: _Usage | None = None
        if not attempt.agent.is_model:
            self._usage = _Usage()
            self.handlers.append(self._usage)
        self._signs: _SignsOfLife | None = None
        if attempt.streams and is_streamed(config):
            self._signs = _SignsOfLife(wait, sign)
            self.handlers.append(self._signs)

    def answered(self, output: object) -> None:
        message = _message(output, self._attempt.agent)
        problem = _problem(message, self._attempt.call)
        self._wait.has_answer = problem is None
        if problem is not None:  # it may quote what the model said
            problem = one_line(problem, self._attempt.agent.without_secrets)
        outcome: Outcome = "answered" if problem is None else "failed"
        self.reply = self._reply(outcome, message, problem)

    def failed(self, error: BaseException) -> None:
        if isinstance(error, GivenUpError):
            self.reply = self._reply("given up", None, str(error))
        else:
            said = describe(error, self._attempt.agent.without_secrets)
            self.reply = self._reply("failed", None, said + _cure(said, self._attempt))

    def unasked(self, why: str) -> Reply:
        return self._reply("not asked", None, why)

    def _reply(
        self, outcome: Outcome, message: AIMessage | None, error: str | None
    ) -> Reply:
        attempt = self._attempt
        tokens = self._tokens(message)
        if not tokens and outcome != "not asked":
            said = [] if message is None else [message]
            talk = [*attempt.call["messages"], *said]
            tokens = {"estimated_tokens": estimated(talk)}
        keeps = attempt.may_answer and error is None
        if error is not None and self._signs is not None and self._signs.seen:
            outcome = "broken off"
        return {
            "id": f"{attempt.step}/{attempt.index}",
            "text": "" if message is None else message.text,
            "agent": attempt.agent.name,
            "step": attempt.step,
            "parents": attempt.call["parents"],
            "tool_calls": [] if message is None else message.tool_calls,
            "index": attempt.index,
            "attempt": attempt.attempt,
            "error": error,
            "started": self._started,
            "time": time.perf_counter() - self._clock,
            "in_tokens": tokens.get("input_tokens", 0),
            "out_tokens": tokens.get("output_tokens", 0),
            "message": message if keeps else None,
            "estimated_tokens": tokens.get("estimated_tokens", 0),
            "truncated": error is None and _is_truncated(message),
            "outcome": outcome,
            "reasons": _reasons(message) if error is None else [],
        }

    def _tokens(self, message: AIMessage | None) -> Mapping[str, Any]:
        """Give the tokens that were reported; empty where none were."""
        if self._usage is not None and self._usage.usage_metadata:
            return reduce(add_usage, self._usage.usage_metadata.values())
        if message is None:
            return {}
        usage = _of_mixture(message).get("usage") or message.usage_metadata or {}
        return usage if any(usage.values()) or "total_cost" in usage else {}


def _cure(said: str, attempt: Attempt) -> str:
    """Name the setting that a model refuses, where it is the step that sets it."""
    arguments = attempt.arguments()
    for name, field in (("temperature", "temp"), ("max_tokens", "max_tokens")):
        value = attempt.agent.arguments.get(name)
        if value is not None and value == arguments[name] and name in said:
            return f" (the step sets {field}={value}; {field}=None leaves it out)"
    return ""


def _of_mixture(message: AIMessage) -> Mapping[str, Any]:
    """Give what an agent that is a mixture tells of its answer."""
    told = message.response_metadata.get("mixture")
    return told if isinstance(told, dict) else {}


def _reasons(message: AIMessage | None) -> list[str]:
    told = {} if message is None else _of_mixture(message)
    if told.get("status") != "degraded":
        return []
    return [one_line(str(reason)) for reason in told.get("reasons", ())]


class _Usage(UsageMetadataCallbackHandler):
    """Counts what the models in a chain or a graph report."""

    run_inline = True  # not in the event loop's pool, which may be held up
    ignore_chat_model = True


class Guard(BaseCallbackHandler):
    """Lets a sync call that was given up begin no further request.

    Such a call goes on, on its thread: an agent in its loop, a retry, a fallback.
    """

    run_inline = True
    raise_error = True

    def __init__(self, wait: Wait) -> None:
        self._wait = wait

    def on_chat_model_start(self, *_: Any, **__: Any) -> None:
        if self._wait.is_over:
            raise RuntimeError("the call was given up")

    on_llm_start = on_retry = on_chat_model_start


class _SignsOfLife(BaseCallbackHandler):
    """Tells that a model that streams is still writing, and whether it has begun."""

    run_inline = True
    raise_error = True

    def __init__(self, wait: Wait, sign: Callable[[], None]) -> None:
        self._wait = wait
        self._sign = sign
        self._parents: set[Any] = set()
        self.seen = False

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
        if self._wait.is_over:
            raise RuntimeError("the call was given up")
        self.seen = self.seen or (says and parent_run_id in self._parents)
        self._sign()


class _Redactor(BaseCallbackHandler):
    """Takes keys out of an error before a trace records it."""

    run_inline = True
    ignore_chat_model = True  # else core writes the messages out for it

    def __init__(self, agent: ResolvedAgent) -> None:
        self._agent = agent

    def on_llm_error(
        self, error: BaseException, *, response: Any = None, **kwargs: Any
    ) -> None:
        self._redact(error)
        # Core hands on what the provider's HTTP response said, too.
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


def _encodable(message: AIMessage) -> AIMessage:
    """Replace lone surrogates, which no request and no checkpoint can carry."""
    parts = {part: getattr(message, part) for part in _PARTS}
    try:
        in_texts(parts, str.encode)
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
"""Where a message holds what its model wrote."""


def _problem(message: AIMessage, call: Call) -> str | None:
    """Say why a message is no answer, or None where it is one."""
    refusal = _refusal(message)
    if refusal is not None:
        return f"refused to answer: {refusal}"
    if not message.text.strip() and not message.tool_calls:
        return _why_empty(message)
    if "check" in call:
        try:
            call["check"](message.text)
        except ValueError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001  # the reply was paid for all the same
            return describe(error)
    return None


def _refusal(message: AIMessage) -> str | None:
    words = message.additional_kwargs.get("refusal")
    if isinstance(words, str) and words:
        return words
    blocks = message.content if isinstance(message.content, list) else ()
    for block in blocks:
        if isinstance(block, dict) and block.get("type") == "refusal":
            return str(block.get("refusal") or message.text)
    if message.response_metadata.get("stop_reason") == "refusal":
        return message.text or "no words"
    return None


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
            f"{counted(usage.get('output_tokens', 0), 'token')} ({thought} of them "
            "reasoning)"
        )
    return f"empty answer (finish reason: {reason})" if reason else "empty answer"
