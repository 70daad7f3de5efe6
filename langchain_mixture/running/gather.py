"""The result of a step: its history row, its failure, the answer."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from langchain_core.messages import AIMessage

from langchain_mixture.advice import inner
from langchain_mixture.errors import (
    NoResponsesError,
    StepFailedError,
    of_kind,
)
from langchain_mixture.prices import cost
from langchain_mixture.records import (
    HistoryRow,
    Kept,
    Reply,
    Response,
    Result,
    answered,
    last_resort,
    row,
    usage_with,
)
from langchain_mixture.running.layer import Layer
from langchain_mixture.running.routing import Route
from langchain_mixture.running.run import Run
from langchain_mixture.running.state import MixtureState, thinned
from langchain_mixture.running.waiting import Quorum

logger = logging.getLogger("langchain_mixture")


@dataclass(frozen=True)
class Settled:
    """What a step comes to, before it is known where the run goes on."""

    replies: Sequence[Reply]
    kept: list[Response]
    """The responses that go on; none where the step has failed."""
    failures: list[str]
    """Why the result is degraded, in words."""
    notes: list[str]
    """What else is to be told."""
    note: str | dict[str, Any] | None
    """For the history row."""
    started: float
    """When the step's own node began, in seconds since the epoch."""


def settle(
    layer: Layer,
    state: MixtureState,
    replies: Sequence[Reply],
    kept: list[Response],
    quorum: Quorum,
    started: float,
) -> Settled:
    """Return what a step comes to: its own responses, or those it was given."""
    incoming = layer.before(state)["responses"]
    failures, notes = _reasons(layer, replies, quorum)
    said = kept if isinstance(kept, Kept) else Kept(kept)
    if said.reason:
        failures.append(f"{layer.name}: {said.reason}")
    failed = any(reply["error"] is not None for reply in replies)
    if not kept and incoming and failed and _passes_on(layer, replies):
        notes.append(f"{layer.name}: no answer; the responses before it are kept")
        kept = incoming
    if not kept and layer.answering:
        kept = last_resort(replies)[-1:]
    return Settled(replies, kept, failures, notes, said.note, started)


def update(
    layer: Layer, state: MixtureState, settled: Settled, run: Run, route: Route
) -> dict[str, Any]:
    """Return a step's update of the state, which at the end has the answer.

    Raises:
        NoResponsesError: The step has no response, and was given none.
        StepFailedError: All calls failed, and `on_failure` is "raise".
    """
    before = layer.before(state)
    replies, kept = settled.replies, settled.kept
    messages = {
        **({} if layer.first else state.get("answers", {})),
        **{reply["id"]: m for reply in replies if (m := reply["message"])},
    }
    if route.ends:  # a user's function may have made a text empty
        kept = [r for r in kept if _is_answer(r, messages.get(r["id"]))]
    own = row(layer.step, layer.name, kept, replies, settled.started, settled.note)
    history = [*before["history"], own]
    reasons = [*settled.failures, *settled.notes]
    if not kept:
        raise _failed(layer, replies, before["responses"], history, reasons, run)
    half = route.ends and _is_cut_off(kept[0], history)
    result = Result(
        status="degraded" if settled.failures or half else before["status"],
        reasons=[*before["reasons"], *reasons],
        responses=list(kept),
        history=[*history, *route.rows(kept)],
        usage=usage_with(before["usage"], own),
    )
    _add_cost(result, layer, state, replies)
    written = [r["analysis"] for r in kept if "analysis" in r]
    analysis = written[0] if written else before.get("analysis")
    # The state adds this to the last turn's, whose analysis must not stay in it.
    if analysis or "analysis" in state.get("mixture", {}):
        result["analysis"] = analysis
    if route.ends:
        return _ended(layer, state, result, messages)
    return _goes_on(before, result, messages)


def passed(layer: Layer, state: MixtureState, route: Route) -> dict[str, Any]:
    """Return the update of a step's node that has asked the step's own condition."""
    before = layer.before(state)
    history = [*before["history"], *route.rows(before["responses"])]
    result: Result = {**before, "history": history}
    if route.ends and _is_cut_off(before["responses"][0], history):
        result["status"] = "degraded"
    messages = state.get("answers", {})
    if route.ends:
        return _ended(layer, state, result, messages)
    return _goes_on(before, result, messages)


def _goes_on(
    before: Result, result: Result, messages: Mapping[str, AIMessage]
) -> dict[str, Any]:
    """Return the update between two steps: what is new, and each text once."""
    new = result["history"][len(before["history"]) :]
    thin = thinned({**result, "history": new})["history"]
    told: dict[str, Any] = {**result}
    del told["history"]
    told["rows" if before["history"] else "history"] = thin
    return {"mixture": told, "answers": messages}


def _add_cost(
    result: Result, layer: Layer, state: MixtureState, replies: Sequence[Reply]
) -> None:
    prices = layer.options.priced_by
    if prices is not None:
        with layer.blamed(state, replies):  # a function of prices may raise
            result["cost"] = cost(result["history"], prices).record()
    elif "cost" in state.get("mixture", {}):  # the last turn had prices
        result["cost"] = None


