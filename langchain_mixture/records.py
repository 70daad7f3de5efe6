"""The values of a pipeline: calls, replies, responses, and the record of a turn."""

# Annotations are not postponed here: where they are, a TypedDict takes what is
# NotRequired for required.

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NotRequired, TypeAlias

from langchain_core.messages import AIMessage, BaseMessage, ToolCall
from langchain_core.messages.utils import count_tokens_approximately
from typing_extensions import TypedDict


class Response(TypedDict):
    """One answer on its way through the pipeline."""

    id: str
    """Unique within a turn, such as `1_propose/0`."""
    text: str
    agent: str
    """The name of the agent that wrote it, in the pipeline."""
    step: str
    """The name of the step that wrote it, such as `1_propose`."""
    parents: list[str]
    """The ids of the responses that its author was shown."""
    tool_calls: list[ToolCall]
    analysis: NotRequired[str]
    """What `Analyze` wrote of the responses; the next step that writes is shown it."""


class Kept(list[Response]):
    """What a step keeps, and what is to be said of it; `keep` may return one.

    Example:
        >>> best: Response = {"id": "1_propose/0", "text": "Paris"}
        >>> Kept([best], note={"share": 0.75})
        Kept(1 response, note={'share': 0.75})
    """

    note: str | dict[str, Any] | None
    """For the step's row in the history: text, or plain data."""
    reason: str | None
    """Why the result is degraded, in words; None where it is not."""

    def __init__(
        self,
        responses: Iterable[Response],
        note: str | dict[str, Any] | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(responses)
        self.note = note
        self.reason = reason

    def __repr__(self) -> str:
        said = {"note": self.note, "reason": self.reason}
        shown = [f"{name}={value!r}" for name, value in said.items() if value]
        count = f"{len(self)} response{'s' * (len(self) != 1)}"
        return f"Kept({', '.join([count, *shown])})"


class Call(TypedDict):
    """One question to one agent."""

    messages: list[BaseMessage]
    parents: list[str]
    """The ids of the responses that the messages show."""
    check: NotRequired[Callable[[str], object]]
    """Called with the reply's text; the call has failed if it raises."""
    schema: NotRequired[Mapping[str, Any]]
    """A JSON schema, with a title, for the reply's text. A model whose profile says
    that it has structured output is bound to it; others are asked without."""


Outcome: TypeAlias = Literal[
    "answered", "failed", "broken off", "given up", "not asked"
]


class Reported(TypedDict):
    """The tokens that one model reported, as LangChain's `UsageMetadata` names them."""

    model_name: NotRequired[str]
    """The model's name, as its provider gives it."""
    model_provider: NotRequired[str]
    """The provider, as LangChain names it."""
    input_tokens: int
    output_tokens: int
    total_tokens: int
    """The provider's own total."""
    input_token_details: NotRequired[dict[str, int]]
    """The parts of the tokens read: cache_read, cache_creation, audio, …"""
    output_token_details: NotRequired[dict[str, int]]
    """The parts of the tokens written: reasoning, audio, …"""


class Reply(Response):
    """The record of one attempt at a call: a response, or why there is none."""

    index: int
    """The position of the call in its step, from 0."""
    attempt: int
    """0 for the step's agent, 1 and up for its fallbacks."""
    model: str
    """The model that was asked; see `LLMCall`."""
    error: str | None
    """Why there is no response, in one line; None if there is one."""
    started: float
    """When the call began, in seconds since the epoch."""
    time: float
    """The duration of the call, in seconds."""
    in_tokens: int
    out_tokens: int
    estimated_tokens: int
    """An estimate of the tokens read and written; 0 if the model reports its own."""
    cut_off: str | None
    """What cut the response off, such as `at its token limit`; None if it is whole."""
    message: AIMessage | None
    """The model's own message, where it may become the answer; beside an error only
    where nothing better is left, such as a refusal."""
    outcome: Outcome
    """`given up`: the run stopped waiting; `broken off`: failed in mid-stream."""
    reasons: list[str]
    """The reasons of a degraded answer, if the agent is a mixture; else empty."""
    estimated_out_tokens: NotRequired[int]
    """The part of the estimate that was written."""
    model_name: NotRequired[str]
    """The model that answered, as its message names it."""
    model_provider: NotRequired[str]
    """The provider that answered, as the message names it."""
    reported: NotRequired[list[Reported]]
    """The tokens that the models of the agent reported, one entry per model."""
    cached: NotRequired[bool]
    """Whether the answer came from LangChain's LLM cache."""


class LLMCall(TypedDict):
    """One call in the history."""

    model: str
    """The model that was asked, under its agent's name. Where several models may answer
    for an agent, as with fallbacks, it is the one that did, if its message says so."""
    agent: str
    """The name of the agent in the pipeline."""
    response: str | None
    """The id of its response; None if it has none."""
    time: float
    """Seconds."""
    in_tokens: int
    out_tokens: int
    error: NotRequired[str]
    estimated_tokens: NotRequired[int]
    """An estimate of the tokens read and written; present if none were reported."""
    cut_off: NotRequired[str]
    """What cut the response off: `at its token limit`, `by a content filter` or `by its
    provider`; absent if it is whole."""
    estimated_out_tokens: NotRequired[int]
    """The part of the estimate that was written; present if not 0."""
    model_name: NotRequired[str]
    """The model that answered, as its message names it; present if it does."""
    model_provider: NotRequired[str]
    """The provider that answered, as LangChain names it; present if it is known."""
    total_tokens: NotRequired[int]
    """The provider's own total; present if tokens were reported."""
    input_token_details: NotRequired[dict[str, int]]
    """The parts of `in_tokens` that were reported: cache_read, cache_creation, …"""
    output_token_details: NotRequired[dict[str, int]]
    """The parts of `out_tokens` that were reported: reasoning, audio, …"""
    models: NotRequired[list[Reported]]
    """The tokens of each model; present if another than `model_name` was asked, as in a
    chain, a graph or a mixture."""
    cached: NotRequired[bool]
    """Present and true if the answer came from LangChain's LLM cache: no token was
    read or written."""
    shown: NotRequired[list[str]]
    """The ids of the responses that the model was shown, in this order."""


class HistoryRow(TypedDict):
    """The record of one step."""

    step: str
    """The step's class, such as `Propose`."""
    name: str
    """The step's name in the graph, such as `1_propose`."""
    outputs: list[str]
    """The texts that the step passed on."""
    responses: list[str]
    """The ids of those texts, in the same order."""
    llm_calls: list[LLMCall]
    step_time: float
    """Seconds."""
    note: NotRequired[str | dict[str, Any]]
    """What the step says of its choice, such as the votes that it counted."""
    skipped: NotRequired[str]
    """The condition for which the step was skipped; absent if it ran."""


class Tokens(TypedDict):
    """Tokens as the models report them."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    """The sum of the providers' own totals."""
    estimated_tokens: int
    """An estimate for the calls that reported none; not part of the total."""
    input_token_details: NotRequired[dict[str, int]]
    """The parts of the tokens read, as models report them: cache_read, …"""
    output_token_details: NotRequired[dict[str, int]]
    """The parts of the tokens written, as models report them: reasoning, …"""


class Usage(Tokens):
    """Tokens of a whole turn."""

    models: dict[str, Tokens]
    """By the model of each call in the history."""
    steps: dict[str, Tokens]
    """By step, such as `1_propose`."""


class Result(TypedDict):
    """The outcome of a turn, apart from its answer."""

    status: Literal["complete", "degraded"]
    """`complete` only if in each step every call answered or the quorum was met, and
    the answer is whole."""
    reasons: list[str]
    """What went wrong, one sentence each. A quorum that was met without all answers
    and a proposal that was cut off are noted here too. Empty if nothing did."""
    responses: list[Response]
    """The responses that the last step kept; the first one is the answer."""
    history: list[HistoryRow]
    """One row per step of this turn."""
    usage: Usage
    """Tokens in total, by model, and by step."""
    analysis: NotRequired[str | None]
    """What the last `Analyze` wrote; None or absent where there was none."""
    cost: NotRequired[dict[str, Any] | None]
    """What the calls cost, in US dollars: the fields of `Cost`. None or absent without
    prices."""


def answered(replies: Sequence[Reply]) -> list[Response]:
    """Return the replies that have an answer, as responses.

    Example:
        >>> answered([])
        []
    """
    return [_response(reply) for reply in replies if reply["error"] is None]


def last_resort(replies: Sequence[Reply]) -> list[Response]:
    """Return what may be handed on where no reply is an answer: refusals, for one.

    Example:
        >>> last_resort([])
        []
    """
    return [_response(r) for r in replies if r["error"] is not None and r["message"]]


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
    started: float | None,
    note: str | dict[str, Any] | None = None,
) -> HistoryRow:
    """Return the history row of a step.

    Args:
        step: The step, which gives the row its class.
        name: The step's name in the graph.
        kept: The responses that the step passed on.
        replies: The replies to its calls, failures included.
        started: When the step's own node began, in seconds since the epoch; None = it
            was skipped.
        note: What the step says of its choice.
    """
    # The branches ran before the step's own node: the step began with its first call.
    now = time.time()
    begun = min([started or now, *(reply["started"] for reply in replies)])
    written: HistoryRow = {
        "step": type(step).__name__,
        "name": name,
        "outputs": [response["text"] for response in kept],
        "responses": [response["id"] for response in kept],
        "llm_calls": calls_of(replies, kept),
        "step_time": now - begun,
    }
    if note:
        written["note"] = note
    return written


