"""The pipeline as a graph: its shape, its state, its streams."""

import asyncio
import json
import operator
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict, cast

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.runtime import get_runtime
from langgraph.store.memory import InMemoryStore
from langgraph.stream import StreamTransformer

from langchain_mixture import (
    TOGETHER_PROPOSERS,
    Agent,
    Aggregate,
    Call,
    ChatMixture,
    Dropout,
    Filter,
    InvalidMixtureError,
    Map,
    NoResponsesError,
    Propose,
    Rank,
    Refine,
    Reply,
    Response,
    Result,
    Sample,
    Shuffle,
    Step,
    StepFailedError,
    Synthesize,
    Take,
    create_mixture,
    moa_lite,
    robust_moa,
    run,
    self_moa,
    together_moa,
)
from langchain_mixture.records import row as history_row
from tests.models import Scripted, Streaming, ask, called, models
from tests.test_steps import reply


def thread(name: str = "1") -> Any:
    """Give the config of a thread."""
    return {"configurable": {"thread_id": name}}


def every_model() -> dict[str, Scripted]:
    """Make a scripted model for each of the paper's."""
    return models(*TOGETHER_PROPOSERS)


# -- Shape ---------------------------------------------------------------------------


def test_the_drawing_shows_every_model_of_every_layer() -> None:
    """The Mermaid drawing of together_moa is the figure of the paper."""
    graph = create_mixture(together_moa(), client=every_model())
    drawing = graph.get_graph().draw_mermaid()
    for layer in ("1_propose", "2_synthesize"):
        for model in TOGETHER_PROPOSERS:
            assert f"({layer}/{model})" in drawing
    assert "(3_aggregate)" in drawing
    assert len(graph.get_graph().nodes) == 2 + 6 + 1 + 6 + 1 + 1


def test_a_graph_has_the_name_that_it_was_given() -> None:
    """It is what it is called in traces, and as an agent of another graph."""
    steps = [Propose([Scripted(model="a")])]
    assert create_mixture(steps).name == "mixture"
    panel = create_mixture(steps, name="panel")
    history = create_mixture([Propose([panel])]).invoke(ask())["mixture"]["history"]
    assert history[0]["llm_calls"][0]["model"] == "panel"


@pytest.mark.parametrize("name", [None, "panel"])
async def test_an_answer_has_the_name_of_a_graph_that_was_given_one(
    name: str | None,
) -> None:
    """As of `create_agent(name=...)`; without one it has its model's."""
    said = AIMessage("So.", name="chair")
    steps = [Propose(["a"]), Aggregate(Scripted(model="b", script=said))]
    graph = create_mixture(steps, client=models("a"), name=name)
    for how in ("invoke", "ainvoke"):
        state = await called(graph, how, ask(), None)
        assert state["messages"][-1].name == (name or "chair")


def test_a_supervisor_is_told_which_mixture_answered() -> None:
    """LangGraph's own agents are named on their answers, too."""
    graph = create_mixture([Propose([Streaming(model="a")])], name="panel")
    builder = StateGraph(MessagesState)
    builder.add_node("panel", graph)
    builder.add_edge(START, "panel")
    state = builder.compile().invoke(ask())
    assert [message.name for message in state["messages"]] == [None, "panel"]


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
def test_a_graph_is_compiled_with_what_it_was_given(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`cache`, `debug` and `transformers` are passed on to `StateGraph.compile`."""
    made: list[tuple[str, ...]] = []

    class Watcher(StreamTransformer):
        def __init__(self, scope: tuple[str, ...] = ()) -> None:
            super().__init__(scope)
            made.append(scope)

        def init(self) -> dict[str, Any]:
            return {}

        def process(self, event: Any) -> bool:
            return True

    cache: InMemoryCache[Any] = InMemoryCache()
    steps = [Propose([Scripted(model="a")])]
    graph = create_mixture(steps, cache=cache, debug=True, transformers=[Watcher])
    assert graph.cache is cache
    graph.invoke(ask())
    assert "1_propose" in capsys.readouterr().out
    graph.debug = False
    assert list(graph.stream_events(ask(), version="v3"))
    assert made


def test_edges_grow_with_the_width_of_a_layer_and_not_with_its_square() -> None:
    """Layers join through the step's own node."""
    wide = [f"m{n}" for n in range(20)]
    steps = [Propose(wide), Synthesize(wide), Aggregate("m0")]
    graph = create_mixture(steps, client=models(*wide))
    assert len(graph.get_graph().edges) == 2 * 20 + 2 * 20 + 2


def test_updates_bring_one_update_a_branch_named_after_its_model() -> None:
    """stream_mode="updates" tells who answered what, as it arrives."""
    graph = create_mixture(together_moa(), client=every_model())
    updates = list(graph.stream(ask(), stream_mode="updates"))
    names = [name for update in updates for name in update]
    assert sorted(names[:6]) == sorted(f"1_propose/{m}" for m in TOGETHER_PROPOSERS)
    assert names[6] == "1_propose"
    assert sorted(names[7:13]) == sorted(
        f"2_synthesize/{m}" for m in TOGETHER_PROPOSERS
    )
    assert names[13:] == ["2_synthesize", "3_aggregate"]
    (reply,) = updates[0][names[0]]["replies"]
    assert reply["text"] == f"{reply['agent']} answers"


def test_steps_of_one_call_and_transforms_are_one_node() -> None:
    """Only a step that fans out has branches."""
    graph = create_mixture(
        [Propose(["a"]), Shuffle(), Refine(["b"]), Rank("a"), Take(1)],
        client=models("a", "b"),
    )
    assert list(graph.nodes) == [
        "__start__",
        "1_propose",
        "2_shuffle",
        "3_refine",
        "4_rank",
        "5_take",
    ]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], r"steps is \[\]; allowed: a list of one or more steps"),
        (Propose(["a"]), "steps is a Propose; allowed"),
        ([Propose(["a"]), Shuffle], r"steps\[1\] is the class Shuffle; write Shuffle"),
        ([Propose(["a"]), "Take"], r"steps\[1\] is 'Take'; allowed: an instance of"),
        ([Aggregate("a")], "1_aggregate needs responses and can get none"),
        ([Shuffle(), Propose(["a"])], "1_shuffle needs responses"),
        ([Rank("a")], "1_rank needs responses"),
    ],
)
def test_what_is_no_pipeline_is_an_error_that_names_the_culprit(
    steps: Any, message: str
) -> None:
    """A pipeline that cannot run fails when it is built."""
    with pytest.raises(InvalidMixtureError, match=message):
        create_mixture(steps, client=models("a"))
    with pytest.raises(InvalidMixtureError, match="on_failure is 'ignore'; allowed"):
        create_mixture([Propose(["a"])], on_failure="ignore")  # type: ignore[arg-type]


