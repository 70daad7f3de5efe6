"""ChatMixture wherever a chat model goes: asked, streamed, with tools, in a graph."""

import asyncio
import copy
import gc
import pickle
import threading
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy
from langchain.chat_models import init_chat_model
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import (
    AsyncCallbackHandler,
    BaseCallbackHandler,
    get_usage_metadata_callback,
)
from langchain_core.globals import set_llm_cache
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    trim_messages,
)
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import tool
from langchain_core.tracers.context import register_configure_hook
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.runtime import get_runtime
from langgraph.store.memory import InMemoryStore
from langgraph.types import interrupt
from pydantic import BaseModel, model_validator

from langchain_mixture import (
    Aggregate,
    ChatMixture,
    Filter,
    InvalidMixtureError,
    Map,
    NoResponsesError,
    Propose,
    Rank,
    Refine,
    Step,
    StepFailedError,
    Synthesize,
    Take,
    create_mixture,
    self_moa,
)
from tests.models import Crowd, Scripted, Streaming, called, models
from tests.openai_stub import Answer, Stub, serve

KEY: Any = "sk-secret-secret-secret"


def mixture(*extra: Any, **fields: Any) -> ChatMixture:
    """Make a mixture of two proposers and an aggregator that stream."""
    client = {name: Streaming(model=name) for name in "abc"}
    steps = [Propose(["a", "b"]), Aggregate("c"), *extra]
    return ChatMixture(steps=steps, client=client, **fields)


def over(stub: Stub, *names: str, **fields: Any) -> ChatMixture:
    """Make a mixture of real clients; the last name aggregates."""
    clients = {
        name: ChatOpenAI(
            base_url=stub.url,
            api_key=KEY,
            model=name,
            stream_usage=True,
            max_retries=0,
        )
        for name in names
    }
    *proposers, last = names
    return ChatMixture([Propose(proposers), Aggregate(last)], client=clients, **fields)


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


# -- Asking and streaming ------------------------------------------------------------


async def test_every_way_of_asking_gives_the_answer() -> None:
    """invoke, stream, batch, sync and async, in a chain: the answering model's text."""
    model = mixture()
    chain = ChatPromptTemplate.from_template("{q}") | model | StrOutputParser()
    assert model.invoke("Why?").text == "c answers"
    assert (await model.ainvoke("Why?")).text == "c answers"
    assert [m.text for m in model.batch(["1", "2"])] == ["c answers"] * 2
    assert [m.text for m in await model.abatch(["1", "2"])] == ["c answers"] * 2
    assert "".join(c.text for c in model.stream("Why?")) == "c answers"
    assert "".join([c.text async for c in model.astream("Why?")]) == "c answers"
    assert chain.invoke({"q": "Why?"}) == "c answers"
    assert "".join(chain.stream({"q": "Why?"})) == "c answers"
    assert "".join([c async for c in chain.astream({"q": "Why?"})]) == "c answers"


async def test_the_message_tells_how_the_answer_came_about() -> None:
    """Status, reasons and usage are in its metadata, asked or streamed."""
    model = mixture()
    chunks = [chunk async for chunk in model.astream("Why?")]
    streamed: Any = sum(chunks[1:], start=chunks[0])
    for message in (model.invoke("Why?"), streamed):
        about = message.response_metadata["mixture"]
        assert (about["status"], about["reasons"]) == ("complete", [])
        assert about["usage"]["models"]["a"]["total_tokens"] == 15
        assert message.response_metadata["model_name"] == "langchain-mixture"
        assert message.usage_metadata is None
    assert len({chunk.id for chunk in chunks}) == 1
    assert [chunk.chunk_position for chunk in chunks].count("last") == 1


async def test_the_first_token_leaves_before_the_second_is_written() -> None:
    """The answering model waits for its reader between two tokens."""
    read = threading.Event()

    class Waiting(Streaming):
        def _stream(self, *args: Any, **kwargs: Any) -> Any:
            first, second = super()._stream(*args, **kwargs)
            yield first
            assert read.wait(30)
            yield second

    model = ChatMixture(
        [Propose([Streaming(model="a")]), Aggregate(Waiting(model="w", script="1 2"))]
    )
    for chunk in model.stream("Why?"):
        if chunk.text == "1":
            read.set()
    assert read.is_set()
    read.clear()
    async for chunk in model.astream("Why?"):
        if chunk.text == "1":
            read.set()
    assert read.is_set()


@pytest.mark.parametrize("extra", [Take(1), Map(str.upper), Rank("a", 1)])
def test_where_steps_follow_the_answer_is_one_chunk(extra: Any) -> None:
    """An answer that may still be chosen or changed is not streamed before it is."""
    texts = [c.text for c in mixture(extra).stream("Why?") if c.text]
    assert [text.lower() for text in texts] == ["c answers"]


@pytest.mark.parametrize("wrapped", [False, True])
def test_proposers_are_never_forced_to_stream(wrapped: bool) -> None:
    """Only the answering model is asked for a stream, through wrappers too."""
    with serve() as stub:
        model = over(stub, "a", "b", "c")
        if wrapped:
            model.client = {n: m.with_retry() for n, m in model.client.items()}
        list(model.stream("Why?"))
        streamed = {r["model"]: bool(r.get("stream")) for r in stub.requests}
        assert streamed == {"a": False, "b": False, "c": True}


