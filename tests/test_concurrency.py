"""How many calls are made at once: the caller's bound, in all ways of calling."""

import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest
from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda

from langchain_mixture import Aggregate, ChatMixture, Propose, create_mixture
from langchain_mixture.running.waiting import Gate
from langchain_mixture.threads import begun
from tests.models import Crowd, Scripted, Streaming, ask

BOUND = 30
"""Seconds, against hanging."""


def panel(crowd: Any, n: int = 6) -> list[Any]:
    """Six calls, and one that streams the answer."""
    return [Propose([crowd] * n), Aggregate(Streaming(model="z"))]


def events(model: ChatMixture, config: Any) -> Any:
    """Read a version 3 event stream."""
    stream: Any = model.stream_events("Why?", config, version="v3")
    return list(stream.text)


WAYS: dict[str, Callable[[list[Any], Any], Any]] = {
    "model invoke": lambda s, c: ChatMixture(s).invoke("Why?", c),
    "model stream": lambda s, c: list(ChatMixture(s).stream("Why?", c)),
    "model events v3": lambda s, c: events(ChatMixture(s), c),
    "graph invoke": lambda s, c: create_mixture(s).invoke(ask(), c),
    "graph updates": lambda s, c: list(create_mixture(s).stream(ask(), c)),
    "graph messages": lambda s, c: list(
        create_mixture(s).stream(ask(), c, stream_mode="messages")
    ),
    "graph two modes": lambda s, c: list(
        create_mixture(s).stream(ask(), c, stream_mode=["custom", "values"])
    ),
    "graph subgraphs": lambda s, c: list(
        create_mixture(s).stream(ask(), c, subgraphs=True)
    ),
}


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
@pytest.mark.parametrize("limit", [1, 2, 6])
@pytest.mark.parametrize("way", WAYS)
def test_no_more_calls_at_once_than_the_caller_allows(way: str, limit: int) -> None:
    """Nor fewer; with one, too, where LangGraph's own stream waits for ever."""
    crowd = Crowd(model="c", together=limit)
    WAYS[way](panel(crowd), {"max_concurrency": limit})
    assert len(crowd.asked) == 6
    assert crowd.most == limit


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
@pytest.mark.parametrize("limit", [None, 9])
@pytest.mark.parametrize("way", WAYS)
def test_all_calls_of_a_wide_step_are_made_at_once(way: str, limit: int | None) -> None:
    """However the answer is read: each waits until all have begun."""
    together = threading.Barrier(9, timeout=BOUND)

    def meet(_: list[BaseMessage]) -> str:
        together.wait()
        return "met"

    config = {} if limit is None else {"max_concurrency": limit}
    WAYS[way](panel(Scripted(model="m", script=meet), 9), config)


def test_calls_that_wait_are_made_in_the_order_of_the_list() -> None:
    """The lowest index is let through first."""
    order: list[int] = []

    def agent(index: int) -> Any:
        def answer(_: Any) -> str:
            order.append(index)
            return "done"

        return RunnableLambda(answer)

    steps = [Propose([agent(index) for index in range(8)])]
    list(
        create_mixture(steps).stream(
            ask(), {"max_concurrency": 1}, stream_mode="custom"
        )
    )
    assert sorted(order) == list(range(8))
    assert order[1:] == sorted(order[1:])


def test_a_gate_lets_the_lowest_index_through_first() -> None:
    """Calls that came in another order still pass in that of the list."""
    gate = Gate(1)
    order: list[int] = []

    def pass_through(index: int) -> None:
        with gate.passed(index):
            order.append(index)

    threads = [threading.Thread(target=pass_through, args=(i,)) for i in (3, 1, 2)]
    with gate.passed(0):
        for waiting, thread in enumerate(threads, 1):
            thread.start()
            while len(gate._waiting) < waiting:
                threading.Event().wait(0.001)
    for thread in threads:
        thread.join(BOUND)
    assert order == [1, 2, 3]


@pytest.mark.parametrize("stream_mode", ["messages", "values"])
def test_a_bound_that_the_graph_was_given_holds_as_the_callers(
    stream_mode: Any,
) -> None:
    """`with_config(max_concurrency=2)` lets two calls pass, and never one alone."""
    crowd = Crowd(model="m", together=2)
    graph: Any = create_mixture(panel(crowd)).with_config(max_concurrency=2)
    list(graph.stream(ask(), stream_mode=stream_mode))
    assert crowd.most == 2


