"""The twelve set-ups: a client package, a model of it, and the wire that it speaks.

Each imports its package when a model is made, so that the others can be used where
that package is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from langchain_core.language_models import BaseChatModel
from pydantic import SecretStr

from tests.providers.anthropic import Messages
from tests.providers.chat import Chat, Groq, Mistral
from tests.providers.google import Gemini
from tests.providers.ollama import Ollama
from tests.providers.responses import Responses
from tests.providers.stub import Answer, Body, Wire


@dataclass(frozen=True)
class SetUp:
    """One way in which an application talks to a provider."""

    name: str
    wire: Wire
    make: Callable[[str], BaseChatModel]
    """Return the model whose API stands at an address."""
    native: Mapping[str, Answer] = field(default_factory=dict)
    """Answers with blocks in the provider's own words, by the case they belong to."""
    builtin: Body | None = None
    """A tool that the provider runs itself."""


PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAA"
    "AABJRU5ErkJggg=="
)
"""A picture of one pixel, a PNG in base64."""


def _anthropic(url: str) -> Any:
    from langchain_anthropic import ChatAnthropic

    made: Any = ChatAnthropic  # its types know the aliases of its fields alone
    return made(
        model="claude-sonnet-5",
        base_url=url,
        api_key="key",
        max_retries=0,
        max_tokens=4096,
        thinking={"type": "adaptive"},
    )


def _openai(**settings: Any) -> Callable[[str], BaseChatModel]:
    def make(url: str) -> BaseChatModel:
        from langchain_openai import ChatOpenAI

        return ChatOpenAI(
            base_url=f"{url}/v1",
            api_key=SecretStr("key"),
            max_retries=0,
            stream_usage=True,
            **settings,
        )

    return make


def _google(url: str) -> Any:
    from langchain_google_genai import ChatGoogleGenerativeAI

    return ChatGoogleGenerativeAI(
        model="gemini-2.5-flash",
        google_api_key="key",
        base_url=url,
        max_retries=1,
        include_thoughts=True,
    )


def _mistral(url: str) -> Any:
    from langchain_mistralai import ChatMistralAI

    return ChatMistralAI(
        model_name="mistral-large-latest",
        api_key="key",
        base_url=f"{url}/v1",
        max_retries=0,
    )


def _groq(url: str) -> Any:
    from langchain_groq import ChatGroq

    return ChatGroq(
        model="openai/gpt-oss-20b", api_key="key", base_url=url, max_retries=0
    )


def _ollama(url: str) -> Any:
    from langchain_ollama import ChatOllama

    return ChatOllama(model="qwen3", base_url=url, reasoning=True)


def _deepseek(url: str) -> Any:
    from langchain_deepseek import ChatDeepSeek

    return ChatDeepSeek(
        model="deepseek-chat", api_key="key", api_base=f"{url}/v1", max_retries=0
    )


def _xai(url: str) -> Any:
    from langchain_xai import ChatXAI

    return ChatXAI(model="grok-4", api_key="key", base_url=f"{url}/v1", max_retries=0)


def _fireworks(url: str) -> Any:
    from langchain_fireworks import ChatFireworks

    return ChatFireworks(
        model="accounts/fireworks/models/kimi-k2",
        api_key="key",
        base_url=url,
        max_retries=0,
    )


def _together(url: str) -> Any:
    from langchain_together import ChatTogether

    return ChatTogether(
        model="meta-llama/Llama-3.3-70B-Instruct-Turbo",
        api_key="key",
        base_url=f"{url}/v1",
        max_retries=0,
    )


_ANTHROPIC_SEARCH: list[Body] = [
    {
        "type": "server_tool_use",
        "id": "srvtoolu_1",
        "name": "web_search",
        "input": {"query": "ion"},
    },
    {
        "type": "web_search_tool_result",
        "tool_use_id": "srvtoolu_1",
        "content": [
            {
                "type": "web_search_result",
                "url": "https://example.com/",
                "title": "Ions",
                "encrypted_content": "c2Vj",
                "page_age": None,
            }
        ],
    },
]
_RESPONSES_SEARCH: Body = {
    "type": "web_search_call",
    "id": "ws_1",
    "status": "completed",
    "action": {"type": "search", "query": "ion"},
}
_RESPONSES_PICTURE: Body = {
    "type": "image_generation_call",
    "id": "ig_1",
    "status": "completed",
    "output_format": "png",
    "result": PIXEL,
}
_RESPONSES_NATIVE = {
    "picture": Answer(blocks=[_RESPONSES_PICTURE]),
    "server-tool": Answer("An ion.", blocks=[_RESPONSES_SEARCH], cites="Ions"),
    "pause": Answer(blocks=[_RESPONSES_SEARCH]),
}
_GOOGLE_CODE: list[Body] = [
    {"executableCode": {"language": "PYTHON", "code": "print(1)"}},
    {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1\n"}},
]
_GOOGLE_PICTURE: Body = {"inlineData": {"mimeType": "image/png", "data": PIXEL}}
_OPENAI_AUDIO: Body = {
    "audio": {"id": "audio_1", "data": "AAAA", "transcript": "An ion.", "expires_at": 9}
}
_GROQ_SEARCH: Body = {
    "executed_tools": [{"index": 0, "type": "search", "arguments": "{}", "output": "1"}]
}

SET_UPS = [
    SetUp(
        "anthropic",
        Messages(),
        _anthropic,
        {
            "server-tool": Answer("An ion.", blocks=_ANTHROPIC_SEARCH, cites="Ions"),
            "pause": Answer(blocks=_ANTHROPIC_SEARCH, finish="pause"),
        },
        {"type": "web_search_20250305", "name": "web_search"},
    ),
    SetUp(
        "openai",
        Chat(refuses=True),
        _openai(model="gpt-4o"),
        {"audio": Answer(blocks=[_OPENAI_AUDIO])},
    ),
    SetUp(
        "responses",
        Responses(),
        _openai(model="gpt-5", use_responses_api=True),
        _RESPONSES_NATIVE,
        {"type": "web_search"},
    ),
    SetUp(
        "responses-v1",
        Responses(),
        _openai(model="gpt-5", use_responses_api=True, output_version="v1"),
        _RESPONSES_NATIVE,
        {"type": "web_search"},
    ),
    SetUp(
        "google",
        Gemini(),
        _google,
        {
            "picture": Answer(blocks=[_GOOGLE_PICTURE]),
            "server-tool": Answer("One.", blocks=_GOOGLE_CODE),
        },
        {"google_search": {}},
    ),
    SetUp("mistral", Mistral(counts_always=True), _mistral),
    SetUp(
        "groq",
        Groq(thinking="reasoning"),
        _groq,
        {"server-tool": Answer("One.", blocks=[_GROQ_SEARCH])},
    ),
    SetUp("ollama", Ollama(), _ollama),
    SetUp(
        "deepseek",
        Chat(thinking="reasoning_content", counts_always=True),
        _deepseek,
    ),
    SetUp(
        "xai",
        Chat(thinking="reasoning_content", thinks_aside=True),
        _xai,
    ),
    SetUp(
        "fireworks",
        Chat(thinking="reasoning_content"),
        _fireworks,
    ),
    SetUp("together", Chat(counts_always=True), _together),
]

PACKAGES = {
    one.name: {
        "google": "langchain_google_genai",
        "mistral": "langchain_mistralai",
        "responses": "langchain_openai",
        "responses-v1": "langchain_openai",
    }.get(one.name, f"langchain_{one.name}")
    for one in SET_UPS
}
"""The client package of each set-up."""