# -- In and out ----------------------------------------------------------------------


def test_the_answer_is_appended_and_one_key_tells_how_it_came_about() -> None:
    """Out come `messages` and `mixture`, and nothing else."""
    graph = create_mixture(
        [Propose(["a", "b"]), Aggregate("c")], client=models("a", "b", "c")
    )
    state = graph.invoke(ask())
    assert set(state) == {"messages", "mixture"}
    assert [m.text for m in state["messages"]] == ["What is an ion?", "c answers"]
    mixture = state["mixture"]
    assert (mixture["status"], mixture["reasons"]) == ("complete", [])
    assert mixture["responses"] == [
        {
            "id": "2_aggregate/0",
            "text": "c answers",
            "agent": "c",
            "step": "2_aggregate",
            "parents": ["1_propose/0", "1_propose/1"],
            "tool_calls": [],
        }
    ]

    def tokens(read: int, written: int) -> dict[str, int]:
        return {
            "input_tokens": read,
            "output_tokens": written,
            "total_tokens": read + written,
            "estimated_tokens": 0,
        }

    total, one, two = tokens(30, 15), tokens(10, 5), tokens(20, 10)
    assert mixture["usage"] == {
        **total,
        "models": {"a": one, "b": one, "c": one},
        "steps": {"1_propose": two, "2_aggregate": one},
    }
    assert state["messages"][-1].response_metadata["mixture"] == {
        **{key: mixture[key] for key in ("status", "reasons")},
        "usage": {
            key: value
            for key, value in mixture["usage"].items()
            if key not in ("models", "steps")
        },
    }
    json.dumps(mixture)


def test_the_history_has_the_rows_of_mixture_llm() -> None:
    """A row a step: outputs, the calls with their tokens, times in seconds."""
    graph = create_mixture(
        [Propose(["a", "b"]), Take(1), Aggregate("a")], client=models("a", "b")
    )
    rows = graph.invoke(ask())["mixture"]["history"]
    assert [row["step"] for row in rows] == ["Propose", "Take", "Aggregate"]
    assert [row["outputs"] for row in rows] == [
        ["a answers", "b answers"],
        ["a answers"],
        ["a answers"],
    ]
    assert [row["responses"] for row in rows][:2] == [
        ["1_propose/0", "1_propose/1"],
        ["1_propose/0"],
    ]
    for row in rows:
        assert 0 <= row["step_time"] < 60
        for call in row["llm_calls"]:
            theirs = {"model", "time", "in_tokens", "out_tokens"}
            ours = {"agent", "response", "model_name", "total_tokens"}
            assert {*call} - {"shown"} == theirs | ours
            assert 0 <= call["time"] <= row["step_time"] + 0.05
    assert rows[2]["llm_calls"][0]["shown"] == ["1_propose/0"]


def test_the_time_of_a_step_begins_with_its_first_call() -> None:
    """The branches ran before the node that writes the row."""
    first = reply(0)
    first["started"] = 100.0
    now = time.time()
    written = history_row(Propose(["a"]), "1_propose", [], [first], now)
    assert written["step_time"] >= now - 100
    alone = history_row(Propose(["a"]), "1_propose", [], [], now)
    assert alone["step_time"] < now - 100


def test_replies_keep_the_order_of_the_agents_not_of_the_nodes_names() -> None:
    """Twelve samples come in the order in which they were asked for."""
    names = [f"m{n}" for n in range(12)]
    graph = create_mixture([Propose(names)], client=models(*names))
    mixture = graph.invoke(ask())["mixture"]
    assert [r["agent"] for r in mixture["responses"]] == names
    assert [c["model"] for c in mixture["history"][0]["llm_calls"]] == names


