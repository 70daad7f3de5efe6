"""Quorum, deadline, budget, retry: how long and how much a mixture may take."""

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt
from tenacity import RetryCallState, wait_none

from langchain_mixture import (
    Aggregate,
    ChatMixture,
    InvalidMixtureError,
    Map,
    NoResponsesError,
    Propose,
    Rank,
    Refine,
    Shuffle,
    StepFailedError,
    Synthesize,
    Take,
    count_calls,
    create_mixture,
    run,
    together_moa,
)
from langchain_mixture.agents import function_model
from langchain_mixture.errors import counted
from langchain_mixture.running.run import Run
from langchain_mixture.running.waiting import Quorum, Wait
from tests.models import Crowd, Scripted, Streaming, ask, called, models
from tests.openai_stub import Answer, Stub, serve

KEY: Any = "none"
BOUND = 30.0
"""Seconds within which everything here ends, where it does not hang."""


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Give an event that lets hanging servers go in the end."""
    event = threading.Event()
    yield event
    event.set()


def hanging(release: threading.Event, *names: str) -> Callable[[Any], Answer]:
    """Make a server's script by which some models hang."""

    def answer(request: dict[str, Any]) -> Answer:
        model = request["model"]
        hangs = model in names
        return Answer(f"{model} answers", hang=release if hangs else None)

    return answer


def outrun(release: threading.Event, slow: str) -> Callable[[Any], Answer]:
    """Make a script by which the others answer once one was asked, which hangs."""
    asked = threading.Event()

    def answer(request: dict[str, Any]) -> Answer:
        model = request["model"]
        if model == slow:
            asked.set()
        return Answer(f"{model} answers", hang=release if model == slow else asked)

    return answer


def clients(stub: Stub, *names: str) -> dict[str, ChatOpenAI]:
    """Make a real client a name."""
    return {
        name: ChatOpenAI(base_url=stub.url, api_key=KEY, model=name, max_retries=0)
        for name in names
    }


# -- Quorum --------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream", "astream"])
@pytest.mark.parametrize("face", ["graph", "checkpointed", "chat"])
async def test_a_quorum_goes_on_without_the_slowest(
    release: threading.Event, how: str, face: str
) -> None:
    """The answer rests on two of three, says so, and is complete."""
    with serve(outrun(release, "slow")) as stub:
        client = clients(stub, "a", "b", "slow", "last")
        steps = [Propose(["a", "slow", "b"], quorum=2), Aggregate("last")]
        config: Any = {"configurable": {"thread_id": "1"}}
        if face == "chat":
            model: Any = ChatMixture(steps, client=client)
            inputs: Any = "Why?"
        else:
            saver = InMemorySaver() if face == "checkpointed" else None
            model = create_mixture(steps, client=client, checkpointer=saver)
            inputs = ask()
        async with asyncio.timeout(BOUND):
            result = await called(model, how, inputs, config)
        if face == "chat":
            about = result.response_metadata["mixture"]
        else:
            about = result["mixture"]
            outputs = about["history"][0]["outputs"]
            assert outputs == ["a answers", "b answers"]
            (given_up,) = [
                c for c in about["history"][0]["llm_calls"] if c["model"] == "slow"
            ]
            assert given_up["error"] == "not waited for: 2 others had answered"
        assert about["status"] == "complete"
        assert about["reasons"] == [
            "1_propose: rests on 2 of 3 answers, as its quorum of 2 allows"
        ]
        assert sorted(stub.asked()) == ["a", "b", "last", "slow"]


async def test_a_call_that_is_given_up_closes_its_request(
    release: threading.Event,
) -> None:
    """In async code the server sees the connection go: nothing is written in vain."""
    with serve(outrun(release, "slow")) as stub:
        graph = create_mixture(
            [Propose(["a", "slow"], quorum=1)], client=clients(stub, "a", "slow")
        )
        await graph.ainvoke(ask())
        for _ in range(500):
            if stub.left:
                break
            await asyncio.sleep(0.01)
        assert stub.left == ["slow"]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_grace_lets_the_others_finish(asynchronous: bool) -> None:
    """A call that answers within the grace is still counted in."""
    others = threading.Event()

    def second(_: Any) -> str:
        others.set()
        return "second"

    def third(_: Any) -> str:
        assert others.wait(BOUND)
        return "third"

    agents = [Scripted(model="a"), RunnableLambda(second), RunnableLambda(third)]
    graph = create_mixture([Propose(agents, quorum=2, grace=BOUND)])
    state = await graph.ainvoke(ask()) if asynchronous else graph.invoke(ask())
    assert state["mixture"]["history"][0]["outputs"] == ["a answers", "second", "third"]
    assert state["mixture"]["reasons"] == []


