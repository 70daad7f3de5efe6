"""Pipelines as programs: steps that are skipped, loops, and conditions as quorums."""

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.messages import AIMessage, BaseMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import MessagesState, StateGraph
from langgraph.types import Command, interrupt

from langchain_mixture import (
    Aggregate,
    ChatMixture,
    InvalidMixtureError,
    Majority,
    MixtureError,
    Propose,
    Refine,
    Response,
    Shuffle,
    Step,
    StepFailedError,
    Synthesize,
    Take,
    cascade,
    count_calls,
    create_mixture,
    letter,
    panel_vote,
    run,
    self_consistency,
    until,
)
from langchain_mixture.conditions import agreed, decided, lead
from langchain_mixture.plan import answering_of
from tests.models import Scripted, Streaming, add, ask, called, models
from tests.recorded import letters, recorded
from tests.test_conditions import FOUR, date

WAYS = ["invoke", "ainvoke", "stream", "astream"]
BOUND = 30
CONFIG: Any = {"configurable": {"thread_id": "1"}}
SAME = {"a": "Paris", "b": "paris.", "c": "Rome"}


def rows(state: Any) -> list[tuple[str, Any, int]]:
    """Give of each row its step, the condition that skipped it, and its calls."""
    return [
        (row["name"], row.get("skipped"), len(row["llm_calls"]))
        for row in state["mixture"]["history"]
    ]


def asked(client: dict[str, Any]) -> dict[str, int]:
    """Count the calls of each model."""
    return {name: len(model.asked) for name, model in client.items()}


# -- Skipping ------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("panel", "answer", "calls", "skipped"),
    [("ab", "Paris", 2, "agreed()"), ("ac", "The writer decides", 3, None)],
    ids=["agreed", "differ"],
)
async def test_a_step_is_skipped_where_its_condition_holds(
    way: str, panel: str, answer: str, calls: int, skipped: str | None
) -> None:
    """Of a graph, in all ways of calling: no call, and a row that says why."""
    client = {**models(**SAME), **models(w="The writer decides")}
    steps = [Propose(list(panel)), Aggregate("w", unless=agreed())]
    state = await called(create_mixture(steps, client=client), way, ask(), None)
    assert state["messages"][-1].text == answer
    assert sum(asked(client).values()) == calls
    assert rows(state)[1] == ("2_aggregate", skipped, calls - 2)
    assert state["mixture"]["history"][1]["outputs"][0] == answer
    assert state["mixture"]["status"] == "complete"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("last", ["runs", "is skipped"])
async def test_a_chat_model_answers_and_streams_all_the_same(
    way: str, last: str
) -> None:
    """The answer comes once, whole where it was chosen, in tokens where written."""
    panel = "ab" if last == "is skipped" else "ac"
    client = {
        **{name: Streaming(model=name, script=said) for name, said in SAME.items()},
        "w": Streaming(model="w", script="The writer decides"),
    }
    model = ChatMixture(
        [Propose(list(panel)), Aggregate("w", unless=agreed())], client=client
    )
    expected = "Paris" if last == "is skipped" else "The writer decides"
    assert (await called(model, way, "Where?", None)).text == expected
    chunks = [chunk.text async for chunk in model.astream("Where?")]
    assert "".join(chunks) == expected
    assert sum(map(bool, chunks)) == (1 if last == "is skipped" else 3)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_mixture_that_skips_works_inside_other_graphs(
    asynchronous: bool,
) -> None:
    """As an agent of a mixture, as a chat model in a node, and as a subgraph."""
    client = {**models(**SAME), **models("w")}
    inner = [Propose(["a", "b"]), Aggregate("w", unless=agreed())]
    agent = ChatMixture(inner, client=client)
    outer = create_mixture([Propose([agent, agent]), Majority()])
    around: Any = StateGraph(MessagesState)
    around.add_node("mixture", create_mixture(inner, client=client))
    around.add_edge("__start__", "mixture")
    for graph in (outer, around.compile(checkpointer=InMemorySaver())):
        if asynchronous:
            state = await graph.ainvoke(ask(), CONFIG)
        else:
            state = graph.invoke(ask(), CONFIG)
        assert state["messages"][-1].text == "Paris"
    assert asked(client)["w"] == 0


