"""ChatMixture with tools: who is offered them, and who reads what they returned."""

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import (
    AIMessage,
    HumanMessage,
    ToolMessage,
)
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from langchain_mixture import (
    Aggregate,
    ChatMixture,
    InvalidMixtureError,
    Propose,
    Rank,
)
from langchain_mixture.running.attempt import in_common_blocks, tools_as_text
from langchain_mixture.running.request import Request
from tests.models import KEY, Scripted, add, over
from tests.openai_stub import Answer, serve


def adding(request: dict[str, Any]) -> Answer | str:
    """Call `add` when asked, and tell its result when it is there."""
    last = request["messages"][-1]
    if request.get("tools") and last["role"] == "user":
        call = {"name": "add", "arguments": '{"a": 2, "b": 3}'}
        return Answer(
            tool_calls=[{"id": "c1", "type": "function", "function": call}],
            finish="tool_calls",
        )
    return f"{request['model']}: {last['content']}"


async def test_an_agent_completes_a_tool_loop() -> None:
    """create_agent calls the tool that the mixture asks for, sync and async."""
    with serve(adding) as stub:
        agent: Any = create_agent(over(stub, "a", "b", "c"), [add])
        inputs = {"messages": [("user", "What is 2 + 3?")]}
        for state in (agent.invoke(inputs), await agent.ainvoke(inputs)):
            _, wish, result, answer = state["messages"]
            assert wish.tool_calls[0]["args"] == {"a": 2, "b": 3}
            assert (result.text, answer.text) == ("5", "c: 5")
        asked = next(
            r["messages"][-1]["content"] for r in stub.requests if r["model"] == "c"
        )
        assert '[would call the tool add with {"a": 2, "b": 3}]' in asked


@pytest.mark.parametrize(
    ("choice", "sent", "advisers"),
    [
        (None, None, True),
        ("auto", "auto", True),
        ("none", "none", False),
        ("any", "required", False),
        ("required", "required", False),
        (True, "required", False),
        ("add", {"type": "function", "function": {"name": "add"}}, False),
        (
            {"type": "function", "function": {"name": "add"}},
            {"type": "function", "function": {"name": "add"}},
            False,
        ),
    ],
)
def test_every_form_of_tool_choice_reaches_the_answering_model(
    choice: Any, sent: Any, advisers: bool
) -> None:
    """Advisers are offered the tools only where the answer may do without."""
    with serve() as stub:
        over(stub, "a", "c").bind_tools([add], tool_choice=choice).invoke("Why?")
        adviser, answering = stub.requests
        assert answering["tools"][0]["function"]["name"] == "add"
        assert answering.get("tool_choice") == sent
        assert ("tools" in adviser) is advisers


def test_tools_are_bound_beneath_wrappers() -> None:
    """Neither an earlier binding nor a retry nor a fallback is lost."""
    with serve() as stub:
        base = ChatOpenAI(base_url=stub.url, api_key=KEY, model="base")
        wrapped = base.bind(model="named", seed=5).with_retry().with_config(tags=["t"])
        model = ChatMixture([Propose([wrapped]), Aggregate(wrapped)])
        model.bind_tools([add], strict=True).invoke("Why?")
        for request in stub.requests:
            assert (request["model"], request["seed"]) == ("named", 5)
            assert request["tools"][0]["function"]["name"] == "add"
        assert stub.requests[1]["tools"][0]["function"]["strict"] is True
        fallback = ChatMixture([Propose([base.with_fallbacks([base])])])
        fallback.bind_tools([add]).invoke("Why?")
        assert "tools" in stub.requests[-1]


@pytest.mark.parametrize(
    "agent",
    [Scripted(model="plain"), RunnableLambda(lambda _: "x", name="plain")],
    ids=["model", "function"],
)
def test_an_answering_model_without_tools_is_an_error_at_bind_tools(agent: Any) -> None:
    """The error names the model before anything is asked."""
    with serve() as stub:
        able = ChatOpenAI(base_url=stub.url, api_key=KEY, model="able")
        for last in (Aggregate(agent), Aggregate(able, fallbacks=[agent])):
            model = ChatMixture([Propose([able]), last])
            with pytest.raises(
                InvalidMixtureError, match="'plain', which answers, cannot"
            ):
                model.bind_tools([add])