def test_a_call_that_queues_up_is_still_made_within_the_grace() -> None:
    """The grace is for all other calls, those that have not begun included."""
    client = models("a", "b")
    graph = create_mixture([Propose(["a", "b"], quorum=1, grace=BOUND)], client=client)
    state = graph.invoke(ask(), {"max_concurrency": 1})
    assert [len(client[name].asked) for name in "ab"] == [1, 1]
    assert state["mixture"]["reasons"] == []


@pytest.mark.parametrize("has_answer", [False, True])
def test_a_call_that_ends_within_the_grace_does_not_prolong_it(
    has_answer: bool,
) -> None:
    """The grace begins with the answer that meets the quorum, and with no other end."""
    quorum = Quorum(1, grace=BOUND)
    first: Any = {"index": 0, "error": None}
    quorum.take(first)
    closes_at = quorum.closes_at
    assert closes_at is not None
    second: Any = {"index": 1, "error": None if has_answer else "down"}
    quorum.take(second)
    assert quorum.closes_at == closes_at


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_branch_that_starts_late_does_not_ask(asynchronous: bool) -> None:
    """Where calls queue up, those behind the quorum are never made."""
    client = models("a", "b", "c")
    graph = create_mixture([Propose(["a", "b", "c"], quorum=1)], client=client)
    config: Any = {"max_concurrency": 1}
    if asynchronous:
        state = await graph.ainvoke(ask(), config)
    else:
        state = graph.invoke(ask(), config)
    assert sum(len(client[name].asked) for name in "abc") == 1
    assert state["mixture"]["status"] == "complete"
    assert len(state["mixture"]["history"][0]["llm_calls"]) == 1


def test_a_quorum_of_one_is_told_in_the_singular() -> None:
    """Both messages, and those that count seconds and tokens, agree with a 1."""
    quorum = Quorum(1, grace=0.0)
    reply: Any = {"index": 0, "error": None}
    quorum.take(reply)
    second = Wait(None, None, quorum)
    assert str(second.error()) == "not waited for: 1 other had answered"
    assert quorum.met == "1 other had answered"
    timed = Wait(1.0, None, Quorum(2, grace=0.0))
    assert str(timed.error()) == "no answer within 1 second"
    assert counted(1_234_567, "token") == "1234567 tokens"


def test_a_quorum_that_is_met_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    """The caller's own rule was met: nothing is logged as degraded."""
    client = models("a", b=OSError("down"))
    graph = create_mixture([Propose(["a", "b"], quorum=1)], client=client)
    assert graph.invoke(ask())["mixture"]["status"] == "complete"
    assert caplog.records == []


def test_a_quorum_that_is_not_met_is_a_degraded_answer() -> None:
    """Fewer answers than the quorum are used, and the result says why."""
    client = models("a", b=OSError("down"), c=OSError("down"))
    graph = create_mixture([Propose(["a", "b", "c"], quorum=2)], client=client)
    mixture = graph.invoke(ask())["mixture"]
    assert mixture["status"] == "degraded"
    assert mixture["reasons"] == [
        "1_propose: b failed: OSError: down",
        "1_propose: c failed: OSError: down",
        "1_propose: quorum of 2 not met, 1 answered",
    ]


LEFT_BEHIND = """
import asyncio
import sys
import threading
from langchain_core.runnables import RunnableLambda
from langchain_mixture import Propose, create_mixture
from tests.models import Scripted

def hang(_):
    threading.Event().wait(600)

def client(model, messages, temp, max_tokens):
    return hang(messages)

hung = {"lambda": RunnableLambda(hang), "model": Scripted(model="m", script=hang)}
agent = hung.get(sys.argv[1], "hung")
fine = RunnableLambda(lambda _: "fine")
graph = create_mixture([Propose([fine, agent], quorum=1)], client=client)
question = {"messages": [("user", "Why?")]}
if sys.argv[2] == "sync":
    state = graph.invoke(question)
else:
    state = asyncio.run(graph.ainvoke(question))
print(state["messages"][-1].text)
"""