@pytest.mark.parametrize("limit", [None, 2])
@pytest.mark.parametrize("how", ["invoke", "stream"])
def test_agents_get_the_callers_own_bound(how: str, limit: int | None) -> None:
    """The width of the graph's thread pool is not theirs."""
    seen: list[Any] = []

    def agent(_: Any, config: RunnableConfig) -> str:
        seen.append(config.get("max_concurrency"))
        return "done"

    graph: Any = create_mixture([Propose([RunnableLambda(agent)] * 20)])
    config = {} if limit is None else {"max_concurrency": limit}
    if how == "invoke":
        graph.invoke(ask(), config)
    else:
        list(graph.stream(ask(), config, stream_mode="messages"))
    assert seen == [limit] * 20


# -- After a run nothing is begun ----------------------------------------------------


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Let calls that hang end, at the latest when the test does."""
    event = threading.Event()
    yield event
    event.set()


def failing(asked: Callable[[], None]) -> Scripted:
    """Make a model that fails."""

    def fail(_: Any) -> str:
        asked()
        raise OSError("down")

    return Scripted(model="m", script=fail)


def answering(asked: Callable[[], None]) -> Scripted:
    """Make a model that answers."""

    def answer(_: Any) -> str:
        asked()
        return "more"

    return Scripted(model="m", script=answer)


def retried(asked: Callable[[], None]) -> Any:
    """A model with retry: it is asked again where it fails."""
    model = failing(asked)
    return model.with_retry(stop_after_attempt=3, wait_exponential_jitter=False)


def fallen_back(asked: Callable[[], None]) -> Any:
    """A model with a fallback."""
    model = failing(asked)
    return model.with_fallbacks([model])


def inner(asked: Callable[[], None]) -> Any:
    """A mixture of two steps."""
    model = answering(asked)
    return ChatMixture([Propose([model]), Aggregate(model)])


def looping(asked: Callable[[], None]) -> Any:
    """A chain that asks a model twice."""
    model = answering(asked)
    return model | (lambda message: [message]) | model


@pytest.mark.parametrize("make", [retried, fallen_back, inner, looping])
def test_a_call_that_was_given_up_begins_no_further_request(
    make: Any, release: threading.Event
) -> None:
    """Once `invoke` has returned, whatever the call was in the middle of."""
    requests: list[str] = []
    begun, ended = threading.Event(), threading.Event()

    def asked() -> None:
        requests.append(threading.current_thread().name)
        begun.set()
        release.wait(BOUND)

    agent = make(asked)

    def watched(messages: Any, config: RunnableConfig) -> Any:
        try:
            return agent.invoke(messages, config)
        finally:
            ended.set()

    def after(_: Any) -> str:
        begun.wait(BOUND)
        return "fast"

    steps = [Propose([RunnableLambda(watched), RunnableLambda(after)], quorum=1)]
    state = create_mixture(steps).invoke(ask())
    assert state["messages"][-1].text == "fast"
    assert len(requests) == 1
    release.set()
    assert ended.wait(BOUND)
    assert len(requests) == 1


def test_a_function_client_that_was_given_up_does_not_try_again(
    release: threading.Event,
) -> None:
    """Its retries are ours to stop."""
    requests: list[str] = []
    begun = threading.Event()

    def client(model: str, messages: Any, temp: float, max_tokens: int) -> Any:
        if model == "fast":
            begun.wait(BOUND)
            return "fast", 1, 1
        requests.append(model)
        begun.set()
        release.wait(BOUND)
        raise ConnectionError("down")

    before = set(threading.enumerate())
    graph = create_mixture([Propose(["slow", "fast"], quorum=1)], client=client)
    graph.invoke(ask())
    release.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(BOUND)
    assert requests == ["slow"]


def test_a_thread_whose_call_has_ended_takes_the_next_one() -> None:
    """Sync calls one after the other share a thread; two at once do not."""
    first, second = (begun(threading.get_ident).result() for _ in range(2))
    assert first == second
    both = threading.Barrier(2, timeout=10)

    def meet() -> int:
        both.wait()
        return threading.get_ident()

    together = [begun(meet), begun(meet)]
    assert len({one.result() for one in together}) == 2


def test_a_reused_thread_keeps_nothing_of_the_last_call() -> None:
    """A context variable that one call sets is not set in the next."""
    mark: ContextVar[str] = ContextVar("mark", default="unset")
    begun(partial(mark.set, "set")).result()
    assert begun(mark.get).result() == "unset"