def test_the_answer_is_the_models_own_message() -> None:
    """Id, name, content blocks and metadata of the answering model survive."""
    blocks: Any = [{"type": "text", "text": "Fused."}, {"type": "reasoning", "x": 1}]
    message = AIMessage(
        blocks, id="own", name="chair", response_metadata={"finish_reason": "stop"}
    )
    client = {**models("a", "b"), "c": Scripted(model="c", script=message)}
    steps: list[Step] = [Propose(["a", "b"]), Aggregate("c")]
    for extra in ([], [Take(1)], [Shuffle(), Take(1)]):
        graph = create_mixture([*steps, *extra], client=client)
        answer = graph.invoke(ask())["messages"][-1]
        assert (answer.id, answer.name, answer.content) == ("own", "chair", blocks)
        assert answer.response_metadata["finish_reason"] == "stop"


def test_the_answering_step_is_the_last_that_writes() -> None:
    """Rank and transforms behind it choose among its messages; Map rewrites them."""
    client = models("a", "b", judge="Ranking: 2")
    client["b"] = Scripted(model="b", script=AIMessage("from b", id="b-id"))
    steps: list[Step] = [Propose(["a", "b"]), Rank("judge", 1)]
    answer = create_mixture(steps, client=client).invoke(ask())["messages"][-1]
    assert (answer.text, answer.id) == ("from b", "b-id")
    steps.append(Map(str.upper))
    answer = create_mixture(steps, client=client).invoke(ask())["messages"][-1]
    assert (answer.text, answer.id) == ("FROM B", "b-id")


async def test_sync_async_batch_and_stream_give_the_same() -> None:
    """Every way to call the graph gives the same answer."""
    graph = create_mixture([Propose(["a", "b"]), Aggregate("c")], client=every_abc())
    states = [
        graph.invoke(ask()),
        await graph.ainvoke(ask()),
        *graph.batch([ask(), ask()]),
        *await graph.abatch([ask(), ask()]),
        list(graph.stream(ask(), stream_mode="values"))[-1],
        [s async for s in graph.astream(ask(), stream_mode="values")][-1],
    ]
    assert {state["messages"][-1].text for state in states} == {"c answers"}


def every_abc() -> dict[str, Scripted]:
    """Make three scripted models."""
    return models("a", "b", "c")


def test_a_steps_calls_are_worked_out_once_for_all_branches() -> None:
    """The prompts of a wide layer are not built anew by each of its branches."""
    worked_out = []

    @dataclass(frozen=True)
    class Counting(Synthesize):
        def calls(self, *arguments: Any) -> Sequence[Call]:
            worked_out.append(1)
            return super().calls(*arguments)

    steps = [Propose(["a"] * 8), Counting(["b"] * 8)]
    create_mixture(steps, client=models("a", "b")).invoke(ask())
    assert len(worked_out) == 1


def test_a_wide_step_is_not_narrowed_by_a_thread_pool() -> None:
    """The graph brings a max_concurrency as wide as its widest step."""
    barrier = threading.Barrier(64, timeout=30)

    def meet(_: list[BaseMessage]) -> str:
        barrier.wait()
        return "met"

    agent = Scripted(model="m", script=meet)
    state = create_mixture([Propose([agent] * 64)]).invoke(ask())
    assert state["mixture"]["status"] == "complete"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: create_mixture([Propose(["a"])], deadlin=1),  # type: ignore[arg-type]  # as below
            "create_mixture has no argument 'deadlin'; nearest: deadline",
        ),
        (
            lambda: asyncio.run(run([Propose(["a"])], "Why?", max_cals=1)),  # type: ignore[arg-type]  # as below
            "run has no argument 'max_cals'; nearest: max_calls",
        ),
        (
            lambda: self_moa("a", temperature=1),  # type: ignore[arg-type]  # as below
            "self_moa has no argument 'temperature'; nearest: temp",
        ),
        (
            lambda: moa_lite(["a"], "a", layers=3),  # type: ignore[arg-type]  # as below
            "moa_lite has no argument 'layers'; allowed: proposers, aggregator, temp, ",
        ),
        (
            lambda: together_moa(agregator="a"),  # type: ignore[arg-type]  # as below
            "together_moa has no argument 'agregator'; nearest: aggregator",
        ),
        (
            lambda: robust_moa(["a"], "a", sed=1),  # type: ignore[arg-type]  # a type checker sees it, too
            "robust_moa has no argument 'sed'; nearest: seed",
        ),
    ],
)
def test_a_misspelt_keyword_names_the_nearest(
    make: Callable[[], Any], message: str
) -> None:
    """Where a function does not have a keyword, the error says which one it has."""
    with pytest.raises(InvalidMixtureError, match=re.escape(message)):
        make()


def test_an_empty_conversation_is_an_error() -> None:
    """Nothing is asked where there is no message."""
    client = models("a")
    graph = create_mixture([Propose(["a"])], client=client)
    message = "1_propose: the conversation is empty; messages must hold one or more"
    with pytest.raises(StepFailedError, match=message):
        graph.invoke({"messages": []})
    builder = StateGraph(MessagesState).add_node("mixture", graph)
    around = builder.add_edge(START, "mixture").compile()
    with pytest.raises(StepFailedError, match=message):
        around.invoke({"messages": []})
    assert client["a"].asked == []