@pytest.mark.parametrize(
    ("agent", "mode"),
    [("lambda", "sync"), ("model", "sync"), ("client", "sync"), ("client", "async")],
)
def test_a_sync_call_that_is_given_up_does_not_hold_the_process(
    agent: str, mode: str
) -> None:
    """The program ends while the call that nobody waits for still hangs."""
    done = subprocess.run(
        [sys.executable, "-c", LEFT_BEHIND, agent, mode],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.strip() == "fine", done.stderr


def test_refine_keeps_the_originals_of_calls_it_does_not_wait_for(
    release: threading.Event,
) -> None:
    """What a quorum leaves unimproved stays as it was."""

    def hang(_: Any) -> str:
        release.wait(BOUND)
        return "late"

    steps = [
        Propose([Scripted(model="a"), Scripted(model="b")]),
        Refine([Scripted(model="r"), RunnableLambda(hang)], quorum=1),
    ]
    state = create_mixture(steps).invoke(ask())
    outputs = state["mixture"]["history"][1]["outputs"]
    assert outputs == ["r answers", "b answers"]


def test_the_quorum_of_refine_is_of_its_calls_and_not_of_its_agents() -> None:
    """One agent may improve many responses, and enough of them is a quorum."""
    steps = [Propose(["a"] * 3), Refine(["r"], quorum=2)]
    graph = create_mixture(steps, client=models("a", "r"))
    mixture = graph.invoke(ask(), {"max_concurrency": 1})["mixture"]
    outputs = mixture["history"][1]["outputs"]
    assert sorted(outputs) == ["a answers", "r answers", "r answers"]
    assert mixture["status"] == "complete"


async def test_a_run_leaves_nothing_behind(left_behind: Any) -> None:
    """What its steps shared, a quorum included, goes with it."""
    graph = create_mixture([Propose(["a", "b"], quorum=1)], client=models("a", "b"))
    graph.batch([ask()] * 20)
    assert await gone(left_behind)


@pytest.fixture
def left_behind() -> Callable[[], list[Run]]:
    """Give the runs of this test that are still alive."""

    def alive() -> list[Run]:
        gc.collect()
        return [thing for thing in gc.get_objects() if isinstance(thing, Run)]

    others = weakref.WeakSet(alive())
    return lambda: [run for run in alive() if run not in others]


async def gone(left_behind: Callable[[], list[Run]]) -> bool:
    """Wait until no run is alive, for a bounded time.

    A thread that has just answered, or a callback that waits for the loop, still holds
    the frames of its run.
    """
    for _ in range(200):
        if not left_behind():
            return True
        await asyncio.sleep(0.05)
    return False


def test_branches_that_begin_at_once_share_one_superstep() -> None:
    """However they race, the quorum and the attempts of a step are one."""
    graph: Any = create_mixture([Propose(["a", "b"])], client=models("a", "b"))
    layer = graph.builder.nodes["1_propose"].runnable._layer
    barrier = threading.Barrier(8, timeout=BOUND)
    for _ in range(50):
        shared: list[Any] = []
        run = Run()

        def begin(run: Run = run, shared: Any = shared) -> None:
            barrier.wait()
            shared.append(layer.superstep({}, run))

        racing = [threading.Thread(target=begin) for _ in range(8)]
        for racer in racing:
            racer.start()
        for racer in racing:
            racer.join()
        assert len(set(map(id, shared))) == 1


def test_two_runs_that_resume_one_checkpoint_do_not_share_a_quorum() -> None:
    """A second click on "continue" gets an answer of its own."""
    both = threading.Barrier(2, timeout=BOUND)
    client = models("a", "s2")

    def meet(_: Any) -> str:
        both.wait()
        return "met"

    steps = [Propose(["a"]), Synthesize(["s1", "s2"], quorum=2)]
    client["s1"] = Scripted(model="s1", script=meet)
    graph: Any = create_mixture(
        steps,
        client=client,
        checkpointer=InMemorySaver(),
        interrupt_before=["2_synthesize"],
    )
    config: Any = {"configurable": {"thread_id": "1"}}
    graph.invoke(ask(), config)
    config = graph.get_state(config).config
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda _: graph.invoke(None, config), range(2)))
    for state in runs:
        outputs = state["mixture"]["history"][1]["outputs"]
        assert outputs == ["met", "s2 answers"]