async def test_closing_a_stream_early_cancels_what_runs() -> None:
    """After aclose or close nothing is left running: no task, no waiting call."""
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def ahang(_: Any) -> str:
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return "late"

    endless = RunnableLambda(str, ahang)
    slow = ChatMixture([Propose([Streaming(model="a")]), Aggregate(endless)])
    before = asyncio.all_tasks()

    stream: Any = slow.astream("Why?")
    first = asyncio.ensure_future(anext(stream))
    await started.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await stream.aclose()
    assert cancelled.is_set()
    await settle()
    assert asyncio.all_tasks() == before

    parts: Any = mixture().astream("Why?")
    await anext(parts)
    await parts.aclose()
    await settle()
    assert asyncio.all_tasks() == before
    gc.collect()


async def settle() -> None:
    """Let what was cancelled come to its end."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_closing_a_sync_stream_does_not_wait_for_the_calls_under_way() -> None:
    """A call that hangs holds up neither close() nor the thread."""
    release = threading.Event()

    class Stuck(Streaming):
        def _stream(self, *args: Any, **kwargs: Any) -> Any:
            yield from list(super()._stream(*args, **kwargs))[:1]
            release.wait(60)

    model = ChatMixture([Propose([Stuck(model="a", script="1 2 3")])])
    stream: Any = model.stream("Why?")
    assert next(stream).text == "1"
    closing = threading.Thread(target=stream.close)
    closing.start()
    closing.join(30)
    stopped = not closing.is_alive()
    release.set()
    closing.join(30)
    assert stopped


@pytest.mark.parametrize("wrap", ["plain", "with_retry", "with_fallbacks"])
def test_a_streamed_answer_that_breaks_off_is_an_error(wrap: str) -> None:
    """No fallback and no retry glues a second answer behind half of the first."""

    class Breaking(Streaming):
        def _stream(self, *args: Any, **kwargs: Any) -> Any:
            yield from list(super()._stream(*args, **kwargs))[:1]
            raise ConnectionError("lost")

    breaking = Breaking(model="x", script="half of it")
    wrapped: Any = breaking
    if wrap == "with_retry":
        wrapped = breaking.with_retry(
            wait_exponential_jitter=False, stop_after_attempt=2
        )
    if wrap == "with_fallbacks":
        wrapped = breaking.with_fallbacks([Streaming(model="y")])
    steps = [
        Propose([Streaming(model="a")]),
        Aggregate(wrapped, fallbacks=[Streaming(model="z")]),
    ]
    model = ChatMixture(steps, on_failure="keep")
    stream = model.stream("Why?")
    assert next(stream).text == "half"
    with pytest.raises(StepFailedError, match="x broke off in the middle") as raised:
        list(stream)
    assert [r["text"] for r in raised.value.responses] == ["a answers"]


def test_half_a_streamed_tool_call_is_an_error_too() -> None:
    """A call of a tool that broke off reaches nobody who would make it."""

    class Calling(Streaming):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            return self

        def _stream(self, *args: Any, **kwargs: Any) -> Any:
            half = {"name": "add", "args": '{"a": 2, "b', "id": "1", "index": 0}
            message = AIMessageChunk(content="", tool_call_chunks=[half])  # type: ignore[list-item]
            yield ChatGenerationChunk(message=message)
            raise ConnectionError("lost")

    fallback = Calling(model="y")
    model = ChatMixture(
        [
            Propose([Streaming(model="a")]),
            Aggregate(Calling(model="x"), fallbacks=[fallback]),
        ]
    )
    with pytest.raises(StepFailedError, match="x broke off in the middle"):
        list(model.bind_tools([add]).stream("Why?"))


def test_who_is_given_up_says_nothing_into_the_fallbacks_stream() -> None:
    """Tokens of a call that came too late are not mixed into another's answer."""
    begun, late = threading.Event(), threading.Event()

    class Late(Streaming):
        def _stream(self, *args: Any, **kwargs: Any) -> Any:
            begun.set()
            late.wait(30)
            yield from super()._stream(*args, **kwargs)

    class Answering(Streaming):
        def _stream(self, *args: Any, **kwargs: Any) -> Any:
            first, *others = super()._stream(*args, **kwargs)
            yield first
            late.set()
            gone = threading.Event()
            gone.wait(0.1)  # in which the other one writes
            yield from others

    steps = [
        Propose([Streaming(model="a")]),
        Aggregate(
            Late(model="late", script="too late"),
            fallbacks=[Answering(model="b", script="one two")],
            timeout=1.5,
        ),
    ]
    chunks = [chunk.text for chunk in ChatMixture(steps).stream("Why?")]
    assert begun.is_set()
    assert "".join(chunks) == "one two"