def test_what_is_skipped_takes_no_superstep_and_the_drawing_leads_past_it() -> None:
    """Only nodes that ran are told of, and an edge goes past the loop."""
    client = models("w", **SAME)
    loop = until(agreed(), [Synthesize(["a", "b"])], most=3)
    steps = [Propose(["a", "b"]), loop, Aggregate("w")]
    graph = create_mixture(steps, client=client)
    ran = [name for part in graph.stream(ask(), stream_mode="updates") for name in part]
    assert sorted(ran[:2]) == ["1_propose/a", "1_propose/b"]
    assert ran[2:] == ["1_propose", "5_aggregate"]
    edges = {(edge.source, edge.target) for edge in graph.get_graph().edges}
    assert ("1_propose", "5_aggregate") in edges
    assert ("3_synthesize", "5_aggregate") in edges
    assert ("5_aggregate", "__end__") in edges
    assert ("1_propose", "4_synthesize/a") in edges


async def test_a_condition_is_asked_once_for_the_same_responses() -> None:
    """Once for a whole loop that it skips, and never before there are responses."""
    seen: list[list[str]] = []

    async def enough(responses: Sequence[Response]) -> bool:
        seen.append([response["text"] for response in responses])
        return len(responses) > 1

    client = models("a")
    loop = until(enough, [Propose(["a"], add=True), Shuffle()], most=4)
    text, history = await run(loop, "Why?", client)
    assert text == "a answers"
    assert asked(client) == {"a": 2}
    assert seen == [["a answers"]] * 2 + [["a answers"] * 2]
    assert [row.get("skipped") for row in history] == [None] * 3 + ["enough"] * 5


@dataclass(frozen=True)
class Shorten(Step):
    """A user's own step, which knows nothing of conditions."""

    by: int = 1

    def keep(self, responses: Any, replies: Any) -> Any:
        return [{**r, "text": r["text"][: -self.by]} for r in responses]


def test_until_repeats_steps_of_a_users_own() -> None:
    """A copy of each is made: the user's step stays as it was."""
    step = Shorten(2)

    def short(responses: Any) -> bool:
        return len(responses[0]["text"]) < 5

    steps = [Propose(["a"]), until(short, [step], most=9)]
    state = create_mixture(steps, client=models("a")).invoke(ask())
    assert state["messages"][-1].text == "a a"
    assert step.unless is None
    assert sum("skipped" in row for row in state["mixture"]["history"]) == 6


@pytest.mark.parametrize("by", ["own", "loop", "neither"])
def test_until_keeps_a_condition_of_the_steps_own(by: str) -> None:
    """Either skips, and the history says which."""

    def own(_: Any) -> bool:
        return by == "own"

    def loop(_: Any) -> bool:
        return by == "loop"

    steps = [Propose(["a", "b"]), until(loop, [Take(1, unless=own)], most=1)]
    assert str(steps[1][0]) == "Take(n=1, unless=own or loop)"  # type: ignore[index]
    state = create_mixture(steps, client=models("a", "b")).invoke(ask())
    assert rows(state)[1][1] == (None if by == "neither" else by)
    assert len(state["mixture"]["responses"]) == (1 if by == "neither" else 2)


@pytest.mark.parametrize(
    ("own", "loop", "skips"),
    [(True, False, True), (False, True, True), (False, False, False)],
    ids=["own", "loop", "neither"],
)
async def test_the_condition_of_a_looped_step_is_a_function_of_responses(
    own: bool, loop: bool, skips: bool
) -> None:
    """It can be called as any other, and the step can be copied with changes."""

    async def later(_: Any) -> bool:
        return loop

    step: Any = until(later, [Take(2, unless=lambda _: own)], most=1)[0]
    condition = replace(step, n=1).unless
    assert await condition([]) is skips


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_condition_may_ask_a_person(asynchronous: bool) -> None:
    """An interrupt in it pauses the run, and the answer decides."""

    def condition(_: Any) -> bool:
        return bool(interrupt("Is this enough?"))

    client = models("a", "b", "c")
    graph = create_mixture(
        [Propose(["a", "c"]), Refine(["b"], unless=condition)],
        client=client,
        checkpointer=InMemorySaver(),
    )
    way = "ainvoke" if asynchronous else "invoke"
    state = await called(graph, way, ask(), CONFIG)
    assert state["__interrupt__"][0].value == "Is this enough?"
    state = await called(graph, way, Command(resume=True), CONFIG)
    assert len(state["mixture"]["responses"]) == 2
    assert asked(client) == {"a": 1, "b": 0, "c": 1}