def test_a_picture_that_a_tool_returned_reaches_who_has_no_tools() -> None:
    """What a tool gave beside text is shown to every model."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    blocks: Any = [{"type": "text", "text": "see"}, picture]
    talk = [
        HumanMessage("Look."),
        AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "1"}]),
        ToolMessage(blocks, tool_call_id="1"),
    ]
    plain = Scripted(model="plain")
    with serve() as stub:
        able = ChatOpenAI(base_url=stub.url, api_key=KEY, model="able")
        model = ChatMixture([Propose([plain]), Aggregate(able)])
        model.bind_tools([add]).invoke(talk)
    head = {"type": "text", "text": "[the tool look returned]"}
    assert plain.asked[0][-1].content == [head, *blocks]


def test_an_adviser_without_tools_reads_the_tools_history_as_text() -> None:
    """Who cannot bind tools is asked all the same, with nothing it cannot read."""
    talk = [
        HumanMessage("What is 2 + 3?"),
        AIMessage(
            "", tool_calls=[{"name": "add", "args": {"a": 2, "b": 3}, "id": "c1"}]
        ),
        ToolMessage("5", tool_call_id="c1"),
    ]
    plain = Scripted(model="plain")
    judge = Scripted(model="judge", script="Ranking: 1")
    with serve() as stub:
        able = ChatOpenAI(base_url=stub.url, api_key=KEY, model="able")
        model = ChatMixture([Propose([plain, able]), Rank(judge, 1), Aggregate(able)])
        model.bind_tools([add]).invoke(talk)
    texts = [
        "What is 2 + 3?",
        '[called the tool add with {"a": 2, "b": 3}]',
        "[the tool add returned] 5",
    ]
    assert [m.text for m in plain.asked[0]] == texts
    asked, *since = [m.text for m in judge.asked[0][1:]]
    assert asked.startswith(f"{texts[0]}\n\nThere are 2 responses.")
    assert since == texts[1:]
    assert not any(getattr(m, "tool_calls", None) for m in plain.asked[0])
    assert stub.requests[0]["messages"][-1]["role"] == "tool"


def test_tools_that_are_bound_later_replace_the_first() -> None:
    """As with any model, the last `bind(tools=...)` holds."""
    other = {
        "type": "function",
        "function": {"name": "other", "parameters": {"type": "object"}},
    }
    with serve() as stub:
        model: Any = over(stub, "a", "c").bind_tools([add])
        model.bind(tools=[other]).invoke("Why?")
        names = [t["function"]["name"] for r in stub.requests for t in r["tools"]]
    assert names == ["other", "other"]


def test_a_judge_is_not_offered_the_tools() -> None:
    """It is to choose: what it would call is no order of the responses."""
    with serve(lambda request: "Ranking: 1") as stub:
        judge, able = (
            ChatOpenAI(base_url=stub.url, api_key=KEY, model=name)
            for name in ("judge", "able")
        )
        model = ChatMixture([Propose([able, able]), Rank(judge, 1), Aggregate(able)])
        model.bind_tools([add]).invoke("What is 2 + 3?")
    offered = [(r["model"], "tools" in r) for r in stub.requests]
    assert sorted(offered) == [("able", True)] * 3 + [("judge", False)]


def test_a_tools_result_is_named_where_its_call_is_gone() -> None:
    """A conversation that was trimmed in front of it still tells whose result it is."""
    (written,) = tools_as_text([ToolMessage("5", tool_call_id="1", name="add")])
    assert written.text == "[the tool add returned] 5"


def test_what_a_tool_says_to_its_provider_is_kept() -> None:
    """A tool's extras reach the answering model, who knows what they mean."""

    @tool(extras={"defer_loading": True})
    def search(query: str) -> str:
        """Search."""
        return query

    with serve() as stub:
        over(stub, "a", "c").bind_tools([search]).invoke("Why?")
        ChatOpenAI(base_url=stub.url, api_key=KEY, model="c").bind_tools(
            [search]
        ).invoke("Why?")
        assert stub.requests[1]["tools"] == stub.requests[2]["tools"]


class Report(BaseModel):
    """What a panel is asked to write."""

    topic: str
    pages: int = 2