@pytest.mark.parametrize("where", ["interrupt_before", "interrupt_after"])
async def test_runs_that_are_interrupted_at_every_node_leave_nothing_behind(
    where: str, left_behind: Any
) -> None:
    """What branches share goes with the last of them, wherever the run is cut."""
    breaks: dict[str, Any] = {where: "*"}
    graph: Any = create_mixture(
        [Propose(["a", "b"]), Aggregate("a")],
        client=models("a", "b"),
        checkpointer=InMemorySaver(),
        **breaks,
    )
    config = {"configurable": {"thread_id": "1"}}
    state = graph.invoke(ask(), config)
    while graph.get_state(config).next:
        state = graph.invoke(None, config)
    assert state["messages"][-1].text == "a answers"
    assert await gone(left_behind)


# LangGraph never awaits the branch that still queued up.
@pytest.mark.filterwarnings("ignore:.*arun_with_retry:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_runs_that_are_cancelled_or_resumed_leave_nothing_behind(
    left_behind: Any,
) -> None:
    """Nor do those whose branches have not all run."""
    begun = asyncio.Event()

    async def hang(_: Any) -> str:
        begun.set()
        await asyncio.sleep(60)
        return "late"

    slow = RunnableLambda(str, hang)
    graph: Any = create_mixture([Propose([slow] * 3)])
    task = asyncio.ensure_future(graph.ainvoke(ask(), {"max_concurrency": 2}))
    await begun.wait()
    assert left_behind()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task  # its error holds the frames of the run
    assert await gone(left_behind)

    def consult(_: Any) -> str:
        return str(interrupt("what do you say?"))

    agents = [RunnableLambda(consult), Scripted(model="a")]
    graph = create_mixture([Propose(agents)], checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    graph.invoke(ask(), config)
    state = graph.invoke(Command(resume="yes"), config)
    assert state["mixture"]["history"][0]["outputs"] == ["yes", "a answers"]
    assert await gone(left_behind)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Propose(["a"], quorum=2), "quorum is 2; allowed: at most 1"),
        (lambda: Propose(["a"], quorum=0), "quorum is 0; allowed: None, a whole"),
        (lambda: Propose(["a"], grace=-1), "grace is -1; allowed: seconds, 0 or more"),
        (lambda: mixture_of(deadline=0), "deadline is 0; allowed: None or seconds > 0"),
        (lambda: mixture_of(max_calls=0), "max_calls is 0; allowed: None or a whole"),
        (lambda: mixture_of(max_total_tokens=-5), "max_total_tokens is -5; allowed"),
        (lambda: mixture_of(timeout=-5), "timeout is -5; allowed"),
    ],
)
def test_a_limit_that_is_none_is_an_error_that_names_it(
    make: Callable[[], Any], message: str
) -> None:
    """A wrong limit fails where it is written, on every face."""
    with pytest.raises(InvalidMixtureError, match=message):
        make()


def mixture_of(**options: Any) -> Any:
    """Make a chat model with an option."""
    return ChatMixture([Propose(["a"])], **options)