def _ended(
    layer: Layer,
    state: MixtureState,
    result: Result,
    messages: Mapping[str, AIMessage],
) -> dict[str, Any]:
    chosen = result["responses"][0]
    answer = _answer(chosen, messages.get(chosen["id"]), result)
    if layer.answer_name is not None:
        answer.name = layer.answer_name
    # An answer from the prompt cache has the id of the first one, which LangGraph
    # would replace by it (langgraph 1.2.24). `test_caches_inside.py` holds it.
    if answer.id in {message.id for message in state["messages"]}:
        answer.id = None
    return {"messages": [answer], "mixture": result, "answers": {}}


def _reasons(
    layer: Layer, replies: Sequence[Reply], quorum: Quorum
) -> tuple[list[str], list[str]]:
    """Return the step's failures, and its notes, with which it may be complete.

    These are a quorum that was met without all answers, and answers that were cut off.
    """
    # After a resume, a call that failed first may have been answered: the last counts.
    last_of = {(reply["index"], reply["attempt"]): reply for reply in replies}
    failures = [r for r in last_of.values() if r["error"] is not None]
    degraded = [
        f"{layer.name}: {reply['agent']} gave a degraded answer: {reason}"
        for reply in last_of.values()
        for reason in reply["reasons"]
    ]
    notes = [
        f"{layer.name}: the answer of {_named(layer, reply)} was cut off "
        f"{reply['cut_off']}"
        for reply in last_of.values()
        if reply["cut_off"]
    ]
    answers = len({r["index"] for r in last_of.values() if r["error"] is None})
    if failures and quorum.is_met:
        calls = len({reply["index"] for reply in replies})
        rests = f"rests on {answers} of {calls} answers"
        notes.append(f"{layer.name}: {rests}, as its {quorum.name} allows")
        return degraded, notes
    reasons = [f"{layer.name}: {_failure(layer, reply)}" for reply in failures]
    if failures and quorum.needed is not None and answers:
        reasons.append(f"{layer.name}: {quorum.name} not met, {answers} answered")
    return [*reasons, *degraded], notes


def _failure(layer: Layer, reply: Reply) -> str:
    return f"{_named(layer, reply)} {_VERBS[reply['outcome']]} {reply['error']}"


def _named(layer: Layer, reply: Reply) -> str:
    agent = layer.agents[reply["index"]]
    repeats = reply["attempt"] == 0 and agent.sample > 1
    return f"{agent.name}#{agent.sample}" if repeats else reply["agent"]


def _is_cut_off(response: Response, history: Sequence[HistoryRow]) -> bool:
    """Whether a response ends early, of whichever step it is."""
    return any(
        call["response"] == response["id"] and "cut_off" in call
        for row in history
        for call in row["llm_calls"]
    )


def _passes_on(layer: Layer, replies: Sequence[Reply]) -> bool:
    """Whether a step whose calls all failed passes on the responses it was given."""
    outcomes = {reply["outcome"] for reply in replies}
    # Half an answer has been streamed: another one after it would mislead the reader.
    if "broken off" in outcomes:
        return False
    # A deadline or a budget means "answer with what there is", whatever `on_failure`.
    stopped = bool(outcomes & {"given up", "not asked"})
    return stopped or layer.options.on_failure == "keep"


def _failed(
    layer: Layer,
    replies: Sequence[Reply],
    incoming: Sequence[Response],
    history: Sequence[HistoryRow],
    reasons: Sequence[str],
    run: Run,
) -> StepFailedError:
    # Both were paid for: what the step was given, and the answers it did not keep.
    paid = [*incoming, *answered(replies)]
    cause = "; ".join(reasons) or f"{layer.name}: no response was accepted"
    if incoming and reasons:
        kind: type[StepFailedError] = StepFailedError
        message = f"{layer.name} has no answer: {cause}; the responses before it are "
        message += "in this error's .responses"
    else:
        kind = NoResponsesError
        message = f"no response is left: {cause}"
    keys = [
        (reply["step"], reply["index"], reply["attempt"])
        for reply in replies
        if reply["outcome"] in ("failed", "broken off")
    ]
    errors = [run.errors[key] for key in keys if key in run.errors]
    if len(errors) == len(keys):  # else some failed otherwise, such as by a refusal
        kind = of_kind(kind, errors)
    return kind(message, responses=paid, history=history, errors=errors)


_VERBS: Final = {
    "failed": "failed:",
    "broken off": "broke off in the middle of the streamed answer:",
    "given up": "was",
    "not asked": "was",
}


def _is_answer(response: Response, message: AIMessage | None) -> bool:
    """Whether a response says something, or is a model's message without text."""
    if response["text"].strip() or response["tool_calls"]:
        return True
    return message is not None and message.text == response["text"]


def _answer(response: Response, message: AIMessage | None, result: Result) -> AIMessage:
    """Return the answer: the chosen response as a message.

    It is the model's own message, with its content blocks and metadata, unless a later
    step has changed the text or the tool calls.
    """
    if result["status"] == "degraded":
        logger.warning("degraded answer: %s", "; ".join(result["reasons"]))
    # A response without a message: a step of the user's own has made it.
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
    about: dict[str, Any] = {k: result[k] for k in ("status", "reasons")}
    # In total alone: a thread keeps the message, and saves it again with each turn.
    usage: dict[str, Any] = {**result["usage"]}
    about["usage"] = {k: usage[k] for k in usage if k not in ("models", "steps")}
    if result.get("cost") is not None:
        about["cost"] = result["cost"]
    about |= inner(message)  # a mixture that answered looks for its own advice there
    metadata = {**message.response_metadata, "mixture": about}
    return message.model_copy(update={"response_metadata": metadata})