class Questions(TypedDict):
    """The state of a graph that has no messages."""

    question: str


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream", "astream"])
@pytest.mark.parametrize("face", ["alone", "on a thread", "as a subgraph"])
async def test_an_input_without_messages_is_an_error_that_says_so(
    face: str, how: str
) -> None:
    """What was given is named; no earlier question of the thread is answered again."""
    client = models("a")
    graph: Any = create_mixture(
        [Propose(["a"])], client=client, checkpointer=InMemorySaver()
    )
    if face == "on a thread":
        await graph.ainvoke(ask(), thread())
    if face == "as a subgraph":
        builder = StateGraph(Questions).add_node("mixture", graph)
        graph = builder.add_edge(START, "mixture").compile()
    asked = len(client["a"].asked)
    message = "messages is missing in the input, which has 'question'; allowed: "
    with pytest.raises(InvalidMixtureError, match=message):
        await called(graph, how, {"question": "Why?"}, thread())
    assert len(client["a"].asked) == asked


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "in the input, which has nothing"),
        ({"messages": None, "n": 1}, "in the input, which has 'n'"),
        ("Why?", "in the input, which is 'Why\\?'"),
        ([HumanMessage("Why?")], r"in the input, which is \[a HumanMessage\]"),
    ],
)
def test_an_input_that_is_no_state_is_an_error(given: Any, message: str) -> None:
    """What a chat model would take is refused, with the form that a graph takes."""
    with pytest.raises(InvalidMixtureError, match=message):
        create_mixture([Propose(["a"])], client=models("a")).invoke(given)


def test_a_state_of_a_class_is_an_input() -> None:
    """A graph around it may keep its state in a dataclass."""

    @dataclass
    class Talk:
        messages: Annotated[list[Any], operator.add]

    graph = create_mixture([Propose(["a"])], client=models("a"))
    around: Any = StateGraph(Talk).add_node("mixture", graph)
    state = around.add_edge(START, "mixture").compile().invoke(ask())
    assert state["messages"][-1].text == "a answers"


def test_a_seed_makes_what_is_drawn_repeatable_and_the_history_tells_it() -> None:
    """Seeded steps draw the same each time; which ids were drawn is recorded."""
    names = [f"m{n}" for n in range(8)]
    steps = [Propose(names), Shuffle(seed=1), Sample(5, seed=2), Dropout(0.5, seed=3)]
    graph = create_mixture(steps, client=models(*names))
    first, second = (
        [row["responses"] for row in graph.invoke(ask())["mixture"]["history"]]
        for _ in range(2)
    )
    assert first == second
    assert sorted(first[1]) == sorted(first[0]) != first[1]
    assert len(first[2]) == 5


def test_a_function_that_raises_names_its_step_and_loses_nothing() -> None:
    """Filter and Map report the user's own error with the responses at hand."""
    for step in (Filter(lambda text: 1 / 0), Map(lambda text: 1 / 0)):
        graph = create_mixture([Propose(["a"]), step], client=models("a"))
        name = type(step).__name__.lower()
        with pytest.raises(StepFailedError, match=f"2_{name}: ZeroDivision") as raised:
            graph.invoke(ask())
        assert isinstance(raised.value.__cause__, ZeroDivisionError)
        assert [r["text"] for r in raised.value.responses] == ["a answers"]
        assert len(raised.value.history) == 2
    with pytest.raises(StepFailedError, match="2_map: TypeError: fn returned 3"):
        create_mixture(
            [Propose(["a"]), Map(lambda text: 3)], client=models("a")
        ).invoke(ask())


async def test_a_filter_that_rejects_everything_leaves_no_responses() -> None:
    """NoResponsesError names the step and carries what was rejected."""
    graph = create_mixture(
        [Propose(["a"]), Filter(lambda text: False)],
        client=models("a"),
        on_failure="keep",
    )
    with pytest.raises(
        NoResponsesError, match="2_filter: no response was accepted"
    ) as e:
        await graph.ainvoke(ask())
    assert [r["text"] for r in e.value.responses] == ["a answers"]


async def test_a_function_may_answer_some_texts_at_once_and_others_later() -> None:
    """A function that is async in some cases only is waited for where it is."""

    async def later(text: str) -> bool:
        return text.startswith("b")

    graph = create_mixture(
        [Propose(["a", "b", "c"]), Filter(lambda t: t.startswith("a") or later(t))],
        client=every_abc(),
    )
    for state in (graph.invoke(ask()), await graph.ainvoke(ask())):
        outputs = state["mixture"]["history"][1]["outputs"]
        assert outputs == ["a answers", "b answers"]


def test_an_answer_that_a_function_made_empty_is_none() -> None:
    """A last Map that leaves nothing of a text has not answered with it."""
    client = models(a="(no reason)", b="42")
    steps = [Propose(["a", "b"]), Map(lambda text: text.partition("(")[0])]
    assert create_mixture(steps, client=client).invoke(ask())["messages"][-1].text == (
        "42"
    )
    with pytest.raises(NoResponsesError, match="2_map: no response was accepted"):
        create_mixture([Propose(["a"]), steps[1]], client=client).invoke(ask())


async def test_a_slow_function_does_not_hold_the_event_loop() -> None:
    """A sync Filter runs beside the loop, as LangGraph's sync nodes do."""
    loop = asyncio.get_running_loop()
    ticked = asyncio.Event()

    def slow(text: str) -> bool:
        asyncio.run_coroutine_threadsafe(_set(ticked), loop).result(30)
        return True

    graph = create_mixture([Propose(["a"]), Filter(slow)], client=models("a"))
    await graph.ainvoke(ask())
    assert ticked.is_set()