async def test_who_is_given_up_says_nothing_in_async_code_either() -> None:
    """A model that writes from a thread of its own may outlive its call there."""
    late = threading.Event()
    written = threading.Event()

    class Late(Scripted):
        def _generate(
            self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any
        ) -> Any:
            late.wait(30)
            chunk = ChatGenerationChunk(message=AIMessageChunk(content="LATE"))
            try:
                run_manager.on_llm_new_token("LATE", chunk=chunk)
            finally:
                written.set()
            return super()._generate(messages)

    class Answering(Streaming):
        def _stream(self, *args: Any, **kwargs: Any) -> Any:
            first, *others = super()._stream(*args, **kwargs)
            yield first
            late.set()
            assert written.wait(30)
            yield from others

    fallback = Answering(model="b", script="one two")
    model = ChatMixture(
        [
            Propose([Streaming(model="a")]),
            Aggregate(Late(model="late"), fallbacks=[fallback], timeout=1.5),
        ]
    )
    chunks = [chunk.text async for chunk in model.astream("Why?")]
    assert "".join(chunks) == "one two"


@pytest.mark.parametrize("wrap", ["with_retry", "with_config", "with_fallbacks"])
def test_a_wrapped_chain_streams_what_it_makes_and_not_what_it_is_made_of(
    wrap: str,
) -> None:
    """A chain's answer is one chunk, and its models' tokens are counted."""
    chain = Streaming(model="y") | RunnableLambda(lambda m: m.text.upper())
    wrapped = {
        "with_retry": chain.with_retry(),
        "with_config": chain.with_config(tags=["t"]),
        "with_fallbacks": chain.with_fallbacks([chain]),
    }[wrap]
    model = ChatMixture([Propose([Streaming(model="a")]), Aggregate(wrapped)])
    assert [c.text for c in model.stream("Why?") if c.text] == ["Y ANSWERS"]
    usage = model.invoke("Why?").response_metadata["mixture"]["usage"]
    assert usage["total_tokens"] == 30


def test_a_mixture_whose_proposer_streams_by_itself_answers_in_a_stream() -> None:
    """Tokens of models further down are not taken for the answer's."""

    class Eager(Streaming):
        streaming: bool = True

    inner = ChatMixture(
        [Propose([Eager(model="x", streaming=True)]), Aggregate(Streaming(model="y"))]
    )
    outer = ChatMixture([Propose([Streaming(model="a")]), Aggregate(inner)])
    assert "".join(c.text for c in outer.stream("Why?")) == "y answers"


async def test_a_model_that_writes_in_a_thread_streams_in_async_code() -> None:
    """Tokens may come from a worker thread, where no event loop runs."""

    class Threaded(Scripted):
        def _generate(
            self,
            messages: Any,
            stop: Any = None,
            run_manager: Any = None,
            **kwargs: Any,
        ) -> Any:
            run_manager.on_llm_new_token(
                "x", chunk=ChatGenerationChunk(message=AIMessageChunk(content="x"))
            )
            return super()._generate(messages, stop, run_manager, **kwargs)

    model = ChatMixture([Propose([Threaded(model="t")])])
    texts = [chunk.text async for chunk in model.astream("Why?")]
    assert "x" in texts


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
async def test_stream_events_of_version_3_bring_the_answers_text() -> None:
    """Core's typed event stream works, sync and async."""
    model: Any = mixture()
    events = list(model.stream_events("Why?", version="v3"))
    deltas = [e["delta"]["text"] for e in events if _is_text(e)]
    assert "".join(deltas) == "c answers"
    stream = await model.astream_events("Why?", version="v3")
    deltas = [e["delta"]["text"] async for e in stream if _is_text(e)]
    assert "".join(deltas) == "c answers"


def _is_text(event: Any) -> Any:
    return (
        event["event"] == "content-block-delta"
        and event["delta"]["type"] == "text-delta"
    )


class Reasoning(Streaming):
    """Thinks before it answers, in a provider's own blocks."""

    def _stream(self, *args: Any, **kwargs: Any) -> Any:
        blocks: list[Any] = [
            {"type": "thinking", "thinking": "hm", "index": 0},
            {"type": "text", "text": "Yes.", "index": 1},
        ]
        for block in blocks:
            message = AIMessageChunk(
                content=[block], response_metadata={"model_provider": "anthropic"}
            )
            yield ChatGenerationChunk(message=message)


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
def test_reasoning_is_streamed_as_the_model_alone_streams_it() -> None:
    """A provider's blocks keep their kind in chunks, in their sum, and in version 3."""
    alone: Any = Reasoning(model="r")
    mixed: Any = ChatMixture([Propose([Streaming(model="a")]), Aggregate(alone)])
    for model in (alone, mixed):
        chunks = list(model.stream("Why?"))
        kinds = [b["type"] for c in chunks for b in c.content_blocks]
        assert kinds == ["reasoning", "text"]
        whole = sum(chunks[1:], start=chunks[0])
        assert [b["type"] for b in whole.content_blocks] == ["reasoning", "text"]
        events = model.stream_events("Why?", version="v3")
        deltas = [e["delta"] for e in events if e["event"] == "content-block-delta"]
        assert [d["type"] for d in deltas] == ["reasoning-delta", "text-delta"]