# -- Deadline ------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
async def test_at_the_deadline_the_answer_is_made_of_what_is_there(
    release: threading.Event, how: str
) -> None:
    """Proposers that hang cost their step's share; the aggregator has the rest."""
    with serve(hanging(release, "slow")) as stub:
        client = clients(stub, "a", "slow", "last")
        graph = create_mixture(
            [Propose(["a", "slow"]), Shuffle(), Aggregate("last")],
            client=client,
            deadline=3,
        )
        async with asyncio.timeout(BOUND):
            state = await called(graph, how, ask(), None)
        assert state["messages"][-1].text == "last answers"
        assert state["mixture"]["reasons"] == [
            "1_propose: slow was not waited for: its share of the deadline was used up"
        ]
        assert state["mixture"]["status"] == "degraded"


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream", "astream"])
async def test_an_aggregator_that_hangs_leaves_the_best_proposal(
    release: threading.Event, how: str
) -> None:
    """Rather than nothing, the first response that was there is the answer."""
    with serve(hanging(release, "last")) as stub:
        model = ChatMixture(
            [Propose(["a", "b"]), Aggregate("last")],
            client={**models("a", "b"), **clients(stub, "last")},
            deadline=2,
        )
        async with asyncio.timeout(BOUND):
            message = await called(model, how, "Why?", None)
        assert message.text == "a answers"
        about = message.response_metadata["mixture"]
        assert about["status"] == "degraded"
        assert "not waited for: its share of the deadline" in about["reasons"][0]


def test_a_deadline_before_any_answer_is_an_error(release: threading.Event) -> None:
    """Where nothing is there yet, the error says that time was up."""
    with serve(hanging(release, "a", "b")) as stub:
        graph = create_mixture(
            [Propose(["a", "b"]), Aggregate("a")],
            client=clients(stub, "a", "b"),
            deadline=0.4,
        )
        with pytest.raises(NoResponsesError, match="share of the deadline"):
            graph.invoke(ask())


def test_after_the_deadline_nobody_is_asked() -> None:
    """A step that begins too late costs nothing and keeps what it was given."""
    passed = threading.Event()
    last = Scripted(model="last")

    def slow(text: str) -> str:
        passed.wait(1.1)
        return text

    steps = [Propose([Scripted(model="a")]), Map(slow), Aggregate(last)]
    state = create_mixture(steps, deadline=1).invoke(ask())
    assert state["messages"][-1].text == "a answers"
    assert last.asked == []
    assert state["mixture"]["reasons"][0] == (
        "3_aggregate: last was not asked: its share of the deadline was used up"
    )


@pytest.mark.parametrize("last", [Take(1), Map(str.strip), Shuffle(), Rank("a", 1)])
@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
async def test_a_deadline_is_kept_whatever_the_last_step_is(
    last: Any, how: str
) -> None:
    """Steps behind the last one that asks need no share of the time."""
    client = models("b", a="Ranking: 1")
    steps = [Propose(["a", "b"]), Refine(["b"]), last]
    graph = create_mixture(steps, client=client, deadline=60)
    state = await called(graph, how, ask(), None)
    assert state["mixture"]["status"] == "complete"


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_calls_that_queue_up_share_the_time_of_their_step(
    release: threading.Event, asynchronous: bool
) -> None:
    """A narrow pool does not multiply the deadline: who comes too late is not asked."""
    asked = []

    def hang(_: Any) -> str:
        asked.append(1)
        release.wait(BOUND)
        return "late"

    async def ahang(_: Any) -> str:
        asked.append(1)
        await asyncio.sleep(BOUND)
        return "late"

    slow = RunnableLambda(hang, ahang, name="slow")
    last = Scripted(model="last")
    steps = [Propose([Scripted(model="a"), *[slow] * 3]), Aggregate(last)]
    graph = create_mixture(steps, deadline=2)
    config: Any = {"max_concurrency": 1}
    state = await called(graph, "ainvoke" if asynchronous else "invoke", ask(), config)
    assert state["messages"][-1].text == "last answers"
    assert len(asked) == 1
    assert [r.split("was ", 1)[1] for r in state["mixture"]["reasons"]] == [
        "not waited for: its share of the deadline was used up",
        *["not asked: its share of the deadline was used up"] * 2,
    ]


async def test_sync_agents_that_hang_hold_up_no_later_run_in_async_code(
    release: threading.Event,
) -> None:
    """What is given up is on a thread of its own, not in the event loop's pool."""

    def client(model: str, messages: Any, temp: float, max_tokens: int) -> Any:
        if model == "hung":
            release.wait(BOUND * 10)
        return "fine", 1, 1

    steps = [Propose(["ok", *["hung"] * 8], quorum=1), Shuffle(), Aggregate("ok")]
    graph = create_mixture(steps, client=client)
    async with asyncio.timeout(BOUND):
        for _ in range(8):
            state = await graph.ainvoke(ask())
            assert state["mixture"]["status"] == "complete"
    assert not release.is_set()