class Asks(Step):
    """Asks a person which responses go on."""

    def keep(self, responses: Any, replies: Any) -> list[Response]:
        chosen = interrupt([response["text"] for response in responses])
        return [responses[number] for number in chosen]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_step_of_ones_own_may_ask_a_person(asynchronous: bool) -> None:
    """The run pauses with its question, and goes on with the answer."""
    client = models("a", "b", "c")
    graph = create_mixture(
        [Propose(["a", "b"]), Asks(), Aggregate("c")],
        client=client,
        checkpointer=InMemorySaver(),
    )
    way = "ainvoke" if asynchronous else "invoke"
    state = await called(graph, way, ask(), CONFIG)
    assert state["__interrupt__"][0].value == ["a answers", "b answers"]
    state = await called(graph, way, Command(resume=[1]), CONFIG)
    assert [r["text"] for r in state["mixture"]["responses"]] == ["c answers"]
    assert "b answers" in client["c"].asked[0][-1].text
    assert "a answers" not in client["c"].asked[0][-1].text
    assert asked(client) == {"a": 1, "b": 1, "c": 1}


def test_a_list_inside_a_pipeline_stands_for_its_steps() -> None:
    """In all faces, however deep."""
    client = models("a", "b")
    steps = [[Propose(["a", "b"])], [[Shuffle()], [Take(1)]]]
    flat = [Propose(["a", "b"]), Shuffle(), Take(1)]
    assert count_calls(steps) == count_calls(flat) == 2
    model = ChatMixture(steps, client=client)
    assert model.steps == flat
    assert model.invoke("Why?").text.endswith("answers")
    assert asyncio.run(run(steps, "Why?", client))[0].endswith("answers")
    graph = create_mixture(steps, client=client)
    assert [row[0] for row in rows(graph.invoke(ask()))] == [
        "1_propose",
        "2_shuffle",
        "3_take",
    ]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Take(1, unless=True), "Take: unless is True; allowed: None or a"),  # type: ignore[arg-type]
        (lambda: Take(1, unless=agreed), "Take: unless is"),  # type: ignore[arg-type]
        (lambda: until(1, [Take(1)], most=2), "until: condition is 1"),  # type: ignore[arg-type]
        (lambda: until(agreed(), [Take(1)], most=0), "until: most is 0"),
        (lambda: until(agreed(), [], most=2), "steps is []; allowed: a list"),
        (lambda: Propose(["a"], quorum="all"), "Propose: quorum is 'all'"),  # type: ignore[arg-type]
        (lambda: Propose(["a"], add=1), "Propose: add is 1; allowed: True or False"),  # type: ignore[arg-type]
        (lambda: create_mixture([[Take]]), "steps[0][0] is the class Take"),
        (lambda: count_calls([[Take(1), "x"]]), "steps[0][1] is 'x'"),
        (lambda: cascade(["a"], "b", letter), "cascade: cheap is ['a']"),
        (lambda: self_consistency("a", waves=[]), "waves is []"),
        (lambda: self_consistency("a", stop=3), "unless is 3"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_a_program_is_an_error(
    make: Callable[[], Any], said: str
) -> None:
    """Where it is written, with the culprit and what is allowed."""
    with pytest.raises(InvalidMixtureError, match=r"allowed|write Take") as raised:
        make()
    assert said in str(raised.value)


def test_more_responses_reach_the_steps_behind_one_that_may_be_skipped() -> None:
    """Its bounds are no longer the most that can arrive."""
    steps = [Propose(["a", "b", "c"]), Take(1, unless=lambda _: True), Refine(["r"])]
    assert count_calls(steps) == 6
    client = models("a", "b", "c", "r")
    state = create_mixture(steps, client=client).invoke(ask())
    assert asked(client)["r"] == 3
    assert len(state["mixture"]["responses"]) == 3


def test_an_answer_without_text_cannot_be_the_last_word() -> None:
    """Where the end is skipped, the step in front is checked as the last one is."""
    steps = [Propose(["a"]), Shorten(99), Aggregate("w", unless=lambda _: True)]
    with pytest.raises(MixtureError, match="no response is left"):
        create_mixture(steps, client=models("a", "w")).invoke(ask())


# -- Conditions that raise -----------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("then", ["skip", "run"])
@pytest.mark.parametrize("branches", ["w", "wx"])
async def test_a_condition_that_raises_fails_its_step_and_costs_nothing(
    asynchronous: bool, then: str, branches: str, tmp_path: Any
) -> None:
    """The step fails by name; a resume asks the condition, and no call again."""
    fails = True

    def enough(_: Any) -> bool:
        if fails:
            raise KeyError("votes")
        return then == "skip"

    client = models("a", "b", "w", "x")
    steps = [
        Propose(["a", "b"]),
        Synthesize(list(branches), unless=enough),
        Take(1),
    ]
    database = str(tmp_path / "threads.sqlite")

    async def go(inputs: Any) -> Any:
        if asynchronous:
            async with AsyncSqliteSaver.from_conn_string(database) as saver:
                graph = create_mixture(steps, client=client, checkpointer=saver)
                return await graph.ainvoke(inputs, CONFIG)
        with SqliteSaver.from_conn_string(database) as saver:
            graph = create_mixture(steps, client=client, checkpointer=saver)
            return graph.invoke(inputs, CONFIG)

    for inputs in (ask(), None):  # it may raise again
        with pytest.raises(StepFailedError, match="2_synthesize: KeyError") as raised:
            await go(inputs)
        assert len(raised.value.responses) == 2
        assert len(raised.value.history) == 2
    fails = False
    state = await go(None)
    counts = asked(client)
    assert (counts["a"], counts["b"]) == (1, 1)
    assert counts["w"] == (then == "run")
    assert counts["x"] == (then == "run" and branches == "wx")
    assert [row[0] for row in rows(state)] == ["1_propose", "2_synthesize", "3_take"]
    assert rows(state)[1][1] == ("enough" if then == "skip" else None)
    # The thread goes on with another turn.
    state = await go(ask("And now?"))
    assert len(state["messages"]) == 4


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_the_last_step_may_skip_itself_after_a_resume(asynchronous: bool) -> None:
    """The answer is that of the steps before, with its own message."""
    fails = True

    async def enough(_: Any) -> bool:
        if fails:
            raise OSError("down")
        return True

    client = models("a", "w")
    steps = [Propose(["a"]), Aggregate("w", unless=enough)]
    graph = create_mixture(steps, client=client, checkpointer=InMemorySaver())
    with pytest.raises(StepFailedError, match="2_aggregate: OSError: down"):
        await graph.ainvoke(ask(), CONFIG)
    fails = False
    if asynchronous:
        state = await graph.ainvoke(None, CONFIG)
    else:
        state = await asyncio.to_thread(graph.invoke, None, CONFIG)
    assert state["messages"][-1].text == "a answers"
    assert state["messages"][-1].response_metadata["model_name"] == "a"
    assert asked(client) == {"a": 1, "w": 0}


@pytest.mark.parametrize("said", [None, "yes", 2, [True]])
def test_a_condition_must_say_yes_or_no(said: Any) -> None:
    """A forgotten `return` is no "no"."""
    steps = [Propose(["a"]), Aggregate("w", unless=lambda _: said)]
    with pytest.raises(StepFailedError, match=r"2_aggregate: .*allowed: True or False"):
        create_mixture(steps, client=models("a", "w")).invoke(ask())


def test_each_wave_is_a_checkpoint() -> None:
    """Stopped after five samples of ten, a resume asks the five others."""
    broken = True

    def script(_: Any) -> str:
        if broken and len(client["m"].asked) > 5:
            raise KeyboardInterrupt
        return str(len(client["m"].asked))

    client = models(m=script)
    steps = self_consistency("m", stop=lead(9))
    graph = create_mixture(steps, client=client, checkpointer=InMemorySaver())
    one_by_one: Any = {**CONFIG, "max_concurrency": 1}
    with pytest.raises(KeyboardInterrupt):
        graph.invoke(ask(), one_by_one)
    stopped = len(client["m"].asked)
    broken = False
    state = graph.invoke(None, CONFIG)
    assert stopped in (6, 7)  # both samples of the third wave may have begun
    assert len(client["m"].asked) - stopped == 5
    assert sum(row[2] for row in rows(state)) == 10


# -- Who answers ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "positions"),
    [
        ([Propose(["a"]), Aggregate("b")], {1}),
        ([Propose(["a"]), Aggregate("b", unless=agreed())], {0, 1}),
        ([Propose(["a"]), Propose(["b"], add=True), Majority()], {0, 1}),
        ([Propose(["a"]), Synthesize(["b"]), Refine(["c"], unless=agreed())], {1, 2}),
        ([Propose(["a"]), Take(1, unless=agreed()), Aggregate("b")], {2}),
        (until(agreed(), [Propose(["a"])], most=3), {0, 1, 2}),
    ],
    ids=["last", "unless", "add", "back to one", "no writer", "loop"],
)
def test_steps_before_one_that_may_be_skipped_may_answer_as_well(
    steps: list[Step], positions: set[int]
) -> None:
    """Back to a writing step that has neither `unless` nor `add`."""
    assert answering_of(steps) == positions