@pytest.mark.parametrize("last", [[], [Map(str)]])
async def test_the_callers_handlers_hear_each_token_once(last: Any) -> None:
    """A handler that prints tokens prints the answer, and prints it once."""

    class Ears(BaseCallbackHandler):
        def __init__(self) -> None:
            self.heard: list[str] = []

        def on_llm_new_token(self, token: Any, **_: Any) -> None:
            self.heard.append(token)

    class AsyncEars(AsyncCallbackHandler):
        def __init__(self) -> None:
            self.heard: list[str] = []

        async def on_llm_new_token(self, token: Any, **_: Any) -> None:
            self.heard.append(token)

    for ears in (Ears(), AsyncEars()):
        config: Any = {"callbacks": [ears]}
        _ = [chunk async for chunk in mixture(*last).astream("Why?", config)]
        assert "".join(ears.heard) == "c answers"
    heard = Ears()
    list(mixture(*last).stream("Why?", {"callbacks": [heard]}))
    assert "".join(heard.heard) == "c answers"


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("heard", [False, True])
async def test_a_mixture_in_a_mixture_streams_and_is_heard_once(
    levels: int, heard: bool
) -> None:
    """However deep it lies, the answer's tokens come through, and to handlers once."""
    tokens: list[Any] = []

    class Ears(BaseCallbackHandler):
        def on_llm_new_token(self, token: Any, **_: Any) -> None:
            tokens.append(token)

    model = mixture()
    for _ in range(levels):
        model = ChatMixture([Propose([Streaming(model="p")]), Aggregate(model)])
    config: Any = {"callbacks": [Ears()]} if heard else {}
    expected = "c answers" if heard else ""
    assert "".join(c.text for c in model.stream("Why?", config)) == "c answers"
    assert "".join(tokens) == expected
    tokens.clear()
    chunks = [c.text async for c in model.astream("Why?", config)]
    assert "".join(chunks) == "c answers"
    assert "".join(tokens) == expected


def test_a_handler_of_a_context_variable_counts_each_call_once() -> None:
    """Handlers that core adds by itself, as cost counters are, are not doubled."""
    ended: list[Any] = []

    class Counter(BaseCallbackHandler):
        def on_llm_new_token(self, token: Any, **_: Any) -> None:
            """Be one that hears tokens."""

        def on_llm_end(self, response: Any, **_: Any) -> None:
            ended.append(response)

    with_counter: ContextVar[Any] = ContextVar("with_counter", default=None)
    register_configure_hook(with_counter, inheritable=True)
    counted = []
    token = with_counter.set(Counter())
    try:
        for ask in (lambda: mixture().invoke("?"), lambda: list(mixture().stream("?"))):
            ended.clear()
            ask()
            counted.append(len(ended))
    finally:
        with_counter.reset(token)
    assert counted == [4, 4]  # a, b, c, and the mixture itself


@pytest.mark.parametrize("tag", ["langsmith:hidden", "nostream"])
def test_a_tag_that_silences_an_outer_stream_leaves_the_answer_whole(tag: str) -> None:
    """LangGraph hides routers that way; the mixture they ask answers all the same."""
    for model in (mixture(), mixture(Map(str))):
        chunks = list(model.stream("Why?", {"tags": [tag]}))
        assert "".join(chunk.text for chunk in chunks) == "c answers"
    asked: list[str] = []

    def route(state: MessagesState) -> str:
        asked.append(mixture(Map(str)).invoke(state["messages"]).text)
        return END

    builder = StateGraph(MessagesState)
    builder.add_node("n", lambda _: {})
    builder.add_conditional_edges(START, route)
    inputs: Any = {"messages": [("user", "Why?")]}
    list(builder.compile().stream(inputs, stream_mode="messages"))
    assert asked == ["c answers"]


def test_conversations_reach_the_models_as_they_are() -> None:
    """Turns, two system messages, images and tool results pass through untouched."""
    model = mixture()
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    talk = [
        SystemMessage("One."),
        SystemMessage("Two."),
        HumanMessage([{"type": "text", "text": "What is it?"}, image]),
        AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "1"}]),
        ToolMessage("a dot", tool_call_id="1"),
        AIMessage("A dot."),
        HumanMessage("Sure?"),
    ]
    model.invoke(talk)
    assert [m.id for m in talk] == [None] * len(talk)
    asked, fused = (
        [m.model_copy(update={"id": None}) for m in model.client[name].asked[0]]
        for name in "ac"
    )
    assert asked == talk
    assert fused[0].text.startswith("One.\n\nOther models")
    assert fused[1:] == talk[1:]


def test_messages_that_share_an_id_are_all_there() -> None:
    """The same message twice stays two turns, and an answer never replaces one."""
    model = mixture()
    hello = HumanMessage("Hello?", id="1")
    answer = model.invoke([hello, AIMessage("Yes?", id="2"), hello])
    texts = [message.text for message in model.client["a"].asked[0]]
    assert texts == ["Hello?", "Yes?", "Hello?"]
    assert answer.text == "c answers"
    known = Scripted(model="k", script=AIMessage("known", id="fixed"))
    talk: Any = [hello, AIMessage("known", id="fixed"), HumanMessage("Again?")]
    assert ChatMixture([Propose([known])]).invoke(talk).text == "known"
    state = create_mixture([Propose([known])]).invoke({"messages": talk})
    assert [m.text for m in state["messages"]][1:] == ["known", "Again?", "known"]