async def _set(event: asyncio.Event) -> None:
    event.set()


# -- Streams -------------------------------------------------------------------------


def streaming(*names: str) -> Any:
    """Make models that write word by word."""
    return {name: Streaming(model=name) for name in names}


async def test_messages_deliver_the_answers_tokens_once_and_nothing_else() -> None:
    """Proposals stay silent; the answer comes word by word, with one id."""
    graph: Any = create_mixture(
        [Propose(["a", "b"]), Aggregate("c")], client=streaming("a", "b", "c")
    )
    sync = list(graph.stream(ask(), stream_mode="messages"))
    parts = [part async for part in graph.astream(ask(), stream_mode="messages")]
    for stream in (sync, parts):
        texts = [message.text for message, _ in stream]
        assert [text for text in texts if text] == ["c", " answers"]
        assert len({message.id for message, _ in stream}) == 1
        assert {meta["mixture_step"] for _, meta in stream} == {"2_aggregate"}


@pytest.mark.parametrize(
    "extra", [[Take(1)], [Map(str.upper)], [Rank("a", 1)], [Shuffle()]]
)
def test_an_answer_that_is_chosen_or_changed_later_is_one_chunk(extra: Any) -> None:
    """Where steps follow the answering one, the answer comes whole and once."""
    client = streaming("a", "b", "c")
    steps = [Propose(["a", "b"]), Aggregate("c"), *extra]
    graph = create_mixture(steps, client=client)
    parts: Any = list(graph.stream(ask(), stream_mode="messages"))
    assert [message.text.lower() for message, _ in parts] == ["c answers"]


def test_a_chain_or_graph_as_the_answering_agent_is_one_chunk() -> None:
    """Only a model's own tokens are the answer's; what a chain makes of it is not."""
    inner = create_mixture([Propose([Streaming(model="x")])])
    chain = Streaming(model="y") | RunnableLambda(lambda m: m.text.upper())
    for agent, text in ((inner, "x answers"), (chain, "Y ANSWERS")):
        graph = create_mixture([Propose([agent])])
        parts: Any = list(graph.stream(ask(), stream_mode="messages"))
        assert [message.text for message, _ in parts] == [text]


def test_stream_proposals_delivers_every_branch_marked() -> None:
    """On request the proposers' tokens come too, each with its step and agent."""
    graph: Any = create_mixture(
        [Propose(["a", "b"]), Aggregate("c")],
        client=streaming("a", "b", "c"),
        stream_proposals=True,
    )
    texts: dict[tuple[str, str], str] = {}
    for message, meta in graph.stream(ask(), stream_mode="messages"):
        key = (meta["mixture_step"], meta["mixture_agent"])
        texts[key] = texts.get(key, "") + message.text
    assert texts == {
        ("1_propose", "a"): "a answers",
        ("1_propose", "b"): "b answers",
        ("2_aggregate", "c"): "c answers",
    }


async def test_the_answers_first_token_leaves_before_its_second_is_written() -> None:
    """The stream is the model's own, live: the model waits for its reader."""
    read = threading.Event()

    class Waiting(Streaming):
        def _stream(self, *args: Any, **kwargs: Any) -> Any:
            first, second = super()._stream(*args, **kwargs)
            yield first
            assert read.wait(30)
            yield second

    graph: Any = create_mixture([Propose([Waiting(model="m", script="one two")])])
    for message, _ in graph.stream(ask(), stream_mode="messages"):
        if message.text == "one":
            read.set()
    assert read.is_set()
    read.clear()
    async for message, _ in graph.astream(ask(), stream_mode="messages"):
        if message.text == "one":
            read.set()
    assert read.is_set()


# -- Threads and parents -------------------------------------------------------------


def test_two_turns_on_one_thread_do_not_mix() -> None:
    """The second turn sees the conversation and nothing else of the first."""
    client = models("a", "b", "c")
    graph = create_mixture(
        [Propose(["a", "b"]), Aggregate("c")],
        client=client,
        checkpointer=InMemorySaver(),
    )
    graph.invoke(ask("First?"), thread())
    state = graph.invoke(ask("Second?"), thread())
    assert [m.text for m in client["a"].asked[1]] == ["First?", "c answers", "Second?"]
    assert "First?" not in client["c"].asked[1][0].text
    assert client["c"].asked[1][-1].text.count("</response ") == 2
    assert len(state["mixture"]["history"]) == 2
    assert len(state["mixture"]["responses"]) == 1
    saved = graph.get_state(thread()).values
    assert not saved.get("replies")
    assert saved["answers"] == {}


def test_a_failed_turn_leaves_nothing_to_the_next_one() -> None:
    """After a turn that failed, a new question starts afresh on the thread."""
    client = models("a", "b", c=OSError("down"))
    graph = create_mixture(
        [Propose(["a", "b"]), Synthesize(["c", "c"]), Aggregate("a")],
        client=client,
        checkpointer=InMemorySaver(),
    )
    with pytest.raises(StepFailedError):
        graph.invoke(ask("First?"), thread())
    client["c"].script = "fine"
    state = graph.invoke(ask("Second?"), thread())
    assert state["mixture"]["status"] == "complete"
    assert len(state["mixture"]["history"]) == 3


