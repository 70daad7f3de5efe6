"""Recorded runs as plain data: what they hold, and how they are written down."""

# Annotations are not postponed here; see `records.py`.

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from langchain_core.messages import BaseMessage
from pydantic import BaseModel
from typing_extensions import TypedDict

from langchain_mixture.prices import Prices, cost_of
from langchain_mixture.records import Reply, calls_of
from langchain_mixture.running.events import Asked, MixtureEvent, Replied
from langchain_mixture.secrets import describe, redact

Status: TypeAlias = Literal[
    "running", "complete", "degraded", "failed", "cancelled", "paused"
]
"""How a run stands; `paused`: an agent has interrupted it."""


class RecordedCall(TypedDict):
    """One attempt at a call."""

    step: str
    call: str
    """The id of the call and of its response, such as `1_propose/0`."""
    attempt: int
    """0 for the step's agent, 1 and up for its fallbacks."""
    agent: str
    asked: float | None
    """Seconds since the epoch; None = it was not asked."""
    replied: float | None
    """Seconds since the epoch; None = it had not ended when the run did."""
    messages: list[dict[str, Any]]
    """The messages as they were sent."""
    parents: list[str]
    """The ids of the responses that the messages show."""
    reply: dict[str, Any] | None
    """The record of its end, without the message."""
    message: dict[str, Any] | None
    """The agent's whole message."""
    cost: float | None
    """US dollars; None if it has no price."""


class RecordedStep(TypedDict):
    """The end of one step."""

    step: str
    time: float
    given: list[str]
    """The ids of the responses that it was given."""
    responses: list[dict[str, Any]]
    """Those that went on."""
    rows: list[dict[str, Any]]
    """Its row of the history, and those of the steps that were skipped behind it."""
    error: str | None


class RecordedRun(TypedDict):
    """One run of a mixture."""

    id: str
    parent: dict[str, str] | None
    """The `run` and the `call` of another mixture inside which it was made."""
    name: str
    root: str
    """The id of LangChain's outermost run: in an agent, one for a turn."""
    root_name: str
    began: float
    """Seconds since the epoch, as the next one."""
    ended: float | None
    status: Status
    error: str | None
    steps: list[dict[str, Any]]
    """The steps of the run: `name`, `step`, `agents`."""
    messages: list[dict[str, Any]]
    """The conversation."""
    responses: list[dict[str, Any]]
    """What the run started from."""
    calls: list[RecordedCall]
    kept: list[RecordedStep]
    answer: dict[str, Any] | None
    """The answer's message."""
    result: dict[str, Any] | None
    """The run's result: `status`, `reasons`, `responses`, `history`, `usage`, …"""


@dataclass(frozen=True)
class Ending:
    """How LangChain's run of a mixture's graph ended."""

    time: float
    error: str | None
    cancelled: bool

    @classmethod
    def of(cls, time: float, error: BaseException | None) -> "Ending":
        """Return the ending of a run that raised, or did not."""
        if error is None:
            return cls(time, None, cancelled=False)
        left = asyncio.CancelledError | KeyboardInterrupt | GeneratorExit
        return cls(time, describe(error), isinstance(error, left))


def runs_of(
    events: Iterable[MixtureEvent],
    roots: Mapping[str, tuple[str, str]],
    endings: Mapping[str, Ending],
    prices: Prices | None,
) -> list[RecordedRun]:
    """Return the runs that events tell of, in the order in which they began.

    Args:
        events: In the order in which they were heard.
        roots: The id and the name of each run's outermost run.
        endings: Of the runs that have ended.
        prices: What tokens cost; None = calls get no cost.
    """
    plain = _Plain()
    runs: dict[str, RecordedRun] = {}
    for event in events:
        if event["event"] == "began":
            root, root_name = roots.get(event["run"], (event["run"], ""))
            runs[event["run"]] = {
                "id": event["run"],
                "parent": plain(event["parent"]),
                "name": event["name"],
                "root": root,
                "root_name": root_name,
                "began": event["time"],
                "ended": None,
                "status": "running",
                "error": None,
                "steps": plain(event["steps"]),
                "messages": plain(event["messages"]),
                "responses": plain(event["responses"]),
                "calls": [],
                "kept": [],
                "answer": None,
                "result": None,
            }
        elif event["run"] in runs:
            _add(runs[event["run"]], event, plain, prices)
    for run_id, ending in endings.items():
        if run_id in runs:
            _end(runs[run_id], ending)
    return list(runs.values())


def _add(
    run: RecordedRun, event: MixtureEvent, plain: "_Plain", prices: Prices | None
) -> None:
    if event["event"] == "asked":
        asked = _new_call(event, event["agent"], event["parents"])
        asked["asked"], asked["messages"] = event["time"], plain(event["messages"])
        run["calls"].append(asked)
    elif event["event"] == "replied":
        reply = event["reply"]
        call = _call_of(run, event)
        call["replied"] = event["time"]
        call["reply"] = plain({k: v for k, v in reply.items() if k != "message"})
        call["message"] = plain(event["message"])
        call["cost"] = _dollars(reply, prices)
    elif event["event"] == "kept":
        run["kept"].append(
            {
                "step": event["step"],
                "time": event["time"],
                "given": [response["id"] for response in event["given"]],
                "responses": plain(event["responses"]),
                "rows": plain(event["rows"]),
                "error": plain(event["error"]),
            }
        )
        if event["error"] is not None:
            run["status"], run["error"] = "failed", plain(event["error"])
            run["ended"] = event["time"]
        elif event["result"] is not None:
            run["status"], run["ended"] = event["result"]["status"], event["time"]
            run["answer"] = plain(event["answer"])
            run["result"] = plain(event["result"])