def calls_of(replies: Sequence[Reply], kept: Sequence[Response] = ()) -> list[LLMCall]:
    """Return the history entries of the calls that were made.

    Args:
        replies: What came of them.
        kept: The responses that their step passed on. A last resort, such as a refusal,
            is a response only if it is among them.
    """
    last_resorts = {response["id"] for response in kept}
    # All attempts at a call have one id: its response is that of the last one.
    authors = {
        reply["id"]: reply
        for reply in replies
        if reply["error"] is None or (reply["message"] and reply["id"] in last_resorts)
    }
    return [
        _call(reply, reply["id"] if authors.get(reply["id"]) is reply else None)
        for reply in replies
        if reply["outcome"] != "not asked"
    ]


def _call(reply: Reply, response: str | None) -> LLMCall:
    call: LLMCall = {
        "model": reply["model"],
        "agent": reply["agent"],
        "response": response,
        "time": reply["time"],
        "in_tokens": reply["in_tokens"],
        "out_tokens": reply["out_tokens"],
    }
    if reply["error"] is not None:
        call["error"] = reply["error"]
    if reply["estimated_tokens"]:
        call["estimated_tokens"] = reply["estimated_tokens"]
    if reply["cut_off"]:
        call["cut_off"] = reply["cut_off"]
    _add_reported(call, reply)
    if reply["parents"]:
        call["shown"] = reply["parents"]
    return call