def test_it_is_a_subgraph_and_shares_the_parents_saver() -> None:
    """As a node of the user's graph it leaves the parent's own keys alone."""

    class Parent(MessagesState):
        status: str
        history: Annotated[list[str], operator.add]

    graph = create_mixture([Propose(["a", "b"]), Aggregate("c")], client=every_abc())
    builder = StateGraph(Parent)
    builder.add_node("before", lambda _: {"status": "mine", "history": ["before"]})
    builder.add_node("mix", graph)
    builder.add_edge(START, "before")
    builder.add_edge("before", "mix")
    builder.add_edge("mix", END)
    parent = builder.compile(checkpointer=InMemorySaver())
    state = parent.invoke(ask(), thread())
    assert state["status"] == "mine"
    assert state["history"] == ["before"]
    assert [m.text for m in state["messages"]] == ["What is an ion?", "c answers"]
    parts: Any = parent.stream(
        ask(), thread("2"), stream_mode="updates", subgraphs=True
    )
    names = [name for _, update in parts for name in update]
    assert "1_propose/a" in names


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_as_a_subgraph_its_tasks_have_the_replies_and_the_parent_the_result(
    asynchronous: bool,
) -> None:
    """What the updates have where it runs by itself; `mixture` where it is declared."""

    class Parent(MessagesState):
        mixture: Result

    steps = [Propose(["a", "b"]), Aggregate("c")]
    client = models("a", "c", b=OSError("down"))
    builder = StateGraph(Parent).add_node("mix", create_mixture(steps, client=client))
    parent: Any = builder.add_edge(START, "mix").compile(checkpointer=InMemorySaver())
    how: Any = {"stream_mode": "tasks", "subgraphs": True}
    if asynchronous:
        parts = [part async for part in parent.astream(ask(), thread(), **how)]
    else:
        parts = list(parent.stream(ask(), thread(), **how))
    tasks = [task for _, task in parts]
    begun = [task["name"] for task in tasks if "result" not in task]
    ended = {
        task["name"]: (reply["text"], reply["error"])
        for task in tasks
        for reply in task.get("result", {}).get("replies", [])
    }
    assert ended == {
        "1_propose/a": ("a answers", None),
        "1_propose/b": ("", "OSError: down"),
    }
    assert begun == ["mix", *sorted(ended), "1_propose", "2_aggregate"]
    kept = parent.get_state(thread()).values["mixture"]
    assert kept["status"] == "degraded"
    assert len(kept["history"]) == 2


async def test_a_context_reaches_the_agents_that_read_one() -> None:
    """What is given as context is the same in an agent that is a graph."""

    class Context(TypedDict):
        user: str

    def node(state: MessagesState) -> Any:
        user = get_runtime(Context).context["user"]
        return {"messages": [AIMessage(f"hello {user}")]}

    builder = StateGraph(MessagesState, context_schema=Context)
    builder.add_node("n", node)
    builder.add_edge(START, "n")
    agent = builder.compile()
    graph = create_mixture([Propose([agent, agent])], context_schema=Context)
    for state in (
        graph.invoke(ask(), context={"user": "Ada"}),
        await graph.ainvoke(ask(), context={"user": "Ada"}),
    ):
        assert state["mixture"]["history"][0]["outputs"] == ["hello Ada"] * 2


def test_interrupt_before_a_step_stops_before_it_has_cost_anything() -> None:
    """A step that fans out is interrupted before its branches, not after."""
    client = models("a", "b", "c", "d")
    graph = create_mixture(
        [Propose(["a", "b"]), Synthesize(["c", "d"]), Aggregate("a")],
        client=client,
        checkpointer=InMemorySaver(),
        interrupt_before=["2_synthesize"],
        interrupt_after=["2_synthesize"],
    )
    graph.invoke(ask(), thread())
    assert client["c"].asked == client["d"].asked == []
    assert len(graph.get_state(thread()).values["mixture"]["responses"]) == 2
    graph.invoke(None, thread())
    assert len(client["c"].asked) == 1
    state = graph.invoke(None, thread())
    assert state["messages"][-1].text == "a answers"
    assert len(client["c"].asked) == 1


def test_the_name_of_one_step_will_do_for_an_interrupt() -> None:
    """`interrupt_before` takes a name where it takes a list of them."""
    client = every_abc()
    graph = create_mixture(
        [Propose(["a"]), Synthesize(["b", "c"])],
        client=client,
        checkpointer=InMemorySaver(),
        interrupt_before="2_synthesize",
    )
    graph.invoke(ask(), thread())
    assert client["b"].asked == []
    assert graph.invoke(None, thread())["messages"][-1].text == "b answers"


def test_a_step_may_be_looked_at_before_the_run_goes_on() -> None:
    """`interrupt_after` stops where the step has recorded what it did."""
    client = every_abc()
    graph = create_mixture(
        [Propose(["a", "b"]), Aggregate("c")],
        client=client,
        checkpointer=InMemorySaver(),
        interrupt_after=["1_propose"],
    )
    graph.invoke(ask(), thread())
    assert graph.get_state(thread()).next == ("2_aggregate",)
    assert client["c"].asked == []
    assert graph.invoke(None, thread())["messages"][-1].text == "c answers"


