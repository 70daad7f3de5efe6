"""What a pipeline will cost, before it runs."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import BaseMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue

from langchain_mixture.agents.resolve import Client, ResolvedAgent
from langchain_mixture.options import Options
from langchain_mixture.prices import LISTED, Prices, check_prices, in_dollars
from langchain_mixture.records import Call, Reply, Response, answered, estimated
from langchain_mixture.runnables import limit_of
from langchain_mixture.running.layer import Layer, layers_of
from langchain_mixture.running.limits import prices_of
from langchain_mixture.steps.base import Step

ASSUMED: Final = 1000
"""Tokens that a reply is taken to have where nothing limits it."""


@dataclass(frozen=True)
class Estimate:
    """What a pipeline will ask, read and write, if every reply has its full length.

    Example:
        >>> print(Estimate(calls=7, input_tokens=4200, output_tokens=3500, cost=0.05))
        7 calls, 4,200 tokens read, at most 3,500 written, about $0.05
    """

    calls: int
    """At most, if none fails: fallbacks and retries are not counted, and an agent that
    is a mixture or another graph counts as one call."""
    input_tokens: int
    """Read, at four characters a token; the schemas of tools are not counted."""
    output_tokens: int
    """Written at most."""
    cost: float | None
    """US dollars for all this; None if a model has no price."""
    unpriced: tuple[str, ...] = ()
    """The models without a price."""
    unlimited: tuple[str, ...] = ()
    """The agents whose replies nothing limits: neither `max_tokens` of the step nor of
    the model. Each of their replies counts as 1,000 tokens."""

    def __str__(self) -> str:
        dollars = "" if self.cost is None else f", about {in_dollars(self.cost)}"
        priceless = f"; no price: {', '.join(self.unpriced)}" if self.unpriced else ""
        unlimited = ", ".join(self.unlimited)
        return (
            f"{self.calls} calls, {self.input_tokens:,} tokens read, at most "
            f"{self.output_tokens:,} written{dollars}{priceless}"
            + (f"; no limit, taken as {ASSUMED:,}: {unlimited}" if unlimited else "")
        )


def estimate(
    steps: Sequence[Step],
    messages: LanguageModelInput,
    prices: Prices | None = None,
    client: Client = None,
) -> Estimate:
    """Estimate what a pipeline will cost for a conversation, without asking anyone.

    The steps write their real requests, over responses of full length.

    Args:
        steps: The pipeline.
        messages: The conversation, or a question.
        prices: See `create_mixture`; None = "genai-prices". `{}` = tokens alone.
        client: See `create_mixture`.

    Raises:
        InvalidMixtureError: The pipeline, the client or the prices cannot be used, or
            the package genai-prices is not installed.

    Example:
        ```python
        from langchain_mixture import estimate, self_moa

        prices = {"gpt-4o": {"input": 2.5, "cached_read": 1.25, "output": 10.0}}
        print(estimate(self_moa("openai:gpt-4o"), "What is an ion?", prices))
        ```
    """
    prices = LISTED if prices is None else prices
    check_prices(prices)
    conversation = _conversation(messages)
    bill = _Bill(prices)
    responses: list[Response] = []
    for layer in layers_of(steps, client, Options()):
        calls = _calls(layer, conversation, responses)
        replies = [
            _reply(layer, index, call, bill.add(call, layer.agents[index]))
            for index, call in enumerate(calls)
        ]
        responses = _kept(layer, responses, replies)
    return bill.estimate()


def _conversation(messages: LanguageModelInput) -> list[BaseMessage]:
    if isinstance(messages, str):
        messages = [("user", messages)]
    if isinstance(messages, PromptValue):
        return messages.to_messages()
    return convert_to_messages(messages)


def _calls(
    layer: Layer, conversation: Sequence[BaseMessage], responses: Sequence[Response]
) -> Sequence[Call]:
    return layer.step.calls(conversation, responses) if layer.agents else ()


def _kept(
    layer: Layer, responses: list[Response], replies: Sequence[Reply]
) -> list[Response]:
    # A transform is not run: its function may be slow, or ask a model.
    kept = layer.step.keep(responses, replies) if replies else responses
    if inspect.iscoroutine(kept):  # a user's, which is not run, either
        kept.close()
        kept = answered(replies)
    return list(kept if isinstance(kept, list) else responses)[: layer.most]


def _reply(layer: Layer, index: int, call: Call, written: int) -> Reply:
    # Four characters a token, as they are counted.
    text = ("word " * written)[: 4 * written]
    return {
        "id": f"{layer.name}/{index}",
        "text": text,
        "agent": layer.agents[index].name,
        "model": layer.agents[index].name,
        "step": layer.name,
        "parents": call["parents"],
        "tool_calls": [],
        "index": index,
        "attempt": 0,
        "error": None,
        "started": 0.0,
        "time": 0.0,
        "in_tokens": 0,
        "out_tokens": written,
        "estimated_tokens": 0,
        "cut_off": None,
        "message": None,
        "outcome": "answered",
        "reasons": [],
    }


class _Bill:
    """Adds calls up."""

    def __init__(self, prices: Prices) -> None:
        self._prices = prices
        self._calls = self._read = self._written = 0
        self._dollars = 0.0
        self._unpriced: dict[str, None] = {}
        self._unlimited: dict[str, None] = {}

    def add(self, call: Call, agent: ResolvedAgent) -> int:
        """Add a call, and return the tokens that its reply may have."""
        limit = agent.arguments.get("max_tokens") or limit_of(agent.runnable)
        if limit is None:
            self._unlimited[agent.name] = None
        read, written = estimated(call["messages"]), int(limit or ASSUMED)
        self._calls += 1
        self._read += read
        self._written += written
        tokens = {"input_tokens": read, "output_tokens": written}
        dearest = 0.0
        for name, dollars in prices_of(agent, self._prices):
            if dollars is None:
                self._unpriced[name] = None
            else:
                dearest = max(dearest, dollars(tokens))
        self._dollars += dearest
        return written

    def estimate(self) -> Estimate:
        """Return the sums."""
        return Estimate(
            calls=self._calls,
            input_tokens=self._read,
            output_tokens=self._written,
            cost=None if self._unpriced else self._dollars,
            unpriced=tuple(self._unpriced),
            unlimited=tuple(self._unlimited),
        )
