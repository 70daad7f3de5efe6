"""What goes through a pipeline, and what is written down of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NotRequired, TypeAlias

from langchain_core.messages import AIMessage, BaseMessage, ToolCall
from langchain_core.messages.utils import count_tokens_approximately
from typing_extensions import TypedDict


class Response(TypedDict):
    """One answer on its way through the pipeline."""

    id: str
    """Unique within a turn, such as `1_propose/0`."""
    text: str
    agent: str
    """The name of the model that wrote it."""
    step: str
    """The name of the step that wrote it, such as `1_propose`."""
    parents: list[str]
    """The ids of the responses that its author was shown."""
    tool_calls: list[ToolCall]


class Call(TypedDict):
    """One question to one agent."""

    messages: list[BaseMessage]
    parents: list[str]
    check: NotRequired[Callable[[str], object]]
    """Raises where the reply's text is of no use; the call has then failed."""


Outcome: TypeAlias = Literal[
    "answered", "failed", "broken off", "given up", "not asked"
]


class Reply(Response):
    """What came of one call: a response, or why there is none."""

    index: int
    """The position of the call among those of its step."""
    attempt: int
    """0 for the step's agent, more for its fallbacks."""
    error: str | None
    """Why there is no response, in one line; None where there is one."""
    started: float
    """When the call began, in seconds since the epoch."""
    time: float
    """How long it took, in seconds."""
    in_tokens: int
    out_tokens: int
    estimated_tokens: int
    """Read and written, by estimate, where the model reports none; else 0."""
    truncated: bool
    """Whether the answer was cut off at the token limit."""
    message: AIMessage | None
    """The model's own message, where it may become the answer."""
    outcome: Outcome
    """`given up`: not waited for; `broken off`: after some of it was streamed."""
    reasons: list[str]
    """Why the agent, a mixture itself, calls its answer a degraded one; else empty."""


class LLMCall(TypedDict):
    """One call in the history."""

    model: str
    time: float
    """Seconds."""
    in_tokens: int
    out_tokens: int
    error: NotRequired[str]
    estimated_tokens: NotRequired[int]
    """Read and written, by estimate; present where the model reported none."""
    truncated: NotRequired[bool]
    """Present and true where the answer was cut off at the token limit."""


class HistoryRow(TypedDict):
    """What one step did."""

    step: str
    """The step's class, such as `Propose`."""
    name: str
    """The step's name in the graph, such as `1_propose`."""
    outputs: list[str]
    """The texts that the step handed on."""
    responses: list[str]
    """Their ids: what was drawn, chosen, kept, in its order."""
    llm_calls: list[LLMCall]
    step_time: float
    """Seconds."""


class Tokens(TypedDict):
    """Tokens read, written, and both, as the models report them."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    estimated_tokens: int
    """Beside these: the tokens, by estimate, of calls that reported none."""


class Usage(Tokens):
    """Tokens of a whole turn."""

    models: dict[str, Tokens]
    """By model, as the pipeline names it."""
    steps: dict[str, Tokens]
    """By step, such as `1_propose`."""


class Result(TypedDict):
    """What a turn came to, beside its answer."""

    status: Literal["complete", "degraded"]
    """`complete` only if every call has answered, or the step's quorum was met."""
    reasons: list[str]
    """What went wrong, in words; also, where a quorum was met, on how many answers
    its step rests. Empty where every call has answered."""
    responses: list[Response]
    """The responses that the last step left; the first one is the answer."""
    history: list[HistoryRow]
    """One row a step, of this turn."""
    usage: Usage
    """Tokens in all, and by model and step."""


def answered(replies: Sequence[Reply]) -> list[Response]:
    """Give the replies that have an answer, as responses.

    Example:
        >>> answered([])
        []
    """
    return [_response(reply) for reply in replies if reply["error"] is None]


def _response(reply: Reply) -> Response:
    return {
        "id": reply["id"],
        "text": reply["text"],
        "agent": reply["agent"],
        "step": reply["step"],
        "parents": reply["parents"],
        "tool_calls": reply["tool_calls"],
    }


def row(
    step: object,
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
        "llm_calls": calls_of(replies),
        "step_time": time.time() - begun,
    }


def calls_of(replies: Sequence[Reply]) -> list[LLMCall]:
    """Write down the calls that were made."""
    return [_call(reply) for reply in replies if reply["outcome"] != "not asked"]


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
        "estimated_tokens": sum(call.get("estimated_tokens", 0) for call in counted),
    }


def estimated(messages: Sequence[BaseMessage]) -> int:
    """Estimate the tokens of messages: four characters a token, 85 a picture or file.

    Example:
        >>> estimated([AIMessage("four" * 100)])
        106
    """
    # Core's count takes the data of a file or of a sound for text.
    return count_tokens_approximately([_without_data(message) for message in messages])


def _without_data(message: BaseMessage) -> BaseMessage:
    if isinstance(message.content, str):
        return message
    blocks = [
        block if isinstance(block, str) or _is_small(block) else {"type": "image"}
        for block in message.content
    ]
    return message.model_copy(update={"content": blocks})


def _is_small(block: Mapping[str, Any]) -> bool:
    return block.get("type") in ("text", "reasoning", "thinking", "tool_use")
