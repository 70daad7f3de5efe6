"""What an application does with a model: one case each, the same for every set-up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from tests.providers.setups import PIXEL, SET_UPS, SetUp
from tests.providers.stub import Answer, Failure, Request, Said

QUESTION = "What is an ion?"
ION = Answer("An ion is a charged atom.")
CALL = Answer(calls=[("weather", {"city": "Oslo"})], finish="calls")
BROKEN = Answer(calls=[("weather", '{"city": ')], finish="calls")


@tool
def weather(city: str) -> str:
    """Return the weather in a city."""
    return f"snow in {city}"


class Verdict(BaseModel):
    """Whether a claim is true, and why."""

    is_true: bool
    reason: str


Script = Sequence[Said] | Callable[[Request], Said]


@dataclass(frozen=True)
class Case:
    """Something that is asked of a model, and what its API answers."""

    name: str
    ask: Callable[[Any], Any]
    """Ask the model; return what is compared."""
    script: Script = ()
    only: Sequence[str] = field(default_factory=tuple)
    """The set-ups that know of such a thing; empty = all."""

    empty: Mapping[str, str] = field(default_factory=dict)
    """The set-ups whose plain model returns a message without a word, and why. There a
    mixture is meant to raise; see `test_empty_answer`."""

    core: bool = False
    """Whether `make test` plays it as well."""

    def applies_to(self, set_up: SetUp) -> bool:
        """Whether the set-up has such a case."""
        if self.script:
            return not self.only or set_up.name in self.only
        return self.name.removesuffix("-streamed") in set_up.native

    def script_for(self, set_up: SetUp) -> Script:
        """Return what the API answers."""
        return self.script or [set_up.native[self.name.removesuffix("-streamed")], ION]


def _said(model: Any) -> Any:
    return model.invoke(QUESTION)


def _streamed(model: Any) -> Any:
    chunks = list(model.stream(QUESTION))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return whole


_loop_of_all = asyncio.Runner()
"""One event loop, as async HTTP clients live on the loop that used them first."""


def _asynchronous(model: Any) -> Any:
    return _loop_of_all.run(model.ainvoke(QUESTION))


def _with_tools(model: Any, **choice: Any) -> Any:
    return model.bind_tools([weather], **choice)


def _calls(model: Any) -> Any:
    return _said(_with_tools(model))


def _calls_streamed(model: Any) -> Any:
    return _streamed(_with_tools(model))


def _forced(model: Any) -> Any:
    return _said(_with_tools(model, tool_choice="weather"))


def _structured(model: Any) -> Any:
    return _said(model.with_structured_output(Verdict))


def _structured_raw(model: Any) -> Any:
    said = _said(model.with_structured_output(Verdict, include_raw=True))
    return [said["raw"], said["parsed"], repr(said["parsing_error"])]


def _loop(model: Any) -> Any:
    """Go once through the loop of an agent; return its answers."""
    bound = _with_tools(model)
    talk: list[Any] = [SystemMessage("Be brief."), HumanMessage(QUESTION)]
    called = bound.invoke(talk)
    results = [ToolMessage("snow", tool_call_id=c["id"]) for c in called.tool_calls]
    return [called, bound.invoke([*talk, called, *results])]


def _next_turn(model: Any) -> Any:
    first = model.invoke(QUESTION)
    talk = [HumanMessage(QUESTION), first, HumanMessage("And a proton?")]
    return [first, model.invoke(talk)]


def _shown(model: Any) -> Any:
    picture: Any = {"type": "image", "base64": PIXEL, "mime_type": "image/png"}
    text: Any = {"type": "text", "text": "What is this?"}
    return model.invoke([HumanMessage(content_blocks=[text, picture])])


def _marked(model: Any) -> Any:
    block = {
        "type": "text",
        "text": "Be brief.",
        "cache_control": {"type": "ephemeral"},
    }
    return model.invoke([SystemMessage([block]), HumanMessage(QUESTION)])


def _filled(request: Request) -> Answer:
    """Fill the schema in, as a tool or as the text, whichever was asked for."""
    verdict = {"is_true": False, "reason": "It is butterscotch."}
    if "Verdict" in json.dumps(request.body.get("tools") or []):
        return Answer(calls=[("Verdict", verdict)], finish="calls")
    return Answer(json.dumps(verdict))


def _failing(status: int, message: str, *, overflow: bool = False) -> list[Said]:
    return [Failure(status, message, overflow)]


REFUSAL = [Answer("I cannot help with that.", finish="refusal")]
CHATS = ("openai", "groq", "deepseek", "xai", "fireworks", "together", "mistral")
FILTERS = (*CHATS, "responses", "responses-v1", "google")
REFUSES = ("anthropic", "openai", "responses", "responses-v1", "google")
THINKS = (
    *("anthropic", "responses", "responses-v1", "google", "mistral", "groq", "ollama"),
    *("deepseek", "xai", "fireworks"),
)
THOUGHT = [Answer("An ion.", thinking="Charges, then."), ION]
CITED = [Answer("An ion is charged.", cites="Ions"), ION]
LONG = (
    "This model's maximum context length is 128000 tokens. However, your messages "
    "resulted in 128001 tokens. Please reduce the length of the messages. (prompt is "
    "too long: 200001 tokens > 200000 maximum; the input token count (1048577) exceeds "
    "the maximum number of tokens allowed (1048576))"
)

THOUGHT_ONLY = "all tokens went into thinking"
DROPPED = "ChatOpenAI drops the words of a streamed refusal"

CASES = [
    Case("text", _said, [ION], core=True),
    Case("text-streamed", _streamed, [ION], core=True),
    Case("text-async", _asynchronous, [ION]),
    Case("next-turn", _next_turn, [ION]),
    Case("picture-shown", _shown, [ION]),
    Case("cache-mark", _marked, [ION], only=["anthropic"]),
    Case("tool", _calls, [CALL]),
    Case("tool-streamed", _calls_streamed, [CALL]),
    Case("forced-tool", _forced, [CALL]),
    Case("loop", _loop, [CALL, ION], core=True),
    Case("structured", _structured, _filled, core=True),
    Case("structured-raw", _structured_raw, _filled),
    Case("thinking", _next_turn, THOUGHT, only=THINKS),
    Case("thinking-streamed", _streamed, THOUGHT, only=THINKS),
    Case(
        "citation", _next_turn, CITED, only=["anthropic", "responses", "responses-v1"]
    ),
    Case("malformed-call", _calls, [BROKEN], only=FILTERS),
    Case("malformed-call-streamed", _calls_streamed, [BROKEN], ("anthropic", *FILTERS)),
    Case("empty-end", _loop, [CALL, Answer()]),
    Case("picture", _next_turn),
    Case("audio", _next_turn),
    Case("server-tool", _next_turn),
    Case("server-tool-streamed", _streamed),
    Case("pause", _next_turn),
    Case("refusal", _said, REFUSAL, only=REFUSES, core=True),
    Case(
        "refusal-streamed",
        _streamed,
        REFUSAL,
        only=REFUSES,
        empty={"openai": DROPPED},
    ),
    Case("cut-off", _said, [Answer("An ion is", finish="length")]),
    Case(
        "cut-off-empty",
        _said,
        [Answer(finish="length")],
        empty={set_up.name: THOUGHT_ONLY for set_up in SET_UPS},
        core=True,
    ),
    Case("filtered", _said, [Answer("An ion is", finish="filter")], only=FILTERS),
    Case("error-overflow", _said, _failing(400, LONG, overflow=True), core=True),
    Case("error-400", _said, _failing(400, "temperature: must be less than 2")),
    Case("error-401", _said, _failing(401, "the key is wrong")),
    Case("error-404", _said, _failing(404, "there is no such model")),
    Case("error-429", _said, _failing(429, "slow down")),
    Case("error-500", _said, _failing(500, "something broke")),
    Case("error-401-streamed", _streamed, _failing(401, "the key is wrong")),
]
