"""What may be an agent, what may be a client, and how agents are named."""

import asyncio
import functools
import importlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from langchain.chat_models import init_chat_model
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableGenerator,
    RunnableLambda,
)
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.pregel.remote import RemoteGraph

from langchain_mixture import (
    Aggregate,
    ChatMixture,
    InvalidMixtureError,
    Propose,
    Rank,
    create_mixture,
    run,
    self_moa,
)
from langchain_mixture import threads as between
from tests.models import Scripted, add, ask, models
from tests.openai_stub import serve

SECRET: Any = "sk-secret-secret-secret"


def text_of(agent: Any, client: Any = None) -> str:
    """Give the answer of a mixture of one agent."""
    graph = create_mixture([Propose([agent])], client=client)
    return str(graph.invoke(ask())["messages"][-1].text)


def nodes(*agents: Any, client: Any = None) -> list[str]:
    """Give the names of the branches of one Propose."""
    graph = create_mixture([Propose(list(agents))], client=client)
    return [name for name in graph.nodes if "/" in name]


def echo(messages: list[Any]) -> str:
    """Answer with what was asked."""
    return f"echo {messages[-1].text}"


def words(_: Iterator[Any]) -> Iterator[str]:
    """Answer in two pieces."""
    yield from ("a", "b")


def in_a_chunk(_: Any) -> AIMessageChunk:
    """Answer with a chunk, as a stream that was added up is one."""
    return AIMessageChunk(content="a chunk")


def graph_agent() -> Any:
    """Make a graph that answers with its last message."""
    builder = StateGraph(MessagesState)
    builder.add_node("n", lambda state: {"messages": [AIMessage("from a graph")]})
    builder.add_edge(START, "n")
    builder.add_edge("n", END)
    return builder.compile()


def graph_agent_that_fails() -> Any:
    """Make a graph whose node raises."""

    def node(state: MessagesState) -> Any:
        raise OSError("down")

    builder = StateGraph(MessagesState)
    builder.add_node("n", node)
    builder.add_edge(START, "n")
    return builder.compile()


def graph_without_messages() -> Any:
    """Make a graph that leaves no message in its state."""
    return graph_agent() | RunnableLambda(lambda _: {"messages": []})


# -- Agents --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Scripted(model="m"), "m answers"),
        (lambda: Scripted(model="m").with_retry(), "m answers"),
        (lambda: Scripted(model="m").with_config(tags=["t"]), "m answers"),
        (lambda: Scripted(model="m").bind(stop=["x"]), "m answers"),
        (
            lambda: Scripted(model="m", script=OSError("down")).with_fallbacks(
                [Scripted(model="n")]
            ),
            "n answers",
        ),
        (
            lambda: Scripted(model="m").configurable_fields(
                model=ConfigurableField(id="model")
            ),
            "m answers",
        ),
        (lambda: Scripted(model="m") | StrOutputParser(), "m answers"),
        (lambda: RunnableLambda(echo), "echo What is an ion?"),
        (lambda: RunnableGenerator(words), "ab"),
        (lambda: RunnableLambda(in_a_chunk), "a chunk"),
        (lambda: RunnableLambda(lambda _: HumanMessage("a person")), "a person"),
        (graph_agent, "from a graph"),
        (lambda: graph_agent().with_retry(), "from a graph"),
        (
            lambda: Scripted(model="m").with_fallbacks([graph_agent()]),
            "m answers",
        ),
        (
            lambda: Scripted(model="m", script=OSError("down")).with_fallbacks(
                [graph_agent()]
            ),
            "from a graph",
        ),
        (
            lambda: graph_agent_that_fails().with_fallbacks([Scripted(model="m")]),
            "m answers",
        ),
        (
            lambda: graph_agent() | RunnableLambda(lambda s: s["messages"][-1].text),
            "from a graph",
        ),
        (lambda: create_mixture([Propose([Scripted(model="m")])]), "m answers"),
    ],
)
def test_an_agent_is_a_model_another_runnable_or_a_graph(
    make: Callable[[], Runnable[Any, Any]], text: str
) -> None:
    """Whatever takes messages and gives a message or text can propose."""
    assert text_of(make()) == text


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: RunnableLambda(lambda _: 3), "returned 3; it must return"),
        (lambda: RunnableLambda(lambda _: {"a": 1}), "returned a dict; it must return"),
        (lambda: RunnableLambda(lambda _: None), "returned None; it must return"),
        (graph_without_messages, "returned a state without messages; it must return"),
    ],
)
def test_an_agent_that_returns_no_message_has_failed(
    make: Callable[[], Runnable[Any, Any]], why: str
) -> None:
    """What is neither a message nor text is a recorded failure."""
    graph = create_mixture([Propose([make(), Scripted(model="m")])])
    assert why in graph.invoke(ask())["mixture"]["reasons"][0]