class Tooled(Scripted):
    """Takes tools, and calls the one that it is given."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind(tools=[tool.name for tool in tools], **kwargs)


@pytest.mark.parametrize("way", WAYS)
async def test_who_answers_early_has_the_callers_tools_and_settings(way: str) -> None:
    """A cheap model's tool call is the answer, with its own message, unchanged."""
    call = {"name": "add", "args": {"a": 1, "b": 2}, "id": "1", "type": "tool_call"}
    message = AIMessage("", tool_calls=[call], additional_kwargs={"mine": 1})
    client = {name: Tooled(model=name, script=message) for name in "abw"}
    steps = [Propose(["a", "b"]), Aggregate("w", unless=agreed())]
    model = ChatMixture(steps, client=client, temperature=0.5)
    bound = model.bind_tools([add], tool_choice="add")
    if way in ("invoke", "ainvoke"):
        answer = await called(bound, way, "1 + 2?", None)
        assert answer.additional_kwargs == {"mine": 1}
    else:
        parts = [part async for part in bound.astream("1 + 2?")]
        answer = sum(parts[1:], start=parts[0])
    assert answer.tool_calls[0]["args"] == {"a": 1, "b": 2}
    assert asked(client) == {"a": 1, "b": 1, "w": 0}
    for name in "ab":
        (given,) = client[name].arguments
        assert given["tools"] == ["add"]
        assert given["tool_choice"] == "add"
        assert given["temperature"] == 0.5