def _add_reported(call: LLMCall, reply: Reply) -> None:
    """Add what is known of a call's model and tokens; see the keys of `LLMCall`."""
    if written := reply.get("estimated_out_tokens", 0):
        call["estimated_out_tokens"] = written
    if "model_name" in reply:
        call["model_name"] = reply["model_name"]
    if "model_provider" in reply:
        call["model_provider"] = reply["model_provider"]
    if reply.get("cached"):
        call["cached"] = True
    reported = reply.get("reported")
    if not reported:
        return
    call["total_tokens"] = sum(model["total_tokens"] for model in reported)
    if read := summed(model.get("input_token_details") for model in reported):
        call["input_token_details"] = read
    if written_of := summed(model.get("output_token_details") for model in reported):
        call["output_token_details"] = written_of
    if any(m.get("model_name") != reply.get("model_name") for m in reported):
        call["models"] = reported


def summed(details: Iterable[object]) -> dict[str, int]:
    """Add up the details of tokens, name by name.

    Example:
        >>> summed([{"cache_read": 2}, None, {"cache_read": 3, "audio": 1}])
        {'cache_read': 5, 'audio': 1}
    """
    sums: dict[str, int] = {}
    for given in details:
        if given and isinstance(given, Mapping):
            for name, number in given.items():
                sums[name] = sums.get(name, 0) + (number or 0)
    return sums


