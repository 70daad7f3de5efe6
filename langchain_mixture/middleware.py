"""MixtureMiddleware: an agent that keeps its own model and is advised by others."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from langchain_core.callbacks import AsyncCallbackManager, CallbackManager
from langchain_core.messages import AIMessage, BaseMessage

from langchain_mixture.advice import (
    Advice,
    Advised,
    Consult,
    advised,
    fingerprint,
    is_answer,
    place_advice,
    telling,
)
from langchain_mixture.agents.resolve import Client
from langchain_mixture.errors import MixtureError, StepFailedError
from langchain_mixture.graph import build
from langchain_mixture.model.graph_model import distinct
from langchain_mixture.model.nesting import around, inner_config
from langchain_mixture.options import OnFailure, Options
from langchain_mixture.prices import Prices, cost
from langchain_mixture.records import Response
from langchain_mixture.running.layer import layers_of
from langchain_mixture.running.request import Request
from langchain_mixture.running.run import Caller, Run
from langchain_mixture.steps.base import Timeout
from langchain_mixture.steps.checks import check_value
from langchain_mixture.steps.program import Steps
from langchain_mixture.steps.prompts import ADVICE, analysis_of, numbered

try:
    from langchain.agents.middleware import (
        AgentMiddleware,
        ModelRequest,
        ModelResponse,
    )
except ImportError as error:
    raise ImportError(
        "langchain_mixture.middleware needs the package langchain: "
        'pip install "langchain-mixture[langchain]"'
    ) from error

logger = logging.getLogger("langchain_mixture")


class MixtureMiddleware(AgentMiddleware[Any, Any]):
    """Advice of other models for an agent, once a user turn.

    The steps are asked when the user has spoken. Their last responses are joined to the
    user's message in each request to the agent's own model, which stays what it is: its
    tools, schema, streaming, prompt caching and fallbacks, and all other middleware.
    The responses travel in the metadata of the turn's first answer that calls tools. A
    panel that fails, or passes its `deadline`, costs the advice and nothing else: the
    logger `langchain_mixture` warns once, and the turn goes on without.

    Args:
        steps: Whom to ask, such as `[Propose([...])]`; no step that fuses is needed.
        consult: When they are asked: "turn" = once when the user has spoken; n = anew
            after n answers; a function of the messages = when it returns True.
        client: Turns names into models; see `create_mixture`.
        name: Tells two of these middlewares apart.
        on_failure: See `create_mixture`.
        timeout: Seconds per call; see `create_mixture`.
        deadline: Seconds for the whole panel; see `create_mixture`.
        max_calls: See `create_mixture`.
        max_total_tokens: See `create_mixture`.
        max_cost: US dollars for the whole panel; see `create_mixture`.
        prices: What tokens cost; see `create_mixture`. Given, the answer for which the
            panel was asked has the panel's `cost` in `response_metadata["mixture"]`.

    Raises:
        InvalidMixtureError: A step, an agent or the client cannot be used.

    Example:
        ```python
        from langchain.agents import create_agent

        from langchain_mixture import Propose
        from langchain_mixture.middleware import MixtureMiddleware

        advice = MixtureMiddleware([Propose(["openai:gpt-4o", "openai:gpt-4.1"])])
        agent = create_agent("openai:gpt-4.1-mini", middleware=[advice])
        ```
    """

    def __init__(
        self,
        steps: Steps,
        *,
        consult: Consult = "turn",
        client: Client = None,
        name: str = "mixture",
        on_failure: OnFailure = "raise",
        timeout: Timeout = "default",
        deadline: float | None = None,
        max_calls: int | None = None,
        max_total_tokens: int | None = None,
        max_cost: float | None = None,
        prices: Prices | None = None,
    ) -> None:
        super().__init__()
        check_value(consult, "consult", "MixtureMiddleware")
        options = Options(
            on_failure,
            timeout,
            deadline,
            max_calls,
            max_total_tokens,
            max_cost,
            prices,
        )
        layers = layers_of(steps, client, options)
        # None of them answers: the agent's model does.
        panel = [replace(layer, answering=False, advised=False) for layer in layers]
        self._graph: Any = build(panel, name=name)
        self._consult = consult
        self._prices = options.priced_by
        self._name = name
        self._by = fingerprint(name, layers)

    @property
    def name(self) -> str:
        """The middleware's name, which must be its own in an agent."""
        return self._name

    def wrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], ModelResponse[Any]],
    ) -> ModelResponse[Any]:
        about = self._advised(request)
        new = None
        if about.asks:
            inputs, run = self._asked(request, about, around(CallbackManager))
            config = inner_config(CallbackManager, run.caller)
            try:
                new = self._graph.invoke(inputs, config, run=run)["mixture"]
            except MixtureError as error:
                new = self._failed(error)
        response = handler(self._shown(request, about, new))
        return self._carrying(response, new)

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        about = self._advised(request)
        new = None
        if about.asks:
            inputs, run = self._asked(request, about, around(AsyncCallbackManager))
            config = inner_config(AsyncCallbackManager, run.caller)
            try:
                state = await self._graph.ainvoke(inputs, config, run=run)
                new = state["mixture"]
            except MixtureError as error:
                new = self._failed(error)
        response = await handler(self._shown(request, about, new))
        return self._carrying(response, new)

    def _advised(self, request: ModelRequest[Any]) -> Advised:
        return advised(request.messages, self._consult, self._by, counts=is_answer)

    def _asked(
        self, request: ModelRequest[Any], about: Advised, caller: Caller
    ) -> tuple[dict[str, Any], Run]:
        system = [] if request.system_message is None else [request.system_message]
        at = about.at + len(system)
        offered = Request(tools=request.tools, advised=replace(about, past=(), at=at))
        messages = distinct([*system, *request.messages])
        return {"messages": messages}, Run(caller, offered)

    def _failed(self, error: MixtureError) -> Mapping[str, Any]:
        logger.warning("%s: no advice in this turn: %s", self._name, error)
        failed: dict[str, Any] = {"responses": []}
        if self._prices is not None and isinstance(error, StepFailedError):
            with suppress(Exception):  # a function of prices: the warning says it
                failed["cost"] = cost(error.history, self._prices).record()
        return failed

    def _shown(
        self,
        request: ModelRequest[Any],
        about: Advised,
        new: Mapping[str, Any] | None,
    ) -> ModelRequest[Any]:
        now = about.now if new is None else Advice(about.at, new["responses"])
        shown = [*about.past, *([now] if now is not None else [])]
        messages: list[BaseMessage] = place_advice(request.messages, shown, _block)
        return request.override(messages=messages)  # type: ignore[arg-type]  # a list of a union

    def _carrying(
        self, response: ModelResponse[Any], new: Mapping[str, Any] | None
    ) -> ModelResponse[Any]:
        """Add the advice, where the turn may go on, and what it cost."""
        if new is None:
            return response
        result = list(response.result)
        for index, message in enumerate(result):
            if isinstance(message, AIMessage):
                told: dict[str, Any] = {"by": self._by}
                if message.tool_calls or self._consult != "turn":
                    told["responses"] = [dict(r) for r in new["responses"]]
                if new.get("cost") is not None:
                    told["cost"] = new["cost"]
                if len(told) > 1:
                    result[index] = telling(message, told)
                break
        return replace(response, result=result)


def _block(responses: Sequence[Response]) -> str | None:
    if not responses:
        return None
    parts = [ADVICE, numbered(responses), analysis_of(responses)]
    return "\n\n".join(filter(None, parts))