# -- Adding --------------------------------------------------------------------------


def test_what_is_added_stands_behind_what_was_there() -> None:
    """And stays where every new call fails; the result says so."""
    client = models("a", "b", c=OSError("down"))
    steps = [Propose(["a"]), Propose(["b", "c"], add=True), Propose(["c"], add=True)]
    mixture = create_mixture(steps, client=client).invoke(ask())["mixture"]
    assert [r["text"] for r in mixture["responses"]] == ["a answers", "b answers"]
    assert mixture["status"] == "degraded"
    assert len(mixture["reasons"]) == 2


def test_samples_are_counted_through_all_steps_that_add() -> None:
    """An LLM cache gives no two of them one answer, and the next run all of them."""
    numbers = itertools.count(1)
    client = models(m=lambda _: f"sample {next(numbers)}")
    steps = [Propose(["m", "m"]), until(lead(9), [Propose(["m"], add=True)], most=3)]
    set_llm_cache(InMemoryCache())
    try:
        for _ in range(2):
            state = create_mixture(steps, client=client).invoke(ask())
            texts = {r["text"] for r in state["mixture"]["responses"]}
            assert texts == {f"sample {n}" for n in range(1, 6)}
    finally:
        set_llm_cache(None)
    assert asked(client) == {"m": 5}