def test_settings_of_the_call_mean_the_answering_call() -> None:
    """temperature, max_tokens, stop and others reach the answering model alone."""
    model = mixture(temperature=0.1, max_tokens=7, stop=["x"])
    model.invoke("Why?", stop=["y"], seed=3)
    assert model.client["a"].arguments == [{}]
    assert model.client["c"].arguments == [
        {"temperature": 0.1, "max_tokens": 7, "stop": ["y"], "seed": 3}
    ]
    chain = ChatMixture([Propose([RunnableLambda(lambda _: "x")])], temperature=0.1)
    with pytest.raises(InvalidMixtureError, match="temperature cannot be set for"):
        chain.invoke("Why?")


def test_settings_that_a_plain_function_cannot_take_are_an_error() -> None:
    """A function as client knows of a temperature and a limit, and nothing is lost."""

    def client(model: str, messages: Any, temp: float, max_tokens: int) -> Any:
        return f"{temp} {max_tokens}", 1, 1

    model = ChatMixture([Propose(["a"])], client=client)
    assert model.invoke("Why?", temperature=0.1, max_tokens=3).text == "0.1 3"
    with pytest.raises(NoResponsesError, match="seed cannot be passed to a function"):
        model.invoke("Why?", seed=3)


def test_a_plain_function_as_client_stops_where_it_is_told() -> None:
    """What a function client wrote behind a stop sequence is cut off."""

    def client(model: str, messages: Any, temp: float, max_tokens: int) -> Any:
        return "one STOP two", 1, 1

    model = ChatMixture([Propose(["a"])], client=client)
    assert model.invoke("Why?", stop=["STOP"]).text == "one "


# -- In other people's graphs --------------------------------------------------------


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


class Endless(Streaming):
    """Writes until it is closed, and tells when it was."""

    closed: asyncio.Event

    async def _astream(self, *args: Any, **kwargs: Any) -> Any:
        try:
            while True:
                yield ChatGenerationChunk(message=AIMessageChunk(content="x"))
                await asyncio.sleep(0)
        finally:
            self.closed.set()


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
async def test_closing_an_event_stream_early_ends_the_models_too() -> None:
    """A version 3 stream that is closed stops what it has begun."""
    closed = asyncio.Event()
    model: Any = ChatMixture([Propose([Endless(model="e", closed=closed)])])
    stream = await model.astream_events("Why?", version="v3")
    async for _ in stream.text:
        break
    await stream.aclose()
    async with asyncio.timeout(30):
        await closed.wait()


async def test_an_outer_stream_that_breaks_off_ends_the_models_too() -> None:
    """Where a reader of the tokens raises, nobody goes on writing for nothing."""
    closed = asyncio.Event()

    class Breaking(BaseCallbackHandler):
        raise_error = True
        run_inline = True

        def on_llm_new_token(self, token: Any, **_: Any) -> None:
            raise ValueError("enough")

    model = ChatMixture([Propose([Endless(model="e", closed=closed)])])

    async def node(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("n", node)
    builder.add_edge(START, "n")
    graph: Any = builder.compile()
    inputs = {"messages": [("user", "Why?")]}
    parts = graph.astream(inputs, {"callbacks": [Breaking()]}, stream_mode="messages")
    with pytest.raises(ValueError, match="enough"):
        _ = [part async for part in parts]
    await settle()
    assert closed.is_set()


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
async def test_the_callers_concurrency_bounds_the_calls_inside(how: str) -> None:
    """max_concurrency of a call is that of the mixture's calls, however it is asked."""
    crowd = Crowd(model="m")
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


def test_wrappers_and_nesting_work_as_for_any_model() -> None:
    """with_retry, with_fallbacks, a mixture as an agent of a mixture."""
    down = ChatMixture([Propose([Scripted(model="x", script=OSError("down"))])])
    assert down.with_fallbacks([mixture()]).invoke("Why?").text == "c answers"
    with pytest.raises(NoResponsesError):
        down.with_retry(wait_exponential_jitter=False, stop_after_attempt=2).invoke("?")
    outer = ChatMixture([Propose([mixture(), mixture()]), Aggregate(mixture())])
    message = outer.invoke("Why?")
    assert message.text == "c answers"
    usage = message.response_metadata["mixture"]["usage"]
    assert usage["total_tokens"] == 9 * 15
    assert "".join(c.text for c in outer.stream("Why?")) == "c answers"


def test_more_than_twelve_layers_run_in_a_chain_and_in_a_batch() -> None:
    """A recursion limit of the caller's is not the graph's."""
    steps = [Propose(["a", "b"]), *[Synthesize(["a", "b"])] * 20, Aggregate("c")]
    model = ChatMixture(steps, client=models("a", "b", "c"))
    chain = RunnableLambda(lambda x: x) | model
    assert [m.text for m in chain.batch(["1", "2"])] == ["c answers"] * 2


def test_an_agent_that_interrupts_is_a_clear_error() -> None:
    """A chat model cannot pause; the error says what can."""

    def consult(_: Any) -> str:
        return str(interrupt("what do you say?"))

    model = ChatMixture([Propose([RunnableLambda(consult), Scripted(model="b")])])
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


# -- Tools ---------------------------------------------------------------------------


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
        system = next(
            r["messages"][0]["content"] for r in stub.requests if r["model"] == "c"
        )
        assert '[would call the tool add with {"a": 2, "b": 3}]' in system


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
    "agent", [Scripted(model="plain"), RunnableLambda(lambda _: "x", name="plain")]
)
def test_an_answering_model_without_tools_is_an_error_at_bind_tools(agent: Any) -> None:
    """The error names the model before anything is asked."""
    with serve() as stub:
        able = ChatOpenAI(base_url=stub.url, api_key=KEY, model="able")
        model = ChatMixture([Propose([able]), Aggregate(agent)])
        with pytest.raises(InvalidMixtureError, match="'plain', which answers, cannot"):
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
    assert [m.text for m in judge.asked[0][1:]] == texts
    assert not any(getattr(m, "tool_calls", None) for m in plain.asked[0])
    assert stub.requests[0]["messages"][-1]["role"] == "tool"


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
    """pydantic, TypedDict and JSON schema; by tools or by the model's own way."""
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
        way = "response_format" if method == "json_schema" else "tools"
        assert way in stub.requests[1]
        assert way not in stub.requests[0]