def test_branches_are_labelled_by_name_then_model_then_class() -> None:
    """The label is the Runnable's name, else its model's, else its class."""
    named = Scripted(model="m", name="writer")
    assert nodes(
        named,
        Scripted(model="m"),
        Scripted(model="m").with_retry(),
        Scripted(model="m").bind(model="other"),
        Scripted(model="m").with_config(run_name="critic").with_retry(),
        Scripted(model="m") | StrOutputParser(),
        RunnableLambda(echo),
        graph_agent(),
    ) == [
        "1_propose/writer",
        "1_propose/m",
        "1_propose/m#2",
        "1_propose/other",
        "1_propose/critic",
        "1_propose/m#3",
        "1_propose/echo",
        "1_propose/LangGraph",
    ]


def test_labels_are_cleaned_before_repeats_are_numbered() -> None:
    """`:` and `|`, which LangGraph reserves, become `/`; twins get a number."""
    client = models("openai:gpt", "openai/gpt", "a|b")
    assert nodes("openai:gpt", "openai/gpt", "a|b", client=client) == [
        "1_propose/openai/gpt",
        "1_propose/openai/gpt#2",
        "1_propose/a/b",
    ]


def test_a_name_that_looks_like_a_numbered_repeat_gets_a_label_of_its_own() -> None:
    """No two branches share a name, whatever their agents are called."""
    client = models("x", "x#2", "x#3")
    labels = nodes("x", "x", "x#2", client=client)
    assert len(set(labels)) == 3
    assert nodes("x", "x#2", "x#3", "x", client=client)[-1] == "1_propose/x#4"
    graph = create_mixture([Propose(["x", "x", "x#2"])], client=client)
    assert graph.invoke(ask())["mixture"]["history"][0]["outputs"] == [
        "x answers",
        "x answers",
        "x#2 answers",
    ]


def test_temp_and_max_tokens_reach_the_model_beneath_its_wrappers() -> None:
    """A step's settings arrive through bind, retry, fallbacks and a parser."""
    model = Scripted(model="m")
    wrapped = [
        model,
        model.bind(stop=["x"]).with_retry(),
        model.with_fallbacks([Scripted(model="n")]),
        model | StrOutputParser(),
    ]
    create_mixture([Propose(wrapped, temp=0.1, max_tokens=7)]).invoke(ask())
    assert [(a["temperature"], a["max_tokens"]) for a in model.arguments] == [
        (0.1, 7)
    ] * 4


def test_a_models_own_settings_are_never_silently_overridden() -> None:
    """Without temp and max_tokens on the step the model is asked with neither."""
    model = Scripted(model="m")
    create_mixture(self_moa(model, 2, temp=None, max_tokens=None)).invoke(ask())
    assert model.arguments == [{}] * 3


@pytest.mark.parametrize(
    "agent", [RunnableLambda(echo), graph_agent()], ids=["function", "graph"]
)
def test_temp_for_what_is_no_model_is_an_error_at_build(agent: Any) -> None:
    """A setting that could not be passed on is refused, with the agent's name."""
    with pytest.raises(InvalidMixtureError, match=r"1_propose: temperature cannot be"):
        create_mixture([Propose([agent], temp=0.1)])