def test_steps_that_one_condition_skips_share_one_part_of_the_deadline() -> None:
    """A loop of ten rounds counts as one step beside the others."""
    loop = until(agreed(), [Synthesize(["a"])], most=10)
    other = Refine(["a"], unless=decided(of=2))
    steps = [Propose(["a"]), loop, other, Aggregate("a")]
    graph: Any = create_mixture(steps, client=models("a"), deadline=60)
    gathers = [node.runnable for node in graph.builder.nodes.values()]
    left = [gather._layer.steps_left for gather in gathers if hasattr(gather, "_layer")]
    assert left == [4, *[3] * 10, 2, 1]


# -- A condition as a quorum ---------------------------------------------------------


class Held(Scripted):
    """Answers once it is let go; a sync call in its own thread, an async one here."""

    go: Any = None

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        if self.go is not None:
            assert self.go.wait(BOUND)
        return super()._generate(*args, **kwargs)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_the_rest_is_given_up_as_soon_as_a_condition_holds(
    asynchronous: bool, kind: str
) -> None:
    """The condition sees the answers so far, in the order of the list."""
    never = threading.Event()
    client: Any = {
        **models(b="Paris", c="Paris"),
        "a": Held(model="a", go=never),
    }
    seen: list[list[str]] = []

    def two(responses: Sequence[Response]) -> bool:
        seen.append([response["text"] for response in responses])
        return len(responses) == 2

    async def two_async(responses: Sequence[Response]) -> bool:
        await asyncio.sleep(0)
        return two(responses)

    quorum = two if kind == "sync" else two_async
    graph = create_mixture([Propose(["a", "b", "c"], quorum=quorum)], client=client)
    try:
        state = await graph.ainvoke(ask()) if asynchronous else graph.invoke(ask())
    finally:
        never.set()
    mixture = state["mixture"]
    assert [r["id"][-1] for r in mixture["responses"]] == ["1", "2"]
    assert mixture["status"] == "complete"
    (reason,) = mixture["reasons"]
    assert f"rests on 2 of 3 answers, as its quorum {quorum.__name__} allows" in reason
    errors = [c.get("error") for c in mixture["history"][0]["llm_calls"]]
    assert f"{quorum.__name__} was true of the answers before it" in str(errors)
    assert len(seen) == 2


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_quorum_that_raises_fails_its_step_and_a_resume_pays_nothing(
    asynchronous: bool,
) -> None:
    """It is asked no more, all answers are kept, and the repaired one sees them."""
    fails = True
    seen: list[int] = []

    def enough(responses: Sequence[Response]) -> bool:
        seen.append(len(responses))
        if fails:
            raise ZeroDivisionError("oh")
        return True

    client = models("a", "b", "c", "w")
    steps = [Propose(["a", "b", "c"], quorum=enough), Aggregate("w")]
    graph = create_mixture(steps, client=client, checkpointer=InMemorySaver())

    async def go(inputs: Any) -> Any:
        if asynchronous:
            return await graph.ainvoke(inputs, CONFIG)
        return await asyncio.to_thread(graph.invoke, inputs, CONFIG)

    with pytest.raises(StepFailedError, match="1_propose: ZeroDivisionError"):
        await go(ask())
    before = len(seen)
    assert before <= 3  # it is asked outside of any lock: some at once
    with pytest.raises(StepFailedError, match="1_propose: ZeroDivisionError"):
        await go(None)
    fails = False
    state = await go(None)
    assert seen[before:] == [3, 3]
    assert asked(client) == {"a": 1, "b": 1, "c": 1, "w": 1}
    assert state["mixture"]["status"] == "complete"