def test_a_store_reaches_the_agents_that_are_graphs() -> None:
    """What the mixture was built with is what its agents find."""

    def node(state: MessagesState) -> Any:
        store = get_runtime().store
        assert store is not None
        item = store.get(("a",), "b")
        assert item is not None
        return {"messages": [AIMessage(item.value["c"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("n", node)
    builder.add_edge(START, "n")
    store = InMemoryStore()
    store.put(("a",), "b", {"c": "stored"})
    graph = create_mixture([Propose([builder.compile()])], store=store)
    assert graph.invoke(ask())["messages"][-1].text == "stored"


def test_a_turns_messages_do_not_stay_in_the_state() -> None:
    """What was kept until the answer was chosen is gone when it is."""
    graph = create_mixture(
        [Propose(["a", "b"]), Rank("c", 1)],
        client=models("a", "b", c="Ranking: 2"),
        checkpointer=InMemorySaver(),
    )
    graph.invoke(ask(), thread())
    values = graph.get_state(thread()).values
    assert values["answers"] == {}


@pytest.mark.parametrize("face", ["graph", "chat", "chain"])
def test_an_agent_that_is_a_graph_keeps_its_own_recursion_limit(face: str) -> None:
    """Thirty rounds of tools are the agent's business, and not the mixture's."""

    @tool
    def look() -> str:
        """Look around."""
        return "nothing"

    class Looping(Scripted):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            return self

    call = {"name": "look", "args": {}, "id": "1"}

    def script(messages: list[BaseMessage]) -> AIMessage:
        done = sum(message.type == "tool" for message in messages) == 30
        return AIMessage("done") if done else AIMessage("", tool_calls=[call])

    agent = create_agent(Looping(model="m", script=script), [look])
    steps = [Propose([agent])]
    if face == "graph":
        answer = create_mixture(steps).invoke(ask())["messages"][-1]
    elif face == "chat":
        answer = ChatMixture(steps).invoke("Why?")
    else:
        answer = (RunnableLambda(str) | ChatMixture(steps)).invoke("Why?")
    assert answer.text == "done"


def test_time_travel_changes_the_responses_of_a_past_checkpoint() -> None:
    """A past checkpoint's responses are edited, and the run goes on from there."""
    client = every_abc()
    graph = create_mixture(
        [Propose(["a", "b"]), Aggregate("c")],
        client=client,
        checkpointer=InMemorySaver(),
    )
    graph.invoke(ask(), thread())
    past = next(
        s for s in graph.get_state_history(thread()) if s.next == ("2_aggregate",)
    )
    responses = [{**r, "text": "edited"} for r in past.values["mixture"]["responses"]]
    fork = graph.update_state(past.config, {"mixture": {"responses": responses[:1]}})
    state = graph.invoke(None, fork)
    assert "edited" in client["c"].asked[1][-1].text
    assert "a answers" not in client["c"].asked[1][-1].text
    assert [row["step"] for row in state["mixture"]["history"]] == [
        "Propose",
        "Aggregate",
    ]
    assert len(client["a"].asked) == 1


# -- A step of one's own -------------------------------------------------------------


@dataclass(frozen=True)
class Longest(Step):
    """A transform in its author's file."""

    def keep(
        self, responses: Sequence[Response], replies: Sequence[Reply]
    ) -> list[Response]:
        return [max(responses, key=lambda response: len(response["text"]))]


@dataclass(frozen=True)
class Debate(Step):
    """A step that asks: each agent sees the answers of the others."""

    agents: tuple[Agent, ...]

    answers = True

    def bounds(self, n: int) -> tuple[Sequence[Agent], int]:
        return self.agents, len(self.agents)

    def calls(
        self, conversation: Sequence[BaseMessage], responses: Sequence[Response]
    ) -> Sequence[Call]:
        return [
            Call(
                messages=[
                    SystemMessage(
                        " ".join(r["text"] for r in responses if r is not mine)
                    ),
                    *conversation,
                ],
                parents=[r["id"] for r in responses if r is not mine],
            )
            for mine in responses
        ]


def test_a_thirteenth_step_is_a_class_in_its_authors_file() -> None:
    """A transform and a step that asks work without being registered anywhere."""
    client = models("c", a="a long answer", b="short")
    graph = create_mixture(
        [Propose(["a", "b"]), Debate(("a", "b")), Longest()], client=client
    )
    state = graph.invoke(ask())
    assert client["a"].asked[1][0].text == "short"
    assert client["b"].asked[1][0].text == "a long answer"
    assert state["messages"][-1].text == "a long answer"
    assert [row["name"] for row in state["mixture"]["history"]] == [
        "1_propose",
        "2_debate",
        "3_longest",
    ]


@dataclass(frozen=True)
class Broken(Step):
    """A step with a fault of its author's."""

    fault: str

    def bounds(self, n: int) -> tuple[Sequence[Agent], int]:
        return ("a", "b"), n

    def calls(
        self, conversation: Sequence[BaseMessage], responses: Sequence[Response]
    ) -> Sequence[Call]:
        if self.fault == "calls":
            raise KeyError("oops")
        count = 3 if self.fault == "too many" else 1
        return [Call(messages=[HumanMessage("?")], parents=[])] * count

    def keep(
        self, responses: Sequence[Response], replies: Sequence[Reply]
    ) -> list[Response]:
        faulty: Any = {
            "keep": None,
            "text": ["x"],
            "part": [{"text": "x"}],
            "too much": [*responses, *responses],
        }
        return faulty[self.fault]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("calls", "2_broken: KeyError: 'oops'"),
        ("too many", r"calls\(\) returned 3 calls; bounds\(\) allows at most 2"),
        ("keep", r"keep\(\) returned None; it must return a list"),
        ("text", r"keep\(\) returned a list with 'x'; allowed: responses"),
        ("part", r"keep\(\) returned a list with a dict; allowed: responses"),
        (
            "too much",
            r"2_broken: .*keep\(\) returned 2 responses; bounds\(\) allows at most 1",
        ),
    ],
)
def test_a_fault_in_a_step_of_ones_own_names_the_step(fault: str, message: str) -> None:
    """What a custom step raises or promises wrongly is told with its name."""
    graph = create_mixture([Propose(["a"]), Broken(fault)], client=models("a", "b"))
    with pytest.raises(StepFailedError, match=message) as raised:
        graph.invoke(ask())
    assert [r["text"] for r in raised.value.responses] == ["a answers"]


def test_a_step_of_ones_own_may_take_tool_calls_out_of_the_answer() -> None:
    """What the last step keeps is the answer, and not what the model had wished."""

    @dataclass(frozen=True)
    class Disarm(Step):
        def keep(self, responses: Any, replies: Any) -> list[Response]:
            return [cast("Response", {**r, "tool_calls": []}) for r in responses]

    call = {"name": "search", "args": {}, "id": "1"}
    said = AIMessage("I look it up.", tool_calls=[call], id="1")
    model = Scripted(model="m", script=said)
    answer = create_mixture([Propose([model]), Disarm()]).invoke(ask())["messages"][-1]
    assert (answer.text, answer.tool_calls) == ("I look it up.", [])


def test_a_step_of_ones_own_that_keeps_nothing_loses_nothing() -> None:
    """What its calls answered is in the error, beside what it was given."""

    @dataclass(frozen=True)
    class Picky(Synthesize):
        def keep(self, *_: Any) -> list[Response]:
            return []

    client = models("a", "b", c=OSError("down"))
    steps = [Propose(["a"]), Picky(["b", "c"])]
    with pytest.raises(StepFailedError, match="2_picky has no answer: ") as raised:
        create_mixture(steps, client=client).invoke(ask())
    texts = [response["text"] for response in raised.value.responses]
    assert texts == ["a answers", "b answers"]


# -- Presets and run ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: self_moa("a", samples=0),
            "samples is 0; allowed: a whole number >= 1",
        ),
        (lambda: together_moa(layers=1), "layers is 1; allowed: a whole number >= 2"),
        (lambda: moa_lite([]), r"moa_lite: proposers is \[\]; allowed"),
        (lambda: robust_moa(["a"], "b", rate=2), "Dropout: rate is 2; allowed"),
    ],
)
def test_a_preset_names_what_it_cannot_use(make: Any, message: str) -> None:
    """A preset's wrong argument is an error of building."""
    with pytest.raises(InvalidMixtureError, match=message):
        make()