def _call_of(run: RecordedRun, event: Replied) -> RecordedCall:
    """Return the call that has ended; one that was not asked is new."""
    calls = run["calls"]
    known: RecordedCall
    for known in reversed(calls):
        if (known["call"], known["attempt"]) == (event["call"], event["attempt"]):
            return known
    new = _new_call(event, event["reply"]["agent"], event["reply"]["parents"])
    calls.append(new)
    return new


def _new_call(event: Asked | Replied, agent: str, parents: list[str]) -> RecordedCall:
    return {
        "step": event["step"],
        "call": event["call"],
        "attempt": event["attempt"],
        "agent": agent,
        "asked": None,
        "replied": None,
        "messages": [],
        "parents": parents,
        "reply": None,
        "message": None,
        "cost": None,
    }


def _dollars(reply: Reply, prices: Prices | None) -> float | None:
    if prices is None:
        return None
    cost = cost_of([(reply["step"], call) for call in calls_of([reply])], prices)
    return None if cost.total is None else cost.total + cost.estimated


def _end(run: RecordedRun, ending: Ending) -> None:
    """Write down the end of a run that did not come to its last step."""
    if run["status"] != "running":
        return
    run["ended"], run["error"] = ending.time, ending.error
    if ending.cancelled:
        run["status"] = "cancelled"
    else:
        run["status"] = "paused" if ending.error is None else "failed"


class _Plain:
    """Turns messages and records into plain data, without keys."""

    def __init__(self) -> None:
        self._safe: dict[str, str] = {}

    def __call__(self, value: Any) -> Any:
        match value:
            case None | bool() | int() | float():
                return value
            case str():
                return self._text(value)
            case BaseMessage():
                parts = {name: getattr(value, name, None) for name in _PARTS}
                shown = {name: self(part) for name, part in parts.items() if part}
                return {"type": value.type, "content": self(value.content), **shown}
            case BaseModel():
                return self(value.model_dump())
            case Mapping():
                return {self._text(str(key)): self(item) for key, item in value.items()}
            case bytes() | bytearray():
                return f"{len(value)} bytes"
            case Sequence() | set() | frozenset():
                return [self(item) for item in value]
        return self._text(str(value))

    def _text(self, text: str) -> str:
        # Looking for keys takes time, and most texts come more than once.
        if (safe := self._safe.get(text)) is None:
            safe = redact(text).encode(errors="replace").decode()  # no lone surrogates
            self._safe[text] = safe
        return safe


_PARTS: Final = (
    "name",
    "id",
    "tool_calls",
    "invalid_tool_calls",
    "tool_call_id",
    "status",
    "usage_metadata",
    "additional_kwargs",
    "response_metadata",
)


# -- Texts, each once ------------------------------------------------------------------

ONCE: Final = "$once"
"""The key under which the number of a text, or of a list, stands in its place."""

SHORTEST: Final = 40
"""The fewest characters of a text that is stored by itself."""

FEWEST: Final = 8
"""The fewest texts of a list that is stored by itself, such as the ids of parents."""

Stored: TypeAlias = dict[str | tuple[str, ...], int]
"""The numbers of what is stored once."""


def packed(value: Any, stored: Stored) -> Any:
    """Return plain data with a number in the place of each long text.

    Args:
        value: The data.
        stored: The numbers; new ones are added.

    Example:
        >>> stored = {}
        >>> packed(["a" * 40, "short", "a" * 40], stored)
        [{'$once': 0}, 'short', {'$once': 0}]
    """
    if isinstance(value, str):
        if len(value) < SHORTEST:
            return value
        return {ONCE: stored.setdefault(value, len(stored))}
    if isinstance(value, list):
        if len(value) >= FEWEST and all(map(_is_short, value)):
            return {ONCE: stored.setdefault(tuple(value), len(stored))}
        return [packed(item, stored) for item in value]
    if isinstance(value, dict):
        return {key: packed(item, stored) for key, item in value.items()}
    return value


def _is_short(value: Any) -> bool:
    return isinstance(value, str) and len(value) < SHORTEST


def unpacked(value: Any, stored: Sequence[str | list[str]]) -> Any:
    """Undo `packed`.

    Example:
        >>> unpacked([{"$once": 0}, "short"], ["long"])
        ['long', 'short']
    """
    if isinstance(value, list):
        return [unpacked(item, stored) for item in value]
    if isinstance(value, dict):
        number = value.get(ONCE)
        if isinstance(number, int) and len(value) == 1:
            found = stored[number]
            return found if isinstance(found, str) else list(found)
        return {key: unpacked(item, stored) for key, item in value.items()}
    return value