# -- Budget --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "calls"),
    [
        (together_moa(), 13),
        ([Propose(["a"] * 6), Rank("a", 2), Refine(["a", "b"]), Aggregate("a")], 10),
        ([Propose(["a", "b"]), Shuffle()], 2),
        ([Propose(["a", "b"]), Synthesize(["a"]), Refine(["a", "b"])], 4),
    ],
)
def test_the_number_of_calls_is_known_before_it_runs(steps: Any, calls: int) -> None:
    """count_calls says what a run without a failure then makes."""
    assert count_calls(steps) == calls
    if "a" in {str(agent) for agent in steps[0].agents}:
        client = models("a", "b")
        create_mixture(steps, client=client).invoke(ask())
        assert sum(len(model.asked) for model in client.values()) == calls


@pytest.mark.parametrize(
    ("most", "asked", "answer"),
    [
        (5, 5, "last answers"),
        (4, 4, "a answers"),
        (3, 3, "a answers"),
        (1, 1, "a answers"),
    ],
)
def test_a_budget_of_calls_stops_before_the_call_that_would_pass_it(
    most: int, asked: int, answer: str
) -> None:
    """What there is when the budget is spent is the answer, and it says so."""
    client = models("a", "b", "c", "d", "last")
    graph = create_mixture(
        [Propose(["a", "b", "c", "d"]), Aggregate("last")],
        client=client,
        max_calls=most,
    )
    state = graph.invoke(ask())
    assert sum(len(model.asked) for model in client.values()) == asked
    assert state["messages"][-1].text == answer
    degraded = most < 5
    assert state["mixture"]["status"] == ("degraded" if degraded else "complete")
    told = [
        f"was not asked: max_calls={most} was reached" in r
        for r in state["mixture"]["reasons"]
    ]
    assert any(told) is degraded


def test_fallbacks_are_calls_of_the_budget_too() -> None:
    """A fallback that would be one call too many is not asked."""
    spare = Scripted(model="spare")
    down = Scripted(model="down", script=OSError("down"))
    steps = [Propose([Scripted(model="a")]), Aggregate(down, fallbacks=[spare])]
    state = create_mixture(steps, max_calls=2).invoke(ask())
    assert spare.asked == []
    assert state["messages"][-1].text == "a answers"
    assert create_mixture(steps, max_calls=3).invoke(ask())["messages"][-1].text == (
        "spare answers"
    )


def test_no_fallback_takes_the_place_of_an_agent_in_the_budget() -> None:
    """Of two judges both are asked, and what would be a call more is the fallback."""
    client = models("a", "b", "spare", one="Ranking: 1, 2", two="Ranking: 1, 2")
    steps = [Propose(["a", "b"]), Rank(["one", "two"], 1, fallbacks=["spare"])]
    state = create_mixture(steps, client=client, max_calls=4).invoke(ask())
    assert [len(client[name].asked) for name in ("one", "two", "spare")] == [1, 1, 0]
    assert state["mixture"]["status"] == "complete"


async def test_a_budget_of_tokens_stops_before_the_call_that_would_pass_it() -> None:
    """Tokens are estimated before a call, counted after it."""
    client = models("a", "b", "last")
    steps = [Propose(["a", "b"]), Aggregate("last", max_tokens=500)]
    for most, text in ((10_000, "last answers"), (300, "a answers")):
        graph = create_mixture(steps, client=client, max_total_tokens=most)
        assert (await graph.ainvoke(ask()))["messages"][-1].text == text
    assert len(client["last"].asked) == 1
    with pytest.raises(NoResponsesError, match=r"not asked: 0 tokens had been used"):
        await run(steps, "Why? " * 100, client, max_total_tokens=50)


