"""A chat model around a plain function, for the clients of mixture-llm programs."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeAlias

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, convert_to_openai_messages
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from langchain_mixture.errors import shown
from langchain_mixture.threads import in_thread, wait_for

ClientResult: TypeAlias = tuple[str | None, int | None, int | None]


ClientFunction: TypeAlias = Callable[..., Awaitable[ClientResult] | ClientResult]


DEFAULT_TEMP = 0.7
DEFAULT_MAX_TOKENS = 2048


class FunctionChatModel(BaseChatModel):
    """A chat model around a function, sync or async.

    The function is called as `fn(model=, messages=, temp=, max_tokens=)`, with
    messages as dicts of role and content, and returns the text and the numbers of
    tokens read and written. Errors that may pass (connections, timeouts, 429, 5xx) are
    retried: three attempts in all. A client that retries too multiplies that.

    Example:
        >>> def client(model, messages, temp, max_tokens):
        ...     return f"{model} read {messages[-1]['content']}", 3, 4
        >>> FunctionChatModel(model="m", fn=client).invoke("ions").text
        'm read ions'
    """

    model: str
    fn: ClientFunction
    cache: bool = False
    """Never cached: the cache's key would have the model's name, not the function."""

    @property
    def _llm_type(self) -> str:
        return "function"

    def _arguments(
        self, messages: list[BaseMessage], kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        for name in kwargs.keys() - {"temperature", "max_tokens"}:
            raise TypeError(
                f"{name} cannot be passed to a client function; allowed: temperature, "
                "max_tokens"
            )
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
            # An async function in sync code: most mixture-llm clients are async.
            if inspect.isawaitable(answer):
                answer = wait_for(answer)
            return self._result(answer, stop)

        def before(state: RetryCallState) -> None:
            if run_manager is not None and state.attempt_number > 1:
                run_manager.on_retry(state)

        return Retrying(**_RETRY, before=before)(attempt)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        arguments = self._arguments(messages, kwargs)
        is_async = inspect.iscoroutinefunction(self.fn)

        async def attempt() -> ChatResult:
            if is_async:
                answer = self.fn(**arguments)
            else:  # an async `__call__` of an object returns at once, too
                answer = await in_thread(partial(self.fn, **arguments))
            return self._result(
                await answer if inspect.isawaitable(answer) else answer, stop
            )

        async def before(state: RetryCallState) -> None:
            if run_manager is not None and state.attempt_number > 1:
                await run_manager.on_retry(state)

        return await AsyncRetrying(**_RETRY, before=before)(attempt)

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
    """Whether a client's error may pass: one of the network, a rate limit, the server.

    Example:
        >>> worth_retrying(ConnectionError()), worth_retrying(ValueError())
        (True, False)
    """
    status = _status(error)
    if status is not None:
        return status in (408, 409, 425, 429) or status >= 500
    # By name, so that no SDK is imported: openai's and httpx's base classes.
    names = {kind.__name__ for kind in type(error).__mro__}
    passing = {"APIConnectionError", "TransportError", "ConnectionError"}
    return isinstance(error, TimeoutError) or bool(names & passing)


def _status(error: object) -> int | None:
    # openai and httpx have `status_code`, aiohttp `status`, each of them on the error
    # or on its response. No SDK is imported here to find out which it is.
    for holder in (error, getattr(error, "response", None)):
        status = getattr(holder, "status_code", None) or getattr(holder, "status", None)
        if isinstance(status, int):
            return status
    return None


def _wait(state: RetryCallState) -> float:
    """Return the seconds until the next attempt.

    That is the server's `retry-after`, at most 60, or else a random time that grows
    with each attempt.
    """
    error = state.outcome.exception() if state.outcome else None
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        return min(60.0, max(0.0, float(headers.get("retry-after", ""))))
    except ValueError:
        return wait_random_exponential(multiplier=0.5, max=8)(state)


MAX_ATTEMPTS: Final = 3
"""The most attempts of a client function at one call."""


_RETRY: Final[dict[str, Any]] = {
    "retry": retry_if_exception(worth_retrying),
    "stop": stop_after_attempt(MAX_ATTEMPTS),
    "wait": _wait,
    "reraise": True,
}
