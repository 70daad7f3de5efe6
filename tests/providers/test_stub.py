"""The stubs refuse what the real APIs refuse, and show what they were asked."""

from __future__ import annotations

from typing import Any

import pytest

from tests.providers.anthropic import Messages
from tests.providers.chat import Chat, Mistral
from tests.providers.google import Gemini
from tests.providers.ollama import Ollama
from tests.providers.responses import Responses
from tests.providers.stub import Body, Turn, Wire

USER: Body = {"role": "user", "content": "Hi."}
SAID: Body = {"role": "assistant", "content": "Hello."}
CALL: Body = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    ],
}
RESULT: Body = {"role": "tool", "tool_call_id": "1", "content": "4"}
SYSTEM: Body = {"role": "system", "content": "Be brief."}
USES: Body = {
    "role": "assistant",
    "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {}}],
}
USED: Body = {
    "role": "user",
    "content": [{"type": "tool_result", "tool_use_id": "1", "content": "4"}],
}
MARKED: Body = {"type": "text", "text": "Hi.", "cache_control": {"type": "ephemeral"}}


def gemini(*turns: tuple[str, Body]) -> Body:
    """Return the body of a request to Gemini."""
    return {"contents": [{"role": role, "parts": [part]} for role, part in turns]}


ASKS = ("user", {"text": "Hi."})
ANSWERS = ("model", {"text": "Hello."})
CALLS = ("model", {"functionCall": {"name": "f", "args": {}}})
RETURNS = ("user", {"functionResponse": {"name": "f", "response": {}}})
STRICT = Chat(alternates=True)
OUT: Body = {"type": "function_call_output", "call_id": "1", "output": "4"}
THOUGHT: Body = {"type": "reasoning", "id": "rs_1", "summary": []}

REFUSED: dict[str, tuple[Wire, Body, str]] = {
    "openai-nothing": (Chat(), {"messages": []}, "too short"),
    "openai-result-without-call": (
        Chat(),
        {"messages": [USER, RESULT]},
        "must be a response to a preceeding message with 'tool_calls'",
    ),
    "openai-call-without-result": (
        Chat(),
        {"messages": [USER, CALL, USER]},
        "must be followed by tool messages",
    ),
    "openai-block-of-another-provider": (
        Chat(),
        {"messages": [{"role": "user", "content": [{"type": "thinking"}]}]},
        "Invalid value: 'thinking'",
    ),
    "template-two-users": (STRICT, {"messages": [USER, USER]}, "must alternate"),
    "template-user-behind-tool": (
        STRICT,
        {"messages": [USER, CALL, RESULT, USER]},
        "must alternate",
    ),
    "template-late-system": (STRICT, {"messages": [USER, SYSTEM]}, "at the beginning"),
    "mistral-user-behind-tool": (
        Mistral(),
        {"messages": [USER, CALL, RESULT, USER]},
        "Unexpected role 'user' after role 'tool'",
    ),
    "mistral-system-behind-tool": (
        Mistral(),
        {"messages": [USER, CALL, RESULT, SYSTEM]},
        "Unexpected role 'system' after role 'tool'",
    ),
    "mistral-assistant-last": (
        Mistral(),
        {"messages": [USER, SAID]},
        "Expected last role User or Tool",
    ),
    "responses-output-without-call": (
        Responses(),
        {"input": [USER, OUT]},
        "No tool call found",
    ),
    "responses-call-without-output": (
        Responses(),
        {"input": [USER, {"type": "function_call", "call_id": "1"}]},
        "No tool output found",
    ),
    "responses-lonely-reasoning": (
        Responses(),
        {"input": [USER, THOUGHT, USER]},
        "without its required following item",
    ),
    "anthropic-nothing": (Messages(), {"messages": []}, "at least one message"),
    "anthropic-assistant-first": (
        Messages(),
        {"messages": [SAID, USER]},
        'first message must use the "user" role',
    ),
    "anthropic-use-without-result": (
        Messages(),
        {"messages": [USER, USES, USER]},
        "`tool_use` ids were found without `tool_result`",
    ),
    "anthropic-result-without-use": (
        Messages(),
        {"messages": [USER, USED]},
        "unexpected `tool_use_id` found",
    ),
    "anthropic-text-before-result": (
        Messages(),
        {
            "messages": [
                *(USER, USES),
                {"role": "user", "content": [MARKED, *USED["content"]]},
            ]
        },
        "must come before all other content",
    ),
    "anthropic-empty-text": (
        Messages(),
        {"messages": [{"role": "user", "content": " "}]},
        "must be non-empty",
    ),
    "anthropic-five-marks": (
        Messages(),
        {"messages": [{"role": "user", "content": [MARKED] * 5}]},
        "A maximum of 4 blocks",
    ),
    "anthropic-forced-while-thinking": (
        Messages(),
        {
            "messages": [USER],
            "thinking": {"type": "adaptive"},
            "tool_choice": {"type": "any"},
        },
        "Thinking may not be enabled",
    ),
    "google-nothing": (Gemini(), gemini(), "contents is not specified"),
    "google-model-last": (Gemini(), gemini(ASKS, ANSWERS), "end with a user role"),
    "google-call-behind-model": (
        Gemini(),
        gemini(ASKS, ANSWERS, CALLS, RETURNS),
        "immediately after a user turn",
    ),
    "google-call-without-response": (
        Gemini(),
        gemini(ASKS, CALLS, ASKS),
        "number of function response parts",
    ),
    "google-empty-text": (
        Gemini(),
        gemini(("user", {"text": ""})),
        "must have a text parameter",
    ),
    "ollama-blocks": (
        Ollama(),
        {"messages": [{"role": "user", "content": []}]},
        "cannot unmarshal array",
    ),
}