def test_strict_and_method_are_never_swallowed() -> None:
    """They reach the answering model, or are refused with a reason."""
    with serve(ionic) as stub:
        model = over(stub, "a", "c")
        model.with_structured_output(Ion, strict=True).invoke("Which?")
        assert stub.requests[-1]["tools"][0]["function"]["strict"] is True
        model.with_structured_output(Ion, method="json_schema", strict=True).invoke("?")
        form = stub.requests[-1]["response_format"]
        assert form["json_schema"]["strict"] is True
        with pytest.raises(InvalidMixtureError, match="no option 'stict'"):
            model.with_structured_output(Ion, stict=True)
        with pytest.raises(ValueError, match="json_scheme"):
            model.with_structured_output(Ion, method="json_scheme")
    with pytest.raises(InvalidMixtureError, match="which answers, cannot bind tools"):
        mixture().with_structured_output(Ion)
    with pytest.raises(InvalidMixtureError, match="answering models of one kind"):
        ChatMixture(
            [Propose([Scripted(model="a"), Streaming(model="b")])]
        ).with_structured_output(Ion, method="json_schema")


@pytest.mark.parametrize("form", [Ion, ProviderStrategy(Ion)])
def test_an_agent_with_a_response_format_gets_its_structure(form: Any) -> None:
    """create_agent's response_format works, with the provider's own way too."""
    with serve(ionic) as stub:
        agent: Any = create_agent(over(stub, "a", "c"), [], response_format=form)
        state = agent.invoke({"messages": [("user", "Which?")]})
        assert state["structured_response"] == Ion(name="sodium", charge=1)


# -- Usage ---------------------------------------------------------------------------


async def test_no_token_is_counted_twice() -> None:
    """The callback reports each model's true figure, once, however it is asked."""
    with serve() as stub:
        model = over(stub, "a", "b", "c")
        with get_usage_metadata_callback() as callback:
            model.invoke("Why?")
            counted = dict(callback.usage_metadata)
        assert {name: usage["total_tokens"] for name, usage in counted.items()} == {
            "a": 15,
            "b": 15,
            "c": 15,
        }
        with get_usage_metadata_callback() as callback:
            list(model.stream("Why?"))
            _ = [chunk async for chunk in model.astream("Why?")]
            await model.ainvoke("Why?")
            counted = dict(callback.usage_metadata)
        assert {name: usage["total_tokens"] for name, usage in counted.items()} == {
            "a": 45,
            "b": 45,
            "c": 45,
        }


def test_report_usage_puts_the_total_on_the_message() -> None:
    """Who asks for it gets the tokens of all calls as the message's usage."""
    total = {"input_tokens": 30, "output_tokens": 15, "total_tokens": 45}
    with serve() as stub:
        model = over(stub, "a", "b", "c", report_usage=True)
        assert model.invoke("Why?").usage_metadata == total
        *chunks, last = model.stream("Why?")
        assert last.usage_metadata == total
        assert not any(
            isinstance(c, AIMessageChunk) and c.usage_metadata for c in chunks
        )


# -- Identity ------------------------------------------------------------------------


@pytest.fixture
def cache() -> Any:
    """Set a global cache of model answers for one test."""
    cache = InMemoryCache()
    set_llm_cache(cache)
    yield cache
    set_llm_cache(None)