# -- Clients -------------------------------------------------------------------------


async def async_client(
    model: str, messages: list[dict[str, str]], temp: float, max_tokens: int
) -> tuple[str, int, int]:
    """Answer as mixture-llm's clients do."""
    return f"{model}|{messages[-1]['content']}|{temp}|{max_tokens}", 1, 2


def sync_client(
    model: str, messages: list[dict[str, str]], temp: float, max_tokens: int
) -> tuple[str, int, int]:
    """Do the same, synchronously."""
    return f"{model}|{messages[-1]['content']}|{temp}|{max_tokens}", 1, 2


class CallableClient:
    """An object that can be called."""

    async def __call__(self, **kwargs: Any) -> tuple[str, int, int]:
        """Answer."""
        return await async_client(**kwargs)


CLIENT_ANSWER = "gpt|What is an ion?|0.7|2048"


@pytest.mark.parametrize(
    "client",
    [
        async_client,
        sync_client,
        CallableClient(),
        lambda **kwargs: async_client(**kwargs),
        lambda **kwargs: sync_client(**kwargs),
        functools.partial(async_client),
        lambda messages, model, max_tokens, temp: sync_client(
            model, messages, temp, max_tokens
        ),
    ],
)
async def test_a_function_of_four_parameters_is_a_client(client: Any) -> None:
    """Sync or async, plain, partial or an object: it is called by keyword."""
    assert (await run([Propose(["gpt"])], "What is an ion?", client))[
        0
    ] == CLIENT_ANSWER
    assert text_of("gpt", client) == CLIENT_ANSWER
    assert await asyncio.to_thread(text_of, "gpt", client) == CLIENT_ANSWER


@pytest.mark.parametrize(
    ("client", "text"),
    [
        (lambda name: Scripted(model=name), "gpt answers"),
        (lambda name, *, region="eu": Scripted(model=name + region), "gpteu answers"),
        ({"gpt": Scripted(model="x")}, "x answers"),
        ({"gpt": RunnableLambda(echo)}, "echo What is an ion?"),
        ({"gpt": graph_agent()}, "from a graph"),
    ],
)
def test_a_mapping_or_a_function_of_the_name_is_a_client(
    client: Any, text: str
) -> None:
    """Names are looked up, or made into models by a function."""
    assert text_of("gpt", client) == text


def test_a_chat_model_as_client_is_asked_for_each_name() -> None:
    """Every name goes to one model as its `model`, also through its wrappers."""
    with serve() as stub:
        model = ChatOpenAI(base_url=stub.url, api_key=SECRET, model="default")
        for client in (model, model.with_retry(), model.bind(seed=1)):
            graph = create_mixture([Propose(["a", "b"]), Aggregate("c")], client=client)
            state = graph.invoke(ask())
            assert state["messages"][-1].text == "c answers"
            calls = state["mixture"]["history"][0]["llm_calls"]
            assert [call["model"] for call in calls] == ["a", "b"]
        assert sorted(stub.asked()) == ["a", "a", "a", "b", "b", "b", "c", "c", "c"]
        assert [request.get("seed") for request in stub.requests[-3:]] == [1, 1, 1]


def test_without_a_client_names_go_to_init_chat_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name such as openai:gpt-4o is what init_chat_model makes of it."""
    with serve() as stub:
        monkeypatch.setenv("OPENAI_BASE_URL", stub.url)
        monkeypatch.setenv("OPENAI_API_KEY", SECRET)
        assert text_of("openai:gpt-4o") == "gpt-4o answers"
        assert text_of("x", {"x": "openai:gpt-4o-mini"}) == "gpt-4o-mini answers"
        assert text_of("openai:gpt-4o", init_chat_model) == "gpt-4o answers"


def test_a_model_chosen_at_run_time_is_an_agent() -> None:
    """init_chat_model's configurable model takes its name from the run's config."""
    with serve() as stub:
        model = init_chat_model(
            "openai:a",
            configurable_fields=["model"],
            base_url=stub.url,
            api_key=SECRET,
        )
        graph = create_mixture([Propose([model], temp=0.5)])
        graph.invoke(ask(), {"configurable": {"model": "openai:b"}})
        assert stub.requests[0]["model"] == "b"
        assert stub.requests[0]["temperature"] == 0.5


class Tooled(Scripted):
    """A scripted model that takes tools."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind(tools=tools, **kwargs)