@pytest.mark.parametrize(
    ("wire", "body", "words"), REFUSED.values(), ids=REFUSED.keys()
)
def test_refused(wire: Wire, body: Body, words: str) -> None:
    """A request which the real API refuses is refused, in the API's words."""
    assert words in (wire.complaint(body) or "")


TAKEN: dict[str, tuple[Wire, Body]] = {
    "openai-loop": (Chat(), {"messages": [SYSTEM, USER, CALL, RESULT, SAID, USER]}),
    "openai-two-users": (Chat(), {"messages": [USER, USER]}),
    "template-loop": (STRICT, {"messages": [SYSTEM, USER, CALL, RESULT, SAID, USER]}),
    "mistral-loop": (Mistral(), {"messages": [USER, CALL, RESULT, SAID, USER]}),
    "mistral-prefix": (Mistral(), {"messages": [USER, {**SAID, "prefix": True}]}),
    "anthropic-loop": (Messages(), {"messages": [USER, USES, USED, SAID, USER]}),
    "google-loop": (Gemini(), gemini(ASKS, CALLS, RETURNS, ANSWERS, ASKS)),
    "google-results-last": (Gemini(), gemini(ASKS, CALLS, RETURNS)),
}


@pytest.mark.parametrize(("wire", "body"), TAKEN.values(), ids=TAKEN.keys())
def test_taken(wire: Wire, body: Body) -> None:
    """A request which the real API takes is taken."""
    assert wire.complaint(body) is None


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}
SHOWN: dict[str, tuple[Wire, Body, list[Turn]]] = {
    "openai": (
        Chat(),
        {
            "messages": [
                *(SYSTEM, {"role": "user", "content": [MARKED, PICTURE]}),
                *(CALL, RESULT),
            ]
        },
        [
            Turn("system", "Be brief."),
            Turn("user", "Hi.", pictures=1, marked=True),
            Turn("assistant", calls=("1",)),
            Turn("tool", "4", results=("1",)),
        ],
    ),
    "anthropic": (
        Messages(),
        {
            "system": "Be brief.",
            "messages": [
                {"role": "user", "content": [MARKED, {"type": "image"}]},
                USES,
                {"role": "user", "content": [*USED["content"], MARKED]},
            ],
        },
        [
            Turn("system", "Be brief."),
            Turn("user", "Hi.", pictures=1, marked=True),
            Turn("assistant", calls=("1",)),
            Turn("tool", "4", results=("1",)),
            Turn("user", "Hi.", marked=True),
        ],
    ),
    "responses": (
        Responses(),
        {"input": [USER, {"type": "function_call", "call_id": "1"}, OUT]},
        [
            Turn("user", "Hi."),
            Turn("assistant", calls=("1",)),
            Turn("tool", "4", results=("1",)),
        ],
    ),
    "google": (
        Gemini(),
        {**gemini(ASKS, ANSWERS), "systemInstruction": {"parts": [{"text": "Brief."}]}},
        [Turn("system", "Brief."), Turn("user", "Hi."), Turn("assistant", "Hello.")],
    ),
    "ollama": (
        Ollama(),
        {"messages": [{**USER, "images": ["AAAA"]}, SAID]},
        [Turn("user", "Hi.", pictures=1), Turn("assistant", "Hello.")],
    ),
}


@pytest.mark.parametrize(("wire", "body", "turns"), SHOWN.values(), ids=SHOWN.keys())
def test_turns(wire: Wire, body: Body, turns: list[Any]) -> None:
    """A recorded request is shown in the same words for every API."""
    assert wire.turns(body) == turns
