"""ChatMixture with a schema: structured output of every kind."""

from typing import Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy
from langchain_core.messages import (
    AIMessage,
)
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langchain_core.utils.function_calling import convert_to_openai_tool
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


class Bindable(Scripted):
    """A scripted model that takes tools."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind(tools=[*map(convert_to_openai_tool, tools)], **kwargs)


class OtherBindable(Bindable):
    """Of another class."""


@pytest.mark.parametrize("strict", [None, True, False])
def test_strict_reaches_answering_models_of_several_classes(
    strict: bool | None,
) -> None:
    """Each is asked by tool calling, with `strict` in the tool where it was given."""
    call: Any = {"name": "Ion", "args": {"name": "sodium", "charge": 1}, "id": "1"}
    said = AIMessage("", tool_calls=[call])
    answering = [
        Bindable(model="a", script=said),
        OtherBindable(model="b", script=said),
    ]
    model = ChatMixture([Propose(answering), Take(1)])
    found = model.with_structured_output(Ion, strict=strict).invoke("Which?")
    assert found == Ion(name="sodium", charge=1)
    for each in answering:
        (arguments,) = each.arguments
        assert arguments["tools"][0]["function"].get("strict") is strict


class Opaque(Scripted):
    """Its structured output is a function, in which no model can be found."""

    def with_structured_output(
        self, schema: Any, *, method: Any = None, **kwargs: Any
    ) -> Any:
        return RunnableLambda(lambda _: {"name": "sodium"})


class Wrapped(Scripted):
    """Its structured output is a chain that begins with something else."""

    def with_structured_output(
        self, schema: Any, *, method: Any = None, **kwargs: Any
    ) -> Any:
        return RunnableParallel(asked=self, question=str) | RunnableLambda(bool)


@pytest.mark.parametrize("kind", [Opaque, Wrapped])
def test_structured_output_without_a_model_to_replace_is_refused(kind: Any) -> None:
    """The message names the method that works with every model."""
    model = ChatMixture([Propose([kind(model="a")])])
    with pytest.raises(InvalidMixtureError, match='allowed: method="function_calling"'):
        model.with_structured_output(Ion, method="json_schema")


@pytest.mark.parametrize("form", [Ion, ProviderStrategy(Ion)], ids=["tool", "provider"])
def test_an_agent_with_a_response_format_gets_its_structure(form: Any) -> None:
    """create_agent's response_format works, with the provider's own way too."""
    with serve(ionic) as stub:
        agent: Any = create_agent(over(stub, "a", "c"), [], response_format=form)
        state = agent.invoke({"messages": [("user", "Which?")]})
        assert state["structured_response"] == Ion(name="sodium", charge=1)