def usage_with(usage: Usage, row: HistoryRow) -> Usage:
    """Add the tokens of one more step, by model and by step.

    Step by step, because adding up the whole history after each would take a fifth of
    a run of 32 steps.

    Example:
        >>> usage_with(NO_USAGE, row(None, "1_take", [], [], None))["total_tokens"]
        0
    """
    step, models = _no_tokens(), dict(usage["models"])
    for call in row["llm_calls"]:
        _add(step, call)
        name = call["model"]
        before = models.get(name)
        # The tokens of the steps before must stay as they are.
        models[name] = _no_tokens() if before is None else {**before}
        _add(models[name], call)
    total: Usage = {**usage, "models": models, "steps": dict(usage["steps"])}
    if row["llm_calls"]:
        _add_tokens(total, step)
        total["steps"][row["name"]] = step
    return total


def _no_tokens() -> Tokens:
    return {
        "input_tokens": 0,
        "output_tokens": 0,
        "total_tokens": 0,
        "estimated_tokens": 0,
    }


NO_USAGE: Final = Usage(**_no_tokens(), models={}, steps={})
"""The usage of a turn before its first step."""


def _add(tokens: Tokens, call: LLMCall) -> None:
    read, written = call["in_tokens"], call["out_tokens"]
    tokens["input_tokens"] += read
    tokens["output_tokens"] += written
    tokens["total_tokens"] += call.get("total_tokens", read + written)
    tokens["estimated_tokens"] += call.get("estimated_tokens", 0)
    _add_details(tokens, call)


def _add_tokens(tokens: Tokens, more: Tokens) -> None:
    tokens["input_tokens"] += more["input_tokens"]
    tokens["output_tokens"] += more["output_tokens"]
    tokens["total_tokens"] += more["total_tokens"]
    tokens["estimated_tokens"] += more["estimated_tokens"]
    _add_details(tokens, more)


def _add_details(tokens: Tokens, more: LLMCall | Tokens) -> None:
    if details := more.get("input_token_details"):
        tokens["input_token_details"] = summed(
            [tokens.get("input_token_details"), details]
        )
    if details := more.get("output_token_details"):
        tokens["output_token_details"] = summed(
            [tokens.get("output_token_details"), details]
        )


def estimated(messages: Sequence[BaseMessage]) -> int:
    """Estimate the tokens of messages: four characters a token, 85 a picture or file.

    Example:
        >>> estimated([AIMessage("four" * 100)])
        106
    """
    # Core counts the data of a file or a recording as text: 1 MB would be 350,000
    # tokens (langchain-core 1.8.3). `test_limits.py` holds it.
    return count_tokens_approximately([_without_data(message) for message in messages])


def _without_data(message: BaseMessage) -> BaseMessage:
    if isinstance(message.content, str):
        return message
    # Core counts every picture as 85 tokens, so a picture stands in for all other data.
    blocks = [
        block if isinstance(block, str) or _is_small(block) else {"type": "image"}
        for block in message.content
    ]
    return message.model_copy(update={"content": blocks})


def _is_small(block: Mapping[str, Any]) -> bool:
    return block.get("type") in ("text", "reasoning", "thinking", "tool_use")