def test_a_quorum_of_steps_that_add_sees_what_was_there() -> None:
    """The condition is asked about all responses that would go on."""
    seen: list[tuple[list[str], Sequence[int]]] = []

    def enough(responses: Sequence[Response], pending: Sequence[int] = ()) -> bool:
        seen.append(([r["text"][0] for r in responses], pending))
        return False

    steps = [Propose(["a"]), Propose(["b", "c"], add=True, quorum=enough)]
    graph = create_mixture(steps, client=models("a", "b", "c"))
    graph.invoke(ask(), {"max_concurrency": 1})
    assert seen == [(["a", "b"], [2]), (["a", "b", "c"], [])]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_decided_as_a_quorum_gives_the_full_votes_answer_in_any_order(
    asynchronous: bool,
) -> None:
    """All answers of four members out of three, in all orders of arrival.

    What arrives first is all that is waited for once it is decided; ties go to the
    first of the list, whether it has arrived or not.
    """
    saved = 0
    for said in itertools.product("A", *["ABC"] * 3):  # their names do not matter
        for order in list(itertools.permutations(range(4)))[::5]:
            saved += await _voted(said, order, asynchronous)
    assert saved > 20


async def _voted(said: Sequence[str], order: Sequence[int], asynchronous: bool) -> int:
    """Run one vote, in which members answer in an order; return the calls saved."""
    loop = asyncio.get_running_loop()
    turns = [threading.Event() for _ in said]
    loop_turns = [asyncio.Event() for _ in said]

    def follows(place: int) -> None:
        if place < len(order):
            turns[order[place]].set()
            # From the thread in which a condition runs, or that of a sync call.
            loop.call_soon_threadsafe(loop_turns[order[place]].set)

    class Member(Scripted):
        number: int

        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            assert turns[self.number].wait(BOUND)
            return super()._generate(*args, **kwargs)

        async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
            await asyncio.wait_for(loop_turns[self.number].wait(), BOUND)
            return Scripted._generate(self, *args, **kwargs)

    arrived = 0
    rule = decided(of=len(said))

    def quorum(responses: Sequence[Response], pending: Sequence[int]) -> bool:
        nonlocal arrived
        arrived += 1
        if rule(responses, pending):
            return True
        follows(arrived)
        return False

    agents = [Member(model=str(n), script=s, number=n) for n, s in enumerate(said)]
    steps = [Propose(agents, quorum=quorum), Majority()]
    graph = create_mixture(steps)
    follows(0)
    if asynchronous:
        state = await graph.ainvoke(ask())
    else:
        state = await asyncio.to_thread(graph.invoke, ask())
    for turn in turns:
        turn.set()
    counts = Counter(said)
    assert state["messages"][-1].text == max(counts, key=lambda x: counts[x])
    return len(said) - arrived


# -- Real answers --------------------------------------------------------------------


Answers = Sequence[str | None]


def pattern(answers: Answers) -> tuple[int | None, ...]:
    """Tell which answers are the same; questions of one pattern run alike."""
    return tuple(None if a is None else answers.index(a) for a in answers)


async def replayed(
    steps: Any, names: Sequence[str], questions: Sequence[Answers]
) -> dict[tuple[int | None, ...], tuple[int | None, list[str]]]:
    """Run a pipeline over chat models that give recorded letters.

    Returns:
        For each pattern, the first member that gave the answer (None = none had a
        letter), and the members that were asked.
    """
    current: Answers = ()

    def script(number: int) -> Callable[[list[BaseMessage]], str]:
        def say(_: list[BaseMessage]) -> str:
            found = current[number]
            return f"The answer is ({found})." if found else "I cannot tell."

        return say

    client = {n: Scripted(model=n, script=script(k)) for k, n in enumerate(names)}
    graph = create_mixture(steps, client=client)
    ends: dict[tuple[int | None, ...], tuple[int | None, list[str]]] = {}
    for current in {pattern(answers): answers for answers in questions}.values():
        for model in client.values():
            model.asked.clear()
        state = await graph.ainvoke(ask())
        found = letter(state["messages"][-1].text)
        member = None if found is None else current.index(found)
        ends[pattern(current)] = member, [n for n in names if client[n].asked]
    return ends


