"""The private API of LangChain and LangGraph that the package uses is as it was."""

from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableConfig, RunnableLambda, RunnableParallel
from langchain_core.tracers.event_stream import _AstreamEventsCallbackHandler
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.pregel._messages import StreamMessagesHandler, StreamMessagesHandlerV2

from langchain_mixture import Propose, create_mixture
from langchain_mixture.compat import (
    branches_of,
    detached,
    is_message_stream,
    made_into,
    makes_models_stream,
    nodes_of,
    saver_of,
    writer_of,
)
from langchain_mixture.running.mixture_graph import MixtureGraph
from tests.models import Scripted, ask


def test_handlers_that_make_models_stream_are_told_apart() -> None:
    """LangGraph's two, and core's of `astream_events`; no other."""

    def put(_: Any) -> None:
        """Hear nothing."""

    graphs = [StreamMessagesHandler(put, False), StreamMessagesHandlerV2(put, False)]
    events = _AstreamEventsCallbackHandler()
    assert [makes_models_stream(handler) for handler in graphs] == [True, True]
    assert [is_message_stream(handler) for handler in graphs] == [True, True]
    assert (makes_models_stream(events), is_message_stream(events)) == (True, False)
    assert not makes_models_stream(BaseCallbackHandler())


def test_a_detached_block_adds_no_callbacks_of_the_run_around_it() -> None:
    """A Runnable inside hears of none but its own."""
    heard: list[str] = []

    class Ear(BaseCallbackHandler):
        def on_chain_start(self, *_: Any, name: str = "", **__: Any) -> None:
            heard.append(name)

    inner = RunnableLambda(str, name="inner")

    def outer(text: str) -> str:
        with detached():
            return inner.invoke(text)

    RunnableLambda(outer, name="outer").invoke("x", {"callbacks": [Ear()]})
    assert heard == ["outer"]


def test_the_nodes_of_a_graph_can_be_looked_into() -> None:
    """What a node runs is found."""
    node: Any = RunnableLambda(lambda _: {})
    builder = StateGraph(MessagesState)
    builder.add_node("n", node)
    builder.add_edge(START, "n")
    found = nodes_of(builder.compile())
    assert any("RunnableLambda" in repr(bound) for bound in found)


def test_the_branches_of_a_parallel_runnable_are_found_by_name() -> None:
    """Structured output keeps its model in one of them."""
    branch = RunnableLambda(str)
    assert branches_of(RunnableParallel(raw=branch)) == {"raw": branch}


def test_a_node_finds_the_checkpointer_of_its_run() -> None:
    """Of the graph around it, where the node's own graph has none."""
    found: list[Any] = []

    def node(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        found.append(saver_of(config))
        return {}

    def graph(inner: Any) -> Any:
        builder = StateGraph(MessagesState)
        builder.add_node("n", inner)
        return builder.add_edge(START, "n")

    saver = InMemorySaver()
    config: Any = {"configurable": {"thread_id": "1"}}
    graph(node).compile(checkpointer=saver).invoke(ask(), config)
    graph(graph(node).compile()).compile(checkpointer=saver).invoke(ask(), config)
    graph(node).compile().invoke(ask(), config)
    assert found == [saver, saver, None]


def test_a_compiled_graph_becomes_one_of_another_class() -> None:
    """With all that it had; its copies are of that class, too."""
    plain: Any = create_mixture([Propose([Scripted(model="a")])])
    graph = made_into(MixtureGraph, plain.builder.compile(), widest=1)
    assert vars(graph).keys() >= vars(plain).keys() - {"__orig_class__"}
    for copy in (graph, graph.with_config(tags=["x"])):
        assert type(copy) is MixtureGraph
        assert copy.invoke(ask())["messages"][-1].text == "a answers"


@pytest.mark.parametrize("asynchronous", [True, False])
@pytest.mark.parametrize("mode", ["custom", "values"])
async def test_a_node_finds_the_writer_of_a_stream_that_is_read(
    mode: str, asynchronous: bool
) -> None:
    """And none where nobody reads what would be written."""
    found: list[Any] = []

    def node(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        found.append(writer_of(config))
        return {}

    builder = StateGraph(MessagesState)
    builder.add_node("n", node)
    builder.add_edge(START, "n")
    graph: Any = builder.compile()
    if asynchronous:
        assert [part async for part in graph.astream(ask(), stream_mode=[mode])] != [0]
    else:
        list(graph.stream(ask(), stream_mode=[mode]))
    assert (found[0] is not None) == (mode == "custom")
    assert writer_of({}) is None