@pytest.mark.parametrize(
    ("arguments", "given", "asked"),
    [
        ({}, {"question": "Why?"}, "Why?"),
        ({"arg_types": {"claim": str}}, {"claim": "So."}, "So."),
        ({"args_schema": Report}, {"topic": "Ions"}, "topic: Ions\npages: 2"),
    ],
    ids=["question", "types", "schema"],
)
@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
async def test_a_mixture_is_a_tool(
    how: str, arguments: Any, given: dict[str, Any], asked: str
) -> None:
    """It asks the panel what an agent asks it, and returns the answer's text."""
    with serve() as stub:
        panel = over(stub, "a", "c").as_tool(name="panel", **arguments)
        answer = panel.invoke(given) if how == "invoke" else await panel.ainvoke(given)
        assert answer == "c answers"
        assert stub.requests[0]["messages"][-1]["content"] == asked
    assert set(convert_to_openai_tool(panel)["function"]) == {
        *("name", "description", "parameters")
    }


THINKING: Any = {"type": "thinking", "thinking": "Charges, then.", "signature": "s"}
PICTURE: Any = {"type": "image", "base64": "iVBO", "mime_type": "image/png"}
SEARCH: Any = {
    "type": "server_tool_call",
    "id": "s1",
    "name": "web_search",
    "args": {"query": "ion"},
}
TEXT: Any = {"type": "text", "text": "An ion."}


@pytest.mark.parametrize(
    ("content", "by", "asked", "also_own", "shown"),
    [
        ([THINKING, TEXT], "anthropic", "ollama", False, "An ion."),
        ([THINKING, TEXT], "anthropic", "anthropic", False, None),
        ([THINKING, TEXT], "anthropic", "anthropic", True, "An ion."),
        ([THINKING, TEXT], "anthropic", None, False, None),
        ([THINKING, TEXT], None, "ollama", False, None),
        ([THINKING, TEXT], "mistralai", "mistral", False, None),
        ([TEXT], "bedrock_converse", "amazon_bedrock", False, None),
        ([TEXT], "openai", "azure", False, None),
        ([TEXT], "google_genai", "google_vertexai", False, None),
        ([TEXT], "openai", "xai", False, "An ion."),
        ([TEXT, PICTURE], "openai", "ollama", False, [TEXT, PICTURE]),
        ([SEARCH, TEXT], "openai", "anthropic", False, "An ion."),
        ([THINKING], "anthropic", "ollama", False, ""),
        ("An ion.", "anthropic", "ollama", True, None),
    ],
    ids=[
        "another provider's",
        "its own",
        "its own provider's, of another API",
        "a model of no known provider",
        "a message of no known provider",
        "Mistral by two names",
        "Bedrock by two names",
        "OpenAI by two names",
        "Google by two names",
        "names that only end alike",
        "a picture",
        "a tool that ran at the provider",
        "nothing but thinking",
        "text alone",
    ],
)
def test_a_model_is_asked_in_blocks_that_it_understands(
    content: Any, by: str | None, asked: str | None, also_own: bool, shown: Any
) -> None:
    """Its own blocks go back to a provider as they came; None = as they came."""
    metadata = {"output_version": "v1"} | ({} if by is None else {"model_provider": by})
    said = AIMessage(content, response_metadata=metadata)
    talk = [HumanMessage("Why?"), said, HumanMessage("And?")]
    first, message, last = in_common_blocks(talk, asked, also_own=also_own)
    assert (first, last) == (talk[0], talk[2])
    assert message.content == (content if shown is None else shown)
    assert ("output_version" in message.response_metadata) == (
        shown is None or isinstance(shown, list)
    )


@pytest.mark.parametrize(
    ("builtin", "is_function"),
    [
        ({"type": "web_search_20250305", "name": "web_search"}, False),
        ({"type": "web_search"}, False),
        ({"google_search": {}}, False),
        ({"type": "custom", "name": "add", "input_schema": {"type": "object"}}, True),
        ({"name": "add", "input_schema": {"type": "object"}}, True),
        ({"title": "add", "type": "object", "properties": {}}, True),
        ({"type": "function", "function": {"name": "add", "parameters": {}}}, True),
    ],
    ids=[
        "Anthropic's own",
        "OpenAI's own",
        "Google's own",
        "Anthropic's word for a function",
        "a function as Anthropic writes it",
        "a JSON schema",
        "a function as OpenAI writes it",
    ],
)
def test_a_tool_that_a_provider_runs_is_the_answering_models_alone(
    builtin: dict[str, Any], is_function: bool
) -> None:
    """Advisers of other providers would raise on it; functions are for all."""
    request = Request(tools=[add, builtin])
    assert request.functions == ([add, builtin] if is_function else [add])