def test_tools_reach_the_model_that_the_config_chooses() -> None:
    """A model with alternatives stays one when tools are bound to it."""
    first, second = Tooled(model="first"), Tooled(model="second")
    agent: Any = first.configurable_alternatives(
        ConfigurableField(id="which"), default_key="first", second=second
    )
    model = ChatMixture([Propose([agent])]).bind_tools([add])
    assert model.invoke("Why?").text == "first answers"
    config: Any = {"configurable": {"which": "second"}}
    assert model.invoke("Why?", config).text == "second answers"
    assert [each.arguments[0]["tools"] for each in (first, second)] == [[add]] * 2


def test_without_langchain_the_middleware_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its import fails at once, with the command."""
    monkeypatch.delitem(sys.modules, "langchain_mixture.middleware", raising=False)
    monkeypatch.setitem(sys.modules, "langchain.agents.middleware", None)
    with pytest.raises(ImportError, match=r"langchain-mixture\[langchain\]"):
        importlib.import_module("langchain_mixture.middleware")


def test_without_langchain_a_name_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where langchain is missing, the error says how it is installed."""
    monkeypatch.setitem(sys.modules, "langchain.chat_models", None)
    with pytest.raises(InvalidMixtureError, match=r"pip install langchain$"):
        create_mixture([Propose(["openai:gpt-4o"])])


def _failing(name: str) -> Any:
    raise ValueError(f"no such {name}, key sk-1234567890abcdef")


@pytest.mark.parametrize(
    ("client", "message"),
    [
        (3, "client is 3; allowed: a chat model, a mapping"),
        (object(), "client is an object; allowed"),
        ("gpt-4o", "client is 'gpt-4o'; allowed"),
        (RunnableLambda(echo), "client is a RunnableLambda; allowed"),
        (lambda: None, "client is a function with the parameters none; allowed"),
        ({}.__getitem__, "allowed: a chat model, a mapping"),  # Python knows no names
        (lambda a, b: None, "client is a function with the parameters a, b; allowed"),
        (lambda model, messages: None, "with the parameters messages, model; allowed"),
        ({"a": Scripted(model="a")}, "1_propose: no model is named 'gpt'; the client"),
        ({"gpt": 3}, "1_propose: the client returned 3 for the name 'gpt'"),
        (lambda name: None, "1_propose: the client returned None for the name 'gpt'"),
        (_failing, "'gpt': ValueError: no such gpt, key [redacted]"),
        (None, "1_propose: the client made no model for the name 'gpt'"),
    ],
)
def test_what_is_no_client_or_an_unknown_name_is_an_error_at_build(
    client: Any, message: str
) -> None:
    """The error names the step, the name or client, and what is allowed."""
    with pytest.raises(InvalidMixtureError) as raised:
        create_mixture([Propose(["gpt"])], client=client)
    assert message in str(raised.value)


def test_the_error_of_a_client_that_made_no_model_has_its_cause() -> None:
    """What the client raised is in the traceback, too."""
    with pytest.raises(InvalidMixtureError) as raised:
        create_mixture([Propose(["gpt"])], client=_failing)
    assert isinstance(raised.value.__cause__, ValueError)


def test_a_client_makes_one_model_of_a_name() -> None:
    """However often the name stands in the pipeline."""
    made: list[str] = []

    def client(name: str) -> Scripted:
        made.append(name)
        return Scripted(model=name)

    create_mixture([Propose(["a", "b", "a"]), Aggregate("a")], client=client)
    assert made == ["a", "b"]


