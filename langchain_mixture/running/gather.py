"""What a step came to: its record, its failure, the answer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

from langchain_core.messages import AIMessage

from langchain_mixture.errors import NoResponsesError, StepFailedError
from langchain_mixture.records import (
    HistoryRow,
    Reply,
    Response,
    Result,
    answered,
    row,
    usage_of,
)
from langchain_mixture.running.layer import Layer
from langchain_mixture.running.state import MixtureState

logger = logging.getLogger("langchain_mixture")


def update(
    layer: Layer,
    state: MixtureState,
    replies: Sequence[Reply],
    kept: list[Response],
    started: float,
) -> dict[str, Any]:
    """Record the step; decide whether it failed; answer if it is the last one.

    Raises:
        NoResponsesError: Nothing is left, nor was anything there before.
        StepFailedError: Every call failed, and `on_failure` is "raise".
    """
    before = layer.before(state)
    incoming = before["responses"]
    failures, notes = _reasons(layer, replies)
    reasons = [*failures, *notes]
    failed = any(reply["error"] is not None for reply in replies)
    if not kept and incoming and failed and _keeps(layer, replies):
        reasons.append(f"{layer.name}: no answer; the responses before it are kept")
        kept = incoming
    if layer.last:  # the last step may have made it empty
        kept = [r for r in kept if r["text"].strip() or r["tool_calls"]]
    history = [
        *before["history"],
        row(layer.step, layer.name, kept, replies, started),
    ]
    if not kept:
        raise _failed(layer, replies, incoming, history, reasons)
    result = Result(
        status="degraded" if failures else before["status"],
        reasons=[*before["reasons"], *reasons],
        responses=kept,
        history=history,
        usage=usage_of(history),
    )
    messages = {
        **({} if layer.first else state.get("answers", {})),
        **{reply["id"]: m for reply in replies if (m := reply["message"])},
    }
    if layer.last:
        answer = _answer(kept[0], messages.get(kept[0]["id"]), result)
        if answer.id in {message.id for message in state["messages"]}:
            answer.id = None  # a cached answer: it must not replace the first one
        return {"messages": [answer], "mixture": result, "answers": {}}
    return {"mixture": result, "answers": messages}


def _reasons(layer: Layer, replies: Sequence[Reply]) -> tuple[list[str], list[str]]:
    """Say what failed, or, where a quorum was met, on how many answers it rests."""
    # A failed call that was answered when a run was resumed is no failure.
    last_of = {(reply["index"], reply["attempt"]): reply for reply in replies}
    failures = [r for r in last_of.values() if r["error"] is not None]
    degraded = [
        f"{layer.name}: {reply['agent']} gave a degraded answer: {reason}"
        for reply in last_of.values()
        for reason in reply["reasons"]
    ]
    answers = len({r["index"] for r in last_of.values() if r["error"] is None})
    quorum = layer.step.quorum
    if failures and quorum is not None and answers >= quorum:
        calls = len({reply["index"] for reply in replies})
        rests = f"rests on {answers} of {calls} answers"
        note = f"{layer.name}: {rests}, as its quorum of {quorum} allows"
        return degraded, [note]
    reasons = [f"{layer.name}: {_said(layer, reply)}" for reply in failures]
    if failures and quorum is not None and answers:
        reasons.append(f"{layer.name}: quorum of {quorum} not met, {answers} answered")
    return [*reasons, *degraded], []


def _said(layer: Layer, reply: Reply) -> str:
    agent = layer.agents[reply["index"]]
    repeats = reply["attempt"] == 0 and agent.sample > 1
    name = f"{agent.name}#{agent.sample}" if repeats else reply["agent"]
    return f"{name} {_VERBS[reply['outcome']]} {reply['error']}"


def _keeps(layer: Layer, replies: Sequence[Reply]) -> bool:
    """Tell whether the responses go on where every call failed."""
    outcomes = {reply["outcome"] for reply in replies}
    if "broken off" in outcomes:
        return False
    stopped = bool(outcomes & {"given up", "not asked"})
    return stopped or layer.options.on_failure == "keep"


def _failed(
    layer: Layer,
    replies: Sequence[Reply],
    incoming: Sequence[Response],
    history: Sequence[HistoryRow],
    reasons: Sequence[str],
) -> StepFailedError:
    paid = [*incoming, *answered(replies)]
    why = "; ".join(reasons) or f"{layer.name}: no response was accepted"
    if incoming and reasons:
        message = f"{layer.name} has no answer: {why}; what was there before is in "
        message += "this error's .responses"
        return StepFailedError(message, responses=paid, history=history)
    message = f"no response is left: {why}"
    return NoResponsesError(message, responses=paid, history=history)


_VERBS: Final = {
    "failed": "failed:",
    "broken off": "broke off in the middle of the streamed answer:",
    "given up": "was",
    "not asked": "was",
}


def _answer(response: Response, message: AIMessage | None, result: Result) -> AIMessage:
    """Make the answer of the chosen response, of the model's own message if it is."""
    if result["status"] == "degraded":
        logger.warning("degraded answer: %s", "; ".join(result["reasons"]))
    if message is None:
        message = AIMessage(response["text"], tool_calls=response["tool_calls"])
    elif message.text != response["text"] or (
        message.tool_calls != response["tool_calls"]
    ):
        message = AIMessage(
            response["text"],
            id=message.id,
            name=message.name,
            tool_calls=response["tool_calls"],
            response_metadata=message.response_metadata,
            usage_metadata=message.usage_metadata,
        )
    about = {key: result[key] for key in ("status", "reasons", "usage")}
    metadata = {**message.response_metadata, "mixture": about}
    return message.model_copy(update={"response_metadata": metadata})
