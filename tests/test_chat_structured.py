"""ChatMixture with a schema: structured output of every kind."""

from typing import Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy
from langchain_core.messages import (
    AIMessage,
)
from pydantic import BaseModel

from langchain_mixture import (
    ChatMixture,
    InvalidMixtureError,
    Propose,
    Take,
)
from tests.models import Scripted, Streaming, mixture, over
from tests.openai_stub import Answer, serve


class Ion(BaseModel):
    """An ion."""

    name: str
    charge: int


class IonDict(TypedDict):
    """An ion."""

    name: str
    charge: int


def ionic(request: dict[str, Any]) -> Answer | str:
    """Answer in the schema that is asked for, by whichever way."""
    value = '{"name": "sodium", "charge": 1}'
    if "response_format" in request:
        return value
    if request.get("tools"):
        call = {"name": request["tools"][-1]["function"]["name"], "arguments": value}
        return Answer(
            tool_calls=[{"id": "c1", "type": "function", "function": call}],
            finish="tool_calls",
        )
    return "sodium"


@pytest.mark.parametrize("schema", [Ion, IonDict, Ion.model_json_schema()])
@pytest.mark.parametrize("method", [None, "function_calling", "json_schema"])
@pytest.mark.parametrize("include_raw", [False, True])
async def test_structured_output_of_every_kind(
    schema: Any, method: str | None, include_raw: bool
) -> None:
    """pydantic, TypedDict and JSON schema; by tools or by the model's own default."""
    with serve(ionic) as stub:
        model = over(stub, "a", "c").with_structured_output(
            schema, method=method, include_raw=include_raw
        )
        for result in (model.invoke("Which?"), await model.ainvoke("Which?")):
            value = result["parsed"] if include_raw else result
            value = value.model_dump() if isinstance(value, Ion) else value
            assert value == {"name": "sodium", "charge": 1}
            if include_raw:
                assert result["parsing_error"] is None
                assert isinstance(result["raw"], AIMessage)
        way = "tools" if method == "function_calling" else "response_format"
        assert way in stub.requests[1]
        assert way not in stub.requests[0]


def test_strict_and_method_are_never_swallowed() -> None:
    """They reach the answering model, or are refused with a reason."""
    with serve(ionic) as stub:
        model = over(stub, "a", "c")
        by_tool: dict[str, Any] = {"method": "function_calling", "strict": True}
        model.with_structured_output(Ion, **by_tool).invoke("Which?")
        assert stub.requests[-1]["tools"][0]["function"]["strict"] is True
        model.with_structured_output(Ion, strict=True).invoke("?")
        form = stub.requests[-1]["response_format"]
        assert form["json_schema"]["strict"] is True
        for method in (None, "function_calling"):
            with pytest.raises(InvalidMixtureError, match="no option 'stict'"):
                model.with_structured_output(Ion, method=method, stict=True)
        with pytest.raises(ValueError, match="json_scheme"):
            model.with_structured_output(Ion, method="json_scheme")
    with pytest.raises(InvalidMixtureError, match="which answers, cannot bind tools"):
        mixture().with_structured_output(Ion)
    with pytest.raises(InvalidMixtureError, match="answering models of one class"):
        ChatMixture(
            [Propose([Scripted(model="a"), Streaming(model="b")]), Take(1)]
        ).with_structured_output(Ion, method="json_schema")


@pytest.mark.parametrize("form", [Ion, ProviderStrategy(Ion)], ids=["tool", "provider"])
def test_an_agent_with_a_response_format_gets_its_structure(form: Any) -> None:
    """create_agent's response_format works, with the provider's own way too."""
    with serve(ionic) as stub:
        agent: Any = create_agent(over(stub, "a", "c"), [], response_format=form)
        state = agent.invoke({"messages": [("user", "Which?")]})
        assert state["structured_response"] == Ion(name="sodium", charge=1)