@pytest.mark.parametrize(
    "other",
    [
        [Propose(["a", "b"]), Aggregate("b")],
        [Propose(["a"]), Aggregate("c")],
        [Propose(["a", "b"], temp=0.5), Aggregate("c")],
        [Propose(["a", "b"]), Aggregate("c", "Another prompt.")],
        [Propose(["a", "b"]), Refine(["c"])],
        [Propose(["a", "b"]), Take(1), Aggregate("c")],
        [
            Propose(["a", "b"]),
            Aggregate("c", ChatPromptTemplate([("user", "{query} {responses}")])),
        ],
    ],
)
def test_two_mixtures_never_share_a_cache_entry(cache: Any, other: Any) -> None:
    """A cached answer is given again to the same pipeline and to no other."""
    client = models("a", "b", "c")
    steps = [Propose(["a", "b"]), Aggregate("c")]
    for pipeline in (steps, list(steps), other):
        ChatMixture(pipeline, client=client).invoke("Why?")
    lookups = [k for k in cache._cache if "langchain-mixture" in k[1]]
    assert len(lookups) == 2
    differing = {n: Scripted(model=f"{n}2") for n in "abc"}
    ChatMixture(steps, client=differing).invoke("Why?")
    assert len([k for k in cache._cache if "langchain-mixture" in k[1]]) == 3


def test_names_that_look_like_keys_still_tell_two_mixtures_apart(cache: Any) -> None:
    """What is redacted from the cache's key leaves a digest there."""
    first, second = (
        ChatMixture(
            [Propose(["a"], prompt=f"key-abcdefghijkl-{n}")], client=models("a")
        )
        for n in (1, 2)
    )
    assert first._identifying_params != second._identifying_params
    assert "abcdefghijkl" not in str(first._identifying_params)


def test_a_pipeline_with_a_function_stays_out_of_the_cache(cache: Any) -> None:
    """What a function does cannot be told from its name."""
    for word in ("one", "two"):
        model = ChatMixture(
            [Propose(["a"]), Map(lambda text, w=word: w)],  # type: ignore[misc]
            client=models("a"),
        )
        assert model.invoke("Why?").text == word
    assert not [k for k in cache._cache if "langchain-mixture" in k[1]]
    model = ChatMixture([Propose(["a"]), Filter(bool)], client=models("a"))
    model.invoke("Why?")
    assert not [k for k in cache._cache if "langchain-mixture" in k[1]]


def test_a_nested_pipeline_with_a_function_stays_out_of_the_cache(cache: Any) -> None:
    """Nor can a function be told apart inside a mixture that is an agent."""
    for word in ("one", "two"):
        inner = ChatMixture(
            [Propose(["a"]), Map(lambda text, w=word: w)],  # type: ignore[misc]
            client=models("a"),
        )
        assert ChatMixture([Propose([inner])]).invoke("Why?").text == word


def test_a_step_of_ones_own_stays_out_of_the_cache(cache: Any) -> None:
    """An edited class is another step under the same name."""

    def step(word: str) -> Any:
        @dataclass(frozen=True)
        class Own(Step):
            def keep(self, responses: Any, replies: Any) -> Any:
                return [{**responses[0], "text": word}]

        return Own()

    for word in ("one", "two"):
        model = ChatMixture([Propose(["a"]), step(word)], client=models("a"))
        assert model.invoke("Why?").text == word


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_degraded_answer_is_not_cached(
    cache: Any, own: bool, asynchronous: bool
) -> None:
    """What a passing failure has made is not served when it has passed."""
    client = models("a", "c", b=OSError("down"))
    model = ChatMixture(
        [Propose(["a", "b"]), Aggregate("c")],
        client=client,
        cache=InMemoryCache() if own else None,
    )
    statuses = []
    for script in (OSError("down"), None, OSError("down")):
        client["b"].script = script
        message = await model.ainvoke("?") if asynchronous else model.invoke("?")
        statuses.append(message.response_metadata["mixture"]["status"])
    assert statuses == ["degraded", "complete", "complete"]


def test_samples_of_a_repeated_agent_stay_distinct_and_are_cached(cache: Any) -> None:
    """A cache gives each of four samples its own answer, the same again next time."""
    with serve() as stub:
        count = iter(range(100))
        stub.answer = lambda _: f"sample {next(count)}"
        model = ChatOpenAI(base_url=stub.url, api_key=KEY, model="m")
        graph = create_mixture(self_moa(model.with_retry(), 4, Scripted(model="x")))
        runs = [graph.invoke({"messages": [("user", "Why?")]}) for _ in range(2)]
        first, second = (run["mixture"]["history"][0]["outputs"] for run in runs)
        assert len(set(first)) == 4
        assert first == second
        assert len(stub.requests) == 4
        assert all("sample" not in r["messages"][-1] for r in stub.requests)


