"""The official langchain-tests suites, against real ChatOpenAI clients on loopback."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from langchain_mixture import Aggregate, ChatMixture, Propose
from tests.openai_stub import Answer, Stub, serve

KEY: Any = "none"
NO_CALLS = (
    "counts on_chat_model_start events, and sees the inner models' too: they nest "
    "under the mixture, which is right for its users"
)


def example_of(schema: dict[str, Any], text: str) -> Any:
    """Make a value of a JSON schema, with what the text offers."""
    if "enum" in schema:
        return schema["enum"][0]
    for key in ("anyOf", "allOf"):
        if key in schema:
            return example_of(schema[key][0], text)
    match schema.get("type"):
        case "object":
            parts = schema.get("properties", {})
            return {name: example_of(part, text) for name, part in parts.items()}
        case "array":
            return [example_of(schema["items"], text)]
        case "integer" | "number":
            return int(next(iter(re.findall(r"\d+", text)), "3"))
        case "boolean":
            return True
    quoted = re.findall(r"[“'\"]([^”'\"]+)[”'\"]", text)
    return quoted[0] if quoted else "text"


def text_of(message: dict[str, Any]) -> str:
    """Give the text of a message of the API."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", "") for part in content)


def capable(request: dict[str, Any]) -> Answer:
    """Answer as a capable model: with tools, JSON, stop sequences."""
    last = request["messages"][-1]
    text = text_of(last)
    choice = request.get("tool_choice")
    tools = {tool["function"]["name"]: tool for tool in request.get("tools") or []}
    if tools and (choice not in (None, "auto", "none") or last["role"] == "user"):
        named = choice["function"]["name"] if isinstance(choice, dict) else None
        name = named or next(iter(tools))
        schema = tools[name]["function"]["parameters"]
        call = {"name": name, "arguments": json.dumps(example_of(schema, text))}
        return Answer(
            finish="tool_calls",
            tool_calls=[{"id": "call_1", "type": "function", "function": call}],
        )
    form = request.get("response_format")
    if form and form["type"] == "json_schema":
        value = example_of(form["json_schema"]["schema"], text)
        return Answer(json.dumps(value))
    if form:
        return Answer(json.dumps({"setup": "Why?", "punchline": "Because."}))
    words = "Hello, one two three four five six"
    for stop in request.get("stop") or []:
        words = words.split(stop)[0]
    return Answer(words)


@pytest.fixture(scope="module", autouse=True)
def stub() -> Iterator[Stub]:
    """Serve a capable model to all of the module."""
    with serve(capable) as running:
        Pipeline.stub = running
        yield running


def _picture(url: str, **_: Any) -> httpx.Response:
    request = httpx.Request("GET", url)
    return httpx.Response(200, content=b"GIF89a", request=request)


@pytest.fixture(autouse=True)
def _no_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the suites, which download a picture, one without leaving loopback."""
    monkeypatch.setattr(httpx, "get", _picture)


class Pipeline:
    """What the suites are told about the mixture."""

    stub: Stub

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        """The model under test."""
        return ChatMixture

    @property
    def chat_model_params(self) -> dict[str, Any]:
        """Two proposers and an aggregator, each a real client."""
        a, b, c = (
            ChatOpenAI(
                base_url=self.stub.url, api_key=KEY, model=name, stream_usage=True
            )
            for name in ("a", "b", "c")
        )
        return {
            "steps": [Propose([a, b]), Aggregate(c)],
            "report_usage": self.returns_usage_metadata,
        }

    has_tool_calling = True
    has_tool_choice = True
    has_structured_output = True
    supports_image_inputs = True
    supports_image_urls = True
    supports_json_mode = True
    returns_usage_metadata = False


IGNORED = "ignore:ChatMixture ignores:UserWarning"
# ChatOpenAI says so of its own default, which is the mixture's, too.
V1 = "ignore:Received a Pydantic BaseModel V1 schema"


@pytest.mark.filterwarnings(IGNORED)
class TestUnit(Pipeline, ChatModelUnitTests):
    """The unit suite."""


@pytest.mark.filterwarnings(IGNORED)
class TestUnitWithUsage(Pipeline, ChatModelUnitTests):
    """The unit suite, with the total on the message."""

    returns_usage_metadata = True


class Integration(Pipeline, ChatModelIntegrationTests):
    """The integration suite."""


for _name in ("test_structured_output", "test_structured_output_async"):
    _test = getattr(Integration, _name)
    setattr(Integration, _name, pytest.mark.xfail(reason=NO_CALLS, strict=True)(_test))


@pytest.mark.filterwarnings(IGNORED, V1)
class TestIntegration(Integration):
    """The integration suite, as it is used by default."""


@pytest.mark.filterwarnings(IGNORED, V1)
class TestIntegrationWithUsage(Integration):
    """The integration suite, with the total on the message."""

    returns_usage_metadata = True