def rows_of(names: Sequence[str]) -> list[tuple[Answers, str]]:
    """Give the letters of these models for each of 5,000 questions, and the right."""
    return [([r["answers"][n] for n in names], r["gold"]) for r in letters()]


async def test_a_panels_vote_stopped_when_decided_is_the_whole_vote() -> None:
    """On 5,000 questions: the same answer on each, for 2.5 calls and not four."""
    questions = rows_of(FOUR)
    two_by_two = [
        Propose(FOUR[:2]),
        Propose(FOUR[2:], add=True, unless=decided(of=4, key=letter)),
        Majority(letter),
    ]
    whole, waves, pairs = [
        await replayed(steps, FOUR, [answers for answers, _ in questions])
        for steps in (
            panel_vote(FOUR, letter, stop=False),
            panel_vote(FOUR, letter),
            two_by_two,
        )
    ]
    right, calls = 0, [0, 0, 0]
    for answers, gold in questions:
        row = [ends[pattern(answers)] for ends in (whole, waves, pairs)]
        members = {member for member, _ in row}
        assert len(members) == 1
        right += any(
            member is not None and answers[member] == gold for member in members
        )
        calls = [
            sum_ + len(asked_of) for sum_, (_, asked_of) in zip(calls, row, strict=True)
        ]
    count = len(questions)
    assert right / count >= 0.735
    assert calls[0] == 4 * count
    assert calls[1] / count <= 2.55
    assert calls[2] / count <= 2.65


async def test_a_cascade_asks_the_strong_model_where_the_cheap_ones_differ() -> None:
    """On 5,000 questions, against the rule written out by hand."""
    names = [FOUR[1], FOUR[2], FOUR[0]]
    questions = rows_of(names)
    steps = cascade(names[:2], names[2], letter)
    ends = await replayed(steps, names, [answers for answers, _ in questions])
    right = differing = 0
    for answers, gold in questions:
        one, other, strong = answers
        differ = one is None or one != other
        member, asked_of = ends[pattern(answers)]
        said = None if member is None else answers[member]
        assert said == (strong if differ else one)
        assert asked_of == (names if differ else names[:2])
        right += said == gold
        differing += differ
    assert right / len(questions) >= 0.731
    assert differing / len(questions) <= 0.37


async def test_self_consistency_stopped_at_a_lead_of_three() -> None:
    """On date understanding: as many points as ten samples, for half of the calls."""
    questions = recorded("samples_date_dev.jsonl.gz")
    samples = [[date(r["text"]) for r in q["replies"]] for q in questions]
    one = sum(r["right"] for q in questions for r in q["replies"]) / 10
    points, calls = Counter[str](), Counter[str]()
    for name, stop in (("ten", None), ("stopped", lead(3))):
        steps = self_consistency("m", key=date, stop=stop)
        ends: dict[tuple[int | None, ...], tuple[int, int]] = {}
        for question, dates in zip(questions, samples, strict=True):
            if pattern(dates) not in ends:
                texts = [reply["text"] for reply in question["replies"]]

                def sample(messages: list[BaseMessage], texts: Any = texts) -> str:
                    number = messages[-1].response_metadata.get("sample", 1)
                    return str(texts[number - 1])  # counted through all waves

                client = models(m=sample)
                graph = create_mixture(steps, client=client)
                state = await graph.ainvoke(ask())
                found = date(state["messages"][-1].text)
                member = dates.index(found)
                ends[pattern(dates)] = member, len(client["m"].asked)
            member, made = ends[pattern(dates)]
            points[name] += question["replies"][member]["right"]
            calls[name] += made
    count = len(questions)
    assert (points["ten"] - one) / count >= 0.07
    assert (points["stopped"] - one) / count >= 0.068
    assert calls["ten"] == 10 * count
    assert calls["stopped"] / count <= 5.3
