"""A plain function as a chat model: the clients that mixture-llm programs bring."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeAlias, TypeVar

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, convert_to_openai_messages
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables.config import run_in_executor
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from langchain_mixture.errors import shown

T = TypeVar("T")


ClientResult: TypeAlias = tuple[str | None, int | None, int | None]


ClientFunction: TypeAlias = Callable[..., Awaitable[ClientResult] | ClientResult]


DEFAULT_TEMP = 0.7
DEFAULT_MAX_TOKENS = 2048


class FunctionChatModel(BaseChatModel):
    """A chat model around a function, sync or async.

    The function is called as `fn(model=, messages=, temp=, max_tokens=)`, with
    messages as dicts of role and content, and returns the text and the numbers of
    tokens read and written. What may pass (connections, timeouts, 429, 5xx) is tried
    three times; a client that retries by itself multiplies that.

    Example:
        >>> def client(model, messages, temp, max_tokens):
        ...     return f"{model} read {messages[-1]['content']}", 3, 4
        >>> FunctionChatModel(model="m", fn=client).invoke("ions").text
        'm read ions'
    """

    model: str
    fn: ClientFunction
    cache: bool = False
    """Never cached: what the function would answer cannot be told from its name."""

    @property
    def _llm_type(self) -> str:
        return "function"

    def _arguments(
        self, messages: list[BaseMessage], kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "model": self.model,
            "messages": convert_to_openai_messages(messages),
            "temp": kwargs.get("temperature", DEFAULT_TEMP),
            "max_tokens": kwargs.get("max_tokens", DEFAULT_MAX_TOKENS),
        }

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        arguments = self._arguments(messages, kwargs)

        def attempt() -> ChatResult:
            answer = self.fn(**arguments)
            if inspect.isawaitable(answer):
                answer = wait_for(answer)
            return self._result(answer, stop)

        return Retrying(**_RETRY)(attempt)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        arguments = self._arguments(messages, kwargs)

        async def attempt() -> ChatResult:
            answer = await run_in_executor(None, self.fn, **arguments)
            return self._result(
                await answer if inspect.isawaitable(answer) else answer, stop
            )

        return await AsyncRetrying(**_RETRY)(attempt)

    def _result(self, answer: object, stop: list[str] | None) -> ChatResult:
        match answer:
            case (str() | None as text, int() | None as read, int() | None as written):
                usage = UsageMetadata(
                    input_tokens=read or 0,
                    output_tokens=written or 0,
                    total_tokens=(read or 0) + (written or 0),
                )
                for end in stop or ():
                    text = text and text.split(end)[0]
                message = AIMessage(
                    text or "",
                    usage_metadata=usage,
                    response_metadata={"model_name": self.model},
                )
                return ChatResult(generations=[ChatGeneration(message=message)])
        raise TypeError(
            f"the client returned {shown(answer)} for {self.model!r}; it must return "
            "(text, input tokens, output tokens)"
        )


def worth_retrying(error: BaseException) -> bool:
    """Tell whether a client's error may pass: the network, a limit, the server.

    Example:
        >>> worth_retrying(ConnectionError()), worth_retrying(ValueError())
        (True, False)
    """
    status = _status(error)
    if status is not None:
        return status in (408, 409, 425, 429) or status >= 500
    names = {kind.__name__ for kind in type(error).__mro__}
    passing = {"APIConnectionError", "TransportError", "ConnectionError"}
    return isinstance(error, TimeoutError) or bool(names & passing)


def _status(error: object) -> int | None:
    for holder in (error, getattr(error, "response", None)):
        status = getattr(holder, "status_code", None) or getattr(holder, "status", None)
        if isinstance(status, int):
            return status
    return None


def _wait(state: RetryCallState) -> float:
    """Wait as long as the server asks, a minute at most; else longer each time."""
    error = state.outcome.exception() if state.outcome else None
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        return min(60.0, float(headers.get("retry-after", "")))
    except ValueError:
        return wait_random_exponential(multiplier=0.5, max=8)(state)


MAX_ATTEMPTS: Final = 3
"""How often a function client is asked at the most, for one call."""


_RETRY: Final[dict[str, Any]] = {
    "retry": retry_if_exception(worth_retrying),
    "stop": stop_after_attempt(MAX_ATTEMPTS),
    "wait": _wait,
    "reraise": True,
}


def wait_for(awaitable: Awaitable[T]) -> T:
    """Wait in sync code for an awaitable.

    All run on one event loop on a thread of its own: an async HTTP client belongs to
    the first loop that it meets, and the caller may have a loop running (notebooks).

    Example:
        >>> wait_for(asyncio.sleep(0, "done"))
        'done'
    """

    async def waiting() -> T:
        return await awaitable

    loop = _loop()
    if threading.current_thread() is loop.thread:  # waiting here would be for ever
        with ThreadPoolExecutor(1) as executor:
            return executor.submit(asyncio.run, waiting()).result()
    return asyncio.run_coroutine_threadsafe(waiting(), loop.loop).result()


class _LoopThread:
    """An event loop that runs on a daemon thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(
            target=self.loop.run_forever, name="langchain-mixture", daemon=True
        )
        self.thread.start()


_loops: dict[int, _LoopThread] = {}


_loops_lock = threading.Lock()


def _loop() -> _LoopThread:
    """Give this process's loop: a fork has none of its parent's threads."""
    with _loops_lock:
        if os.getpid() not in _loops:
            _loops[os.getpid()] = _LoopThread()
        return _loops[os.getpid()]


if hasattr(os, "register_at_fork"):  # the lock may be held when the fork happens
    os.register_at_fork(
        before=_loops_lock.acquire,
        after_in_parent=_loops_lock.release,
        after_in_child=_loops_lock.release,
    )