@pytest.mark.parametrize(
    "option",
    [
        {"on_failure": "keep"},
        {"deadline": 60},
        {"max_calls": 4},
        {"max_total_tokens": 10_000},
    ],
    ids=lambda option: min(option),
)
def test_a_run_that_may_stop_has_room_for_what_a_step_then_hands_on(
    option: Any,
) -> None:
    """Three responses that nobody has fused take three branches of the next step."""
    steps = [Propose(["a"] * 3), Aggregate("b"), Refine(["c"])]
    for options, branches in ((option, 3), ({}, 0)):
        nodes = create_mixture(steps, client=models(*"abc"), **options).nodes
        assert sum(name.startswith("3_refine/") for name in nodes) == branches


def test_behind_a_step_that_asks_nobody_no_more_room_is_needed() -> None:
    """Take leaves one whatever happens: one call improves it, without branches."""
    steps = [Propose(["a"] * 3), Take(1), Refine(["c"])]
    nodes = create_mixture(steps, client=models("a", "c"), deadline=60).nodes
    assert not [name for name in nodes if name.startswith("3_refine/")]


def test_what_a_budget_of_tokens_leaves_unfused_goes_on() -> None:
    """The step behind an aggregator that was too dear gets what that one was given."""
    steps = [Propose(["a"] * 3), Aggregate("b", max_tokens=10**6), Refine(["c"])]
    graph = create_mixture(steps, client=models(*"abc"), max_total_tokens=10_000)
    mixture = graph.invoke(ask())["mixture"]
    assert mixture["history"][2]["outputs"] == ["c answers"] * 3
    assert mixture["status"] == "degraded"


def test_a_call_that_the_tokens_forbid_is_not_one_of_max_calls() -> None:
    """A call that was not made leaves its place to a shorter one behind it."""
    client = models("b", "c", a="word " * 10_000)
    steps = [Propose(["a", "b"]), Refine(["c"])]
    graph = create_mixture(steps, client=client, max_calls=3, max_total_tokens=5000)
    mixture = graph.invoke(ask())["mixture"]
    assert [text[:9] for text in mixture["history"][1]["outputs"]] == [
        "word word",
        "c answers",
    ]
    assert len(client["c"].asked) == 1


def test_a_model_that_reports_no_tokens_is_counted_by_estimate() -> None:
    """A budget of tokens holds where the provider says nothing of usage."""

    def client(model: str, messages: Any, temp: float, max_tokens: int) -> Any:
        return "word " * 200, None, None

    steps = [Propose(["a"]), *[Synthesize(["b"])] * 5]
    graph = create_mixture(steps, client=client, max_total_tokens=1000)
    mixture = graph.invoke(ask())["mixture"]
    rows = [call for row in mixture["history"] for call in row["llm_calls"]]
    assert 1 < len(rows) < 6
    assert all(row["estimated_tokens"] > 200 for row in rows)
    assert "past 1000 (max_total_tokens)" in mixture["reasons"][-2]


def test_what_was_sent_to_a_call_that_failed_is_counted() -> None:
    """It may have been billed; what was not sent costs nothing."""
    client = models("b", a=OSError("down"))
    graph = create_mixture(
        [Propose(["a", "b"]), Aggregate("b")], client=client, max_calls=2
    )
    mixture = graph.invoke({"messages": [("user", "Why? " * 400)]})["mixture"]
    failed, answered = mixture["history"][0]["llm_calls"]
    assert failed["estimated_tokens"] > 400
    assert "estimated_tokens" not in answered
    assert mixture["usage"]["estimated_tokens"] == failed["estimated_tokens"]


def test_calls_that_were_made_before_a_resume_count_for_the_budget() -> None:
    """A thread that is resumed has what is left of its budget."""
    client = models(*"abcd", **{name: OSError("down") for name in "abc"})
    graph = create_mixture(
        [Propose(["a", "b", "c"]), Aggregate("d")],
        client=client,
        checkpointer=InMemorySaver(),
        max_calls=5,
    )
    config: Any = {"configurable": {"thread_id": "1"}}
    with pytest.raises(NoResponsesError):
        graph.invoke(ask(), config)
    for name in "abc":
        client[name].script = None
    state = graph.invoke(None, config)
    assert sum(len(model.asked) for model in client.values()) == 5
    assert state["mixture"]["status"] == "degraded"
    assert "max_calls=5 was reached" in state["mixture"]["reasons"][0]