def test_an_openai_client_object_is_refused_by_name() -> None:
    """OpenAI's own client is no client here, and the error says what is."""
    import openai

    with (
        openai.OpenAI(api_key=SECRET) as client,
        pytest.raises(
            InvalidMixtureError, match="client is an OpenAI; allowed: a chat"
        ),
    ):
        create_mixture([Propose(["gpt"])], client=client)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "returned", ["text", ("text", 1), ("text", "1", 2), None, (1, 2, 3)]
)
async def test_a_client_that_returns_no_triple_has_failed(returned: Any) -> None:
    """A client's wrong return value is a failure that says what it must be."""

    async def client(model: str, messages: Any, temp: float, max_tokens: int) -> Any:
        return returned if model == "bad" else ("good", None, None)

    _, history = await run([Propose(["bad", "good"])], "Why?", client)
    error = history[0]["llm_calls"][0]["error"]
    assert "must return (text, input tokens, output tokens)" in error


FORKING = """
import asyncio, os
from langchain_mixture.threads import wait_for

wait_for(asyncio.sleep(0))
if child := os.fork():
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
else:
    os._exit(wait_for(asyncio.sleep(0, 7)))
"""


def test_a_remote_graph_is_an_agent() -> None:
    """Messages come from an Agent Server as dicts, and are understood."""

    class Runs:
        def stream(self, **_: Any) -> Iterator[Any]:
            answer = {"type": "ai", "content": "from afar", "id": "1"}
            yield SimpleNamespace(event="values", data={"messages": [answer]})

    client: Any = SimpleNamespace(runs=Runs(), threads=None)
    assert text_of(RemoteGraph("agent", sync_client=client)) == "from afar"


def test_async_clients_meet_one_loop_from_many_threads_and_one_after_a_fork() -> None:
    """However many calls begin at once, one loop serves them; a fork makes its own."""
    barrier = threading.Barrier(8, timeout=30)
    met: list[Any] = []

    def meet() -> None:
        barrier.wait()
        met.append(between._loop())

    between._loops.clear()
    threads = [threading.Thread(target=meet) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(met)) == 1

    async def nested() -> str:
        return between.wait_for(asyncio.sleep(0, "no deadlock"))

    assert between.wait_for(nested()) == "no deadlock"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == "7", done.stderr


def test_an_async_client_keeps_one_event_loop_over_sync_calls() -> None:
    """An async HTTP client survives any number of sync invocations."""
    loops = set()

    async def client(model: str, messages: Any, temp: float, max_tokens: int) -> Any:
        loops.add(asyncio.get_running_loop())
        return "text", 1, 1

    graph = create_mixture([Propose(["a", "b"]), Aggregate("a")], client=client)
    for _ in range(3):
        graph.invoke(ask())
    assert len(loops) == 1


def test_tokens_of_chains_and_graphs_are_counted() -> None:
    """What a chain's or a nested mixture's models used is in the history."""
    chain = Scripted(model="m") | StrOutputParser()
    inner = create_mixture(
        [Propose([Scripted(model="a"), Scripted(model="b")]), Rank(Scripted(model="c"))]
    )
    graph = create_mixture([Propose([chain, inner])])
    calls = graph.invoke(ask())["mixture"]["history"][0]["llm_calls"]
    assert [(c["in_tokens"], c["out_tokens"]) for c in calls] == [(10, 5), (30, 15)]


def test_a_tool_conversation_reaches_the_agents_untouched() -> None:
    """Tool calls, tool results and images pass through Propose as they are."""
    model = Scripted(model="m")
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    talk: list[Any] = [
        HumanMessage([{"type": "text", "text": "What is this?"}, image]),
        AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "1"}]),
        {"role": "tool", "content": "a dot", "tool_call_id": "1"},
    ]
    create_mixture([Propose([model])]).invoke({"messages": talk})
    human, ai, tool = model.asked[0]
    assert human.content == [{"type": "text", "text": "What is this?"}, image]
    assert isinstance(ai, AIMessage)
    assert ai.tool_calls[0]["name"] == "look"
    assert tool.text == "a dot"