def test_it_pickles_and_copies_and_follows_assignment() -> None:
    """A used mixture travels, and a changed one is built anew."""
    model = mixture()
    model.invoke("Why?")
    for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert twin.invoke("Why?").text == "c answers"
    changed = model.model_copy(update={"steps": [Propose(["a"])]})
    assert changed.invoke("Why?").text == "a answers"
    assert model.invoke("Why?").text == "c answers"
    model.steps = [Propose(["b"])]
    assert model.invoke("Why?").text == "b answers"


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": "hot"},
        {"temperature": -3},
        {"max_tokens": 0},
        {"stop": 5},
        {"report_usage": "perhaps"},
        {"name": 5},
    ],
)
def test_a_wrong_value_of_a_field_names_the_field(fields: Any) -> None:
    """Every error of building is one of this package's, whichever field it is of."""
    (name,) = fields
    with pytest.raises(InvalidMixtureError, match=f"ChatMixture: {name} is "):
        mixture(**fields)


def test_answers_of_a_plain_function_are_not_cached(cache: Any) -> None:
    """Two functions of one name are not one model."""
    for word in ("one", "two"):

        def client(
            model: str, messages: Any, temp: float, max_tokens: int, w: str = word
        ) -> Any:
            return w, 1, 1

        graph = create_mixture([Propose(["a"])], client=client)
        state = graph.invoke({"messages": [("user", "Why?")]})
        assert state["messages"][-1].text == word


def test_a_subclass_may_have_rules_of_its_own() -> None:
    """What its validator says is in the error."""

    class House(ChatMixture):
        @model_validator(mode="after")
        def _rule(self) -> Any:
            raise ValueError("house rule: no")

    with pytest.raises(InvalidMixtureError, match="house rule: no"):
        House(steps=[Propose(["a"])])


def test_a_degraded_mixture_as_an_agent_makes_a_degraded_answer() -> None:
    """What went wrong inside an agent that is a mixture is told outside, too."""
    inner = ChatMixture(
        [Propose(["a", "b"])], client=models("a", b=OSError("down")), name="inner"
    )
    for agent in (inner, inner.graph):
        outer = create_mixture([Propose([agent]), Aggregate(Streaming(model="c"))])
        about = outer.invoke({"messages": [("user", "Why?")]})["mixture"]
        assert about["status"] == "degraded"
        assert about["reasons"] == [
            "1_propose: inner gave a degraded answer: "
            "1_propose: b failed: OSError: down"
        ]


def test_a_misspelt_keyword_names_the_nearest_field() -> None:
    """Nothing that was meant is silently ignored."""
    with pytest.raises(
        InvalidMixtureError, match=r"no field 'temprature'.*temperature"
    ):
        mixture(temprature=0.1)
    with pytest.raises(InvalidMixtureError, match=r"'checkpointer'.*create_mixture"):
        mixture(checkpointer=InMemorySaver())
    with pytest.raises(InvalidMixtureError, match="1_aggregate needs responses"):
        ChatMixture([Aggregate("openai:gpt-4o")])
    with pytest.warns(UserWarning, match="max_retries has no meaning"):
        mixture(max_retries=2)
    with pytest.raises(InvalidMixtureError, match="steps is 'gpt-4o'; allowed"):
        ChatMixture("gpt-4o")  # type: ignore[arg-type]


def test_constructing_is_cheap_and_resolves_no_name() -> None:
    """Names become models when the mixture is first called."""
    made: list[str] = []

    def client(name: str) -> Scripted:
        made.append(name)
        return Scripted(model=name)

    model = ChatMixture([Propose(["a"]), Aggregate("b")], client=client)
    assert made == []
    model.invoke("Why?")
    model.invoke("Why?")
    assert made == ["a", "b"]


def test_tokens_are_counted_as_the_answering_model_counts_them() -> None:
    """trim_messages takes a mixture as its counter, as it takes any model."""

    class Counting(Streaming):
        def get_num_tokens_from_messages(self, messages: Any, tools: Any = None) -> int:
            return 10 * len(messages)

        def get_token_ids(self, text: str) -> list[int]:
            return [1, 2, 3]

    talk: list[BaseMessage] = [HumanMessage(str(n)) for n in range(9)]
    model = ChatMixture(
        [Propose([Streaming(model="a")]), Aggregate(Counting(model="c"))]
    )
    assert len(trim_messages(talk, max_tokens=35, token_counter=model)) == 3
    assert model.get_num_tokens("Why?") == 3
    chain = ChatMixture([Propose([RunnableLambda(lambda _: "x")])])
    assert chain.get_num_tokens_from_messages(talk) > 9


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


def test_the_profile_joins_those_of_its_models() -> None:
    """Tools as the answering model's, the smallest window, images if all take them."""
    big = Scripted(
        model="big",
        profile={
            "max_input_tokens": 9,
            "image_inputs": True,
            "tool_calling": True,
            "structured_output": True,
        },
    )
    small = Scripted(
        model="small", profile={"max_input_tokens": 5, "tool_calling": False}
    )
    assert ChatMixture([Propose([big, small]), Aggregate(big)]).profile == {
        "max_input_tokens": 5,
        "image_inputs": False,
        "tool_calling": True,
        "structured_output": True,
    }
    named = ChatMixture([Propose(["a"]), Aggregate("a")], client={"a": big})
    assert (named.profile or {})["structured_output"] is True
    assert ChatMixture([Propose(["openai:gpt-4o"])]).profile is None
    assert mixture().model_name == "langchain-mixture"