@pytest.mark.parametrize("kind", ["image", "audio", "file"])
def test_the_data_of_a_file_is_not_counted_as_text(kind: str) -> None:
    """A picture, a sound or a document does not use up a budget of tokens by itself."""
    block = {"type": kind, "base64": "A" * 10**6, "mime_type": "x/y"}
    talk: list[Any] = [HumanMessage([{"type": "text", "text": "What is it?"}, block])]
    graph = create_mixture(
        [Propose(["a"])], client=models("a"), max_total_tokens=10_000
    )
    assert graph.invoke({"messages": talk})["mixture"]["status"] == "complete"


def test_tokens_that_a_model_does_not_report_are_estimated_and_said_to_be() -> None:
    """A bill that rests on no report does not read as nothing."""
    steps = [Propose([Scripted(model="a")]), Aggregate(Streaming(model="s"))]
    graph: Any = create_mixture(steps)
    parts = list(graph.stream(ask(), stream_mode=["messages", "values"]))
    mixture = [part for mode, part in parts if mode == "values"][-1]["mixture"]
    proposed, fused = (row["llm_calls"][0] for row in mixture["history"])
    assert "estimated_tokens" not in proposed
    assert fused["estimated_tokens"] > 100
    assert mixture["usage"]["total_tokens"] == 15
    assert mixture["usage"]["estimated_tokens"] == fused["estimated_tokens"]


def test_max_concurrency_bounds_the_calls_in_flight() -> None:
    """One mixture makes no more calls at once than it may."""
    crowd = Crowd(model="m", together=2)
    graph = create_mixture([Propose([crowd] * 8), Aggregate(crowd)])
    graph.invoke(ask(), {"max_concurrency": 2})
    assert crowd.most == 2
    assert len(crowd.asked) == 9


# -- Retry ---------------------------------------------------------------------------


class HTTPError(Exception):
    """An error as HTTP clients raise them."""

    def __init__(self, status: int, **headers: str) -> None:
        super().__init__(str(status))
        self.status_code = status
        self.response = type("Response", (), {"headers": headers})()


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (ConnectionError("lost"), 3),
        (TimeoutError("slow"), 3),
        (HTTPError(429), 3),
        (HTTPError(503), 3),
        (HTTPError(401), 1),
        (HTTPError(400), 1),
        (ValueError("wrong"), 1),
    ],
)
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_function_client_is_asked_again_for_what_may_pass(
    error: Exception, asked: int, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections, timeouts, 429 and 5xx are tried three times; nothing else is."""
    monkeypatch.setitem(function_model._RETRY, "wait", wait_none())
    count = 0

    async def client(model: str, messages: Any, temp: float, max_tokens: int) -> Any:
        nonlocal count
        count += 1
        raise error

    graph = create_mixture([Propose(["a"])], client=client)
    with pytest.raises(NoResponsesError, match=type(error).__name__):
        await called(graph, "ainvoke" if asynchronous else "invoke", ask(), None)
    assert count == asked


def test_the_wait_is_what_the_server_asks_for() -> None:
    """A Retry-After of the server's is kept to, a minute at most."""

    def waited(error: Exception) -> float:
        state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]  # not needed
        state.set_exception((type(error), error, None))
        return function_model._wait(state)

    assert waited(HTTPError(429, **{"retry-after": "7"})) == 7
    assert waited(HTTPError(429, **{"retry-after": "7000"})) == 60
    assert waited(HTTPError(429, **{"retry-after": "-1"})) == 0
    assert 0 <= waited(HTTPError(500)) <= 8


def test_a_streamed_answer_at_its_deadline_is_broken_off() -> None:
    """Half an answer is an error with the proposals, and not an answer."""
    stop = threading.Event()

    class Endless(Streaming):
        def _stream(self, *args: Any, **kwargs: Any) -> Any:
            first, *_ = super()._stream(*args, **kwargs)
            yield first
            stop.wait(BOUND)

    steps = [Propose([Scripted(model="a")]), Aggregate(Endless(model="e"))]
    model = ChatMixture(steps, deadline=2)
    with pytest.raises(StepFailedError, match="share of the deadline") as raised:
        list(model.stream("Why?"))
    stop.set()
    assert [r["text"] for r in raised.value.responses] == ["a answers"]
