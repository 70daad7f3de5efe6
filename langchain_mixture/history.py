"""The history of a turn, and what it adds up to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from typing_extensions import TypedDict

from langchain_mixture.steps import HistoryRow, LLMCall, Reply, Response, Step


class Tokens(TypedDict):
    """Tokens read, written, and both."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class Usage(Tokens):
    """Tokens of a whole turn."""

    models: dict[str, Tokens]
    """By model, as the pipeline names it."""
    steps: dict[str, Tokens]
    """By step, such as `1_propose`."""


def row(
    step: Step,
    name: str,
    kept: Sequence[Response],
    replies: Sequence[Reply],
    started: float,
) -> HistoryRow:
    """Write down what a step did; `started` is when its own node began, in seconds."""
    begun = min([started, *(reply["started"] for reply in replies)])
    return {
        "step": type(step).__name__,
        "name": name,
        "outputs": [response["text"] for response in kept],
        "responses": [response["id"] for response in kept],
        "llm_calls": [_call(r) for r in replies if r["outcome"] != "not asked"],
        "step_time": time.time() - begun,
    }


def _call(reply: Reply) -> LLMCall:
    call: LLMCall = {
        "model": reply["agent"],
        "time": reply["time"],
        "in_tokens": reply["in_tokens"],
        "out_tokens": reply["out_tokens"],
    }
    if reply["error"] is not None:
        call["error"] = reply["error"]
    if reply["estimated_tokens"]:
        call["estimated_tokens"] = reply["estimated_tokens"]
    if reply["truncated"]:
        call["truncated"] = True
    return call


def usage_of(history: Sequence[HistoryRow]) -> Usage:
    """Add up the tokens of all calls, by model and by step.

    Example:
        >>> usage_of([])["total_tokens"]
        0
    """
    calls = [(row["name"], call) for row in history for call in row["llm_calls"]]

    def by(key: Callable[[str, LLMCall], str]) -> dict[str, Tokens]:
        keys = dict.fromkeys(key(*call) for call in calls)
        return {k: _total(c for s, c in calls if key(s, c) == k) for k in keys}

    total = _total(call for _, call in calls)
    return {
        **total,
        "models": by(lambda _, call: call["model"]),
        "steps": by(lambda step, _: step),
    }


def _total(calls: Iterable[LLMCall]) -> Tokens:
    counted = list(calls)
    read = sum(call["in_tokens"] for call in counted)
    written = sum(call["out_tokens"] for call in counted)
    return {
        "input_tokens": read,
        "output_tokens": written,
        "total_tokens": read + written,
    }
