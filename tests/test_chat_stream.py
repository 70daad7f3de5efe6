"""ChatMixture streamed: tokens, chunks, events, and streams that end early."""

import asyncio
import gc
import threading
from contextvars import ContextVar
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import (
    AsyncCallbackHandler,
    BaseCallbackHandler,
)
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
)
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import RunnableLambda
from langchain_core.tracers.context import register_configure_hook
from langgraph.graph import END, START, MessagesState, StateGraph

from langchain_mixture import (
    Aggregate,
    ChatMixture,
    Map,
    Propose,
    Rank,
    StepFailedError,
    Take,
)
from tests.models import (
    Scripted,
    Streaming,
    add,
    mixture,
    over,
    settle,
)
from tests.openai_stub import serve


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


def test_a_whole_answer_streams_all_that_its_message_has() -> None:
    """Where the answer is one chunk, its sound and its author's name come along."""
    said = AIMessage("Hi", name="bot", additional_kwargs={"audio": {"id": "1"}})
    model = ChatMixture([Propose([Scripted(model="m", script=said)]), Take(1)])
    chunks = list(model.stream("Why?"))
    whole = sum(chunks[1:], start=chunks[0])
    assert whole.text == "Hi"
    assert whole.additional_kwargs == {"audio": {"id": "1"}}
    assert chunks[-1].name == "bot"


def test_a_streamed_answer_has_the_id_that_its_provider_gave_it() -> None:
    """OpenAI's Responses API finds an answer by it; an agent's stream has it once."""

    class Known(Streaming):
        def _stream(self, *args: Any, **kwargs: Any) -> Any:
            yield ChatGenerationChunk(message=AIMessageChunk(content="", id="resp_1"))
            yield from super()._stream(*args, **kwargs)

    model = ChatMixture([Propose([Known(model="known")])])
    chunks = list(model.stream("Why?"))
    assert sum(chunks[1:], start=chunks[0]).id == "resp_1"
    agent: Any = create_agent(model, [])
    inputs = {"messages": [("user", "Why?")]}
    streamed = list(agent.stream(inputs, stream_mode=["messages", "values"]))
    text = "".join(part[0].text for mode, part in streamed if mode == "messages")
    assert text == "known answers"
    assert streamed[-1][1]["messages"][-1].id == "resp_1"


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
