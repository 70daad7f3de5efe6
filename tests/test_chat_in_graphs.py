"""ChatMixture within other graphs and chains: streams, config, concurrency."""

from typing import Any, TypedDict

import pytest
from langchain.chat_models import init_chat_model
from langchain_core.messages import (
    AIMessage,
    HumanMessage,
)
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.runtime import get_runtime
from langgraph.store.memory import InMemoryStore
from langgraph.types import interrupt

from langchain_mixture import (
    Aggregate,
    ChatMixture,
    Propose,
    StepFailedError,
    Take,
)
from tests.models import KEY, Crowd, Scripted, called, mixture
from tests.openai_stub import serve


@pytest.mark.parametrize("subgraphs", [False, True])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_in_an_outer_graph_only_the_answers_tokens_appear_once(
    subgraphs: bool, asynchronous: bool
) -> None:
    """stream_mode="messages" of the outer graph has the mixture's own tokens."""
    model = mixture()

    def node(state: MessagesState) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    async def anode(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("n", RunnableLambda(node, anode))
    builder.add_edge(START, "n")
    builder.add_edge("n", END)
    graph: Any = builder.compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    options = {"stream_mode": "messages", "subgraphs": subgraphs}
    inputs = {"messages": [("user", "Why?")]}
    if asynchronous:
        parts = [part async for part in graph.astream(inputs, config, **options)]
    else:
        parts = list(graph.stream(inputs, config, **options))
    messages = [part[1][0] if subgraphs else part[0] for part in parts]
    assert [m.text for m in messages if m.text] == ["c", " answers"]
    assert len({m.id for m in messages}) == 1
    states = list(graph.get_state_history(config))
    assert len(states) == 3


def test_what_the_caller_configures_is_carried_into_the_graph() -> None:
    """Configurable values, context and store reach agents that are graphs."""
    seen: dict[str, Any] = {}

    class Context(TypedDict):
        user: str

    def inner(state: MessagesState, config: RunnableConfig) -> Any:
        runtime = get_runtime(Context)
        seen["user"] = runtime.context["user"]
        seen["stored"] = runtime.store.get(("a",), "b").value  # type: ignore[union-attr]
        seen["region"] = config.get("configurable", {})["region"]
        return {"messages": [AIMessage("from a graph")]}

    builder = StateGraph(MessagesState, context_schema=Context)
    builder.add_node("n", inner)
    builder.add_edge(START, "n")
    model = ChatMixture([Propose([builder.compile()])])

    def node(state: MessagesState) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    store = InMemoryStore()
    store.put(("a",), "b", {"c": 1})
    outer = StateGraph(MessagesState, context_schema=Context)
    outer.add_node("n", node)
    outer.add_edge(START, "n")
    config: Any = {"configurable": {"region": "eu"}}
    outer.compile(store=store).invoke(
        {"messages": [HumanMessage("Why?")]}, config, context={"user": "Ada"}
    )
    assert seen == {"user": "Ada", "stored": {"c": 1}, "region": "eu"}


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream", "astream"])
async def test_what_describes_the_caller_does_not_describe_the_runs_inside(
    how: str,
) -> None:
    """The caller's own metadata goes along; its model's and its graph's do not."""
    seen: list[dict[str, Any]] = []

    def agent(messages: Any, config: RunnableConfig) -> str:
        seen.append(config["metadata"])
        return "done"

    model = ChatMixture([Propose([RunnableLambda(agent)])], name="inner")
    metadata = {
        "who": "me",
        "ls_model_name": "outer",
        "langgraph_outer": "n",
        "checkpoint_outer": "n:1",
    }
    await called(model, how, "Why?", {"metadata": metadata})
    (inside,) = seen
    assert inside["who"] == "me"
    assert not {key for key in inside if key.endswith("outer")}
    assert "ls_model_name" not in inside


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_mixture_writes_no_checkpoints_into_its_callers_thread(
    asynchronous: bool,
) -> None:
    """A chat model has no thread: the outer graph's saver holds the outer graph's."""
    model = mixture()
    saver = InMemorySaver()
    builder = StateGraph(MessagesState)

    def node(state: MessagesState, config: RunnableConfig) -> Any:
        return {"messages": [model.invoke(state["messages"], config)]}

    async def anode(state: MessagesState, config: RunnableConfig) -> Any:
        return {"messages": [await model.ainvoke(state["messages"], config)]}

    builder.add_node("n", RunnableLambda(node, anode))
    builder.add_edge(START, "n")
    graph: Any = builder.compile(checkpointer=saver)
    inputs = {"messages": [("user", "Why?")]}
    config: Any = {"configurable": {"thread_id": "1"}}
    if asynchronous:
        await graph.ainvoke(inputs, config)
    else:
        graph.invoke(inputs, config)
    saved = [tuple_.config["configurable"] for tuple_ in saver.list(None)]
    assert [where["checkpoint_ns"] for where in saved] == [""] * 3


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream", "astream"])
async def test_the_callers_concurrency_bounds_the_calls_inside(how: str) -> None:
    """max_concurrency of a call is that of the mixture's calls, however it is asked."""
    crowd = Crowd(model="m", together=2)
    model = ChatMixture([Propose([crowd] * 8), Aggregate(crowd)])
    await called(model, how, "?", {"max_concurrency": 2})
    assert crowd.most == 2
    assert len(crowd.asked) == 9


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
async def test_a_model_chosen_at_run_time_may_be_an_agent() -> None:
    """The config of the call chooses the model of a configurable agent."""
    with serve() as stub:
        agent = init_chat_model(
            "openai:a", configurable_fields=["model"], base_url=stub.url, api_key=KEY
        )
        model = ChatMixture([Propose([agent])])
        config: Any = {"configurable": {"model": "openai:b"}}
        assert model.invoke("Why?", config).text == "b answers"
        assert "".join(c.text for c in model.stream("Why?", config)).strip() == (
            "b answers"
        )
        for event in model.stream_events("Why?", config, version="v3"):
            assert event
        stream = await model.astream_events("Why?", config, version="v3")
        assert [event async for event in stream]
        assert stub.asked() == ["b"] * 4


def test_an_agent_that_interrupts_is_a_clear_error() -> None:
    """A chat model cannot pause; the error says what can."""

    def consult(_: Any) -> str:
        return str(interrupt("what do you say?"))

    agents = [RunnableLambda(consult), Scripted(model="b")]
    model = ChatMixture([Propose(agents), Take(1)])
    with pytest.raises(StepFailedError, match=r"what do you say.*create_mixture"):
        model.invoke("Why?")
    with pytest.raises(StepFailedError, match=r"what do you say.*create_mixture"):
        list(model.stream("Why?"))


def test_the_graph_is_there_to_draw_and_to_checkpoint() -> None:
    """`.graph` is the compiled graph of the same pipeline."""
    model = mixture()
    assert "2_aggregate" in model.graph.get_graph().draw_mermaid()
    state = model.graph.invoke({"messages": [("user", "Why?")]})
    assert state["messages"][-1].text == "c answers"