def test_presets_are_the_papers_pipelines_as_plain_lists() -> None:
    """The papers' layers, temperature and limit; the aggregator is set apart."""
    assert TOGETHER_PROPOSERS == (
        "wizardlm-2-8x22b",
        "qwen1.5-110b-chat",
        "qwen1.5-72b-chat",
        "llama-3-70b-instruct",
        "mixtral-8x22b-instruct",
        "dbrx-instruct",
    )
    three = together_moa()
    assert [type(step) for step in three] == [Propose, Synthesize, Aggregate]
    assert three[0] == Propose(TOGETHER_PROPOSERS, 0.7, 2048)
    assert three[2] == Aggregate("qwen1.5-110b-chat", temp=0.7, max_tokens=2048)
    assert len(together_moa(layers=5)) == 5
    assert moa_lite() == [
        Propose(TOGETHER_PROPOSERS, 0.7, 2048),
        Aggregate("qwen1.5-72b-chat", temp=0.7, max_tokens=2048),
    ]
    six = self_moa("m", aggregator="x", temp=None)
    assert six == [
        Propose(["m"] * 6, max_tokens=2048),
        Aggregate("x", max_tokens=2048),
    ]
    assert robust_moa(["a", "b"], "c", seed=1) == [
        Propose(["a", "b"], 0.7, 2048),
        Shuffle(seed=1),
        Dropout(0.2, seed=1),
        Aggregate("c", temp=0.7, max_tokens=2048),
    ]


@pytest.mark.parametrize("query", [7, None, [("user", "Why?")]])
async def test_run_takes_a_question_as_text(query: Any) -> None:
    """What is none is refused before any call."""
    client = models("a")
    with pytest.raises(InvalidMixtureError, match=r"query is .*; allowed: a string"):
        await run([Propose(["a"])], query, client)
    assert client["a"].asked == []


async def test_run_gives_text_and_history() -> None:
    """Three lines, without knowing LangChain."""

    async def client(
        model: str, messages: list[dict[str, Any]], temp: float, max_tokens: int
    ) -> tuple[str, int, int]:
        question = messages[-1]["content"].splitlines()[0]
        return f"{model} {temp} {max_tokens} {question}", 3, 4

    steps = [Propose(["a", "b"], 0.1, 9), Aggregate("c")]
    text, history = await run(steps, "Why?", client)
    assert text == "c 0.7 2048 Why?"
    assert history[0]["outputs"] == ["a 0.1 9 Why?", "b 0.1 9 Why?"]
    assert history[1]["llm_calls"][0]["in_tokens"] == 3
