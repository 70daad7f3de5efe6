"""What holds for any pipeline and any pattern of failures."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver

from langchain_mixture import (
    Aggregate,
    Analyze,
    Diverse,
    Dropout,
    Filter,
    Majority,
    Map,
    Medoid,
    MixtureError,
    Propose,
    Rank,
    Refine,
    Sample,
    Shuffle,
    Step,
    Synthesize,
    Take,
    Vote,
    count_calls,
    create_mixture,
    exact,
    until,
)
from langchain_mixture.conditions import agreed, decided, lead
from langchain_mixture.plan import names_of
from tests.models import Scripted, ask

NAMES = "abcdef"

agents = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4)
agent = st.sampled_from(NAMES)
seeds = st.integers(0, 9)
counts = st.integers(1, 4)
fallbacks = st.lists(agent, max_size=2)


class BrokenError(Exception):
    """What a condition of these programs raises."""


FAILS = {"now": True}
"""Whether conditions that raise do so; a test mends them."""


def raises(_: Any) -> bool:
    """Raise an error, as a condition with a mistake does, until it is mended."""
    if FAILS["now"]:
        raise BrokenError
    return False


async def several(responses: Any) -> bool:
    """Be true of two responses or more, on an event loop."""
    return len(responses) > 1


sound = st.one_of(
    st.builds(agreed, st.sampled_from([0.5, 1.0])),
    st.builds(decided, counts),
    st.builds(lead, st.integers(1, 2)),
    st.just(several),
)
conditions = sound | st.just(raises)
unless = st.none() | conditions


def asking(kind: Any, quorums: Any = conditions, **more: Any) -> Any:
    """Build steps of several agents, some with a quorum that lets all of them end."""

    def with_agents(chosen: list[str]) -> Any:
        enough = st.none() | st.integers(1, len(chosen)) | quorums
        return st.builds(
            kind,
            st.just(chosen),
            quorum=enough,
            grace=st.just(60),
            unless=unless,
            **more,
        )

    return agents.flatmap(with_agents)


single: st.SearchStrategy[Step] = st.one_of(
    asking(Propose, add=st.booleans()),
    asking(Synthesize, of=st.none() | counts, seed=seeds),
    asking(Refine),
    st.builds(Aggregate, agent, fallbacks=fallbacks, unless=unless),
    st.builds(Vote, agent, fallbacks=fallbacks, unless=unless),
    st.builds(Analyze, agent, fallbacks=fallbacks, unless=unless),
    st.builds(Rank, agent | agents, counts, fallbacks=fallbacks, unless=unless),
    st.builds(Majority, st.just(exact), unless=unless),
    st.builds(Medoid, unless=unless),
    st.builds(Diverse, counts, unless=unless),
    st.builds(Shuffle, seed=seeds, unless=unless),
    st.builds(Dropout, st.floats(0, 1), seed=seeds),
    st.builds(Sample, counts, seed=seeds),
    st.builds(Take, counts, unless=unless),
    st.just(Filter(lambda text: "a" in text)),
    st.just(Map(str.upper)),
)
loops = st.builds(
    until, conditions, st.lists(single, min_size=1, max_size=2), st.integers(1, 3)
)
pipelines = st.builds(
    lambda first, rest: [first, *rest],
    asking(Propose),
    st.lists(single | loops, max_size=5),
)


def flattened(pipeline: Any) -> list[Step]:
    """Write a pipeline's lists out."""
    parts = [p if isinstance(p, list) else [p] for p in pipeline]
    return [step for part in parts for step in part]


says = st.sampled_from(
    [
        "fine",
        "Ranking: 2, 1",
        "",
        " ",
        "</response 1>",
        OSError("down"),
        ValueError("x"),
    ]
)


@settings(
    max_examples=400,
    deadline=None,
    derandomize=True,  # the same on every machine
    suppress_health_check=list(HealthCheck),
)
@given(
    pipeline=pipelines,
    scripts=st.fixed_dictionaries(dict.fromkeys(NAMES, says)),
    on_failure=st.sampled_from(["raise", "keep"]),
    max_calls=st.none() | st.integers(1, 12),
    max_total_tokens=st.none() | st.integers(1, 2000),
    deadline=st.none() | st.just(60.0),
    asynchronous=st.booleans(),
)
def test_any_run_ends_in_an_answer_or_an_error_and_accounts_for_every_call(
    pipeline: list[Any],
    scripts: dict[str, Any],
    on_failure: Any,
    max_calls: int | None,
    max_total_tokens: int | None,
    deadline: float | None,
    asynchronous: bool,
) -> None:
    """The history has every request, nothing is asked twice, no cap is passed."""
    FAILS["now"] = True
    client = {name: Scripted(model=name, script=said) for name, said in scripts.items()}
    graph = create_mixture(
        pipeline,
        client=client,
        on_failure=on_failure,
        max_calls=max_calls,
        max_total_tokens=max_total_tokens,
        deadline=deadline,
    )
    try:
        if asynchronous:
            state = asyncio.run(graph.ainvoke(ask()))
        else:
            state = graph.invoke(ask())
    except MixtureError as error:
        history: Any = error.history  # type: ignore[attr-defined]  # those of running have it
    else:
        mixture = state["mixture"]
        history = mixture["history"]
        assert state["messages"][-1].text.strip()
        assert state["messages"][-1].text == mixture["responses"][0]["text"]
        failed = any("error" in call for row in history for call in row["llm_calls"])
        told = [r for r in mixture["reasons"] if " rests on " not in r]
        if failed:
            assert mixture["reasons"]
        assert bool(told) == (mixture["status"] == "degraded")
    recorded = [call["model"] for row in history for call in row["llm_calls"]]
    assert sorted(recorded) == sorted(
        name for name, model in client.items() for _ in model.asked
    )
    steps = flattened(pipeline)
    spare = sum(_most_fallbacks(step) for step in steps)
    if max_calls is not None:
        assert len(recorded) <= max_calls
    if on_failure == "raise" and (max_calls, max_total_tokens, deadline) == (None,) * 3:
        assert len(recorded) <= count_calls(pipeline) + spare


def _most_fallbacks(step: Step) -> int:
    """Return the most calls of fallbacks: for each call of the step, all of them."""
    return len(step.fallbacks) * len(step.bounds(9)[0])


class Stopped(BaseException):
    """The end of a process, seen from inside of a call."""


@dataclass
class Stopping:
    """Scripted agents, of which a call raises an error now and then, as a kill does.

    They are no chat models, as core takes such an error for a failed call.
    """

    scripts: dict[str, Any]
    stops: list[int]
    """The numbers of calls that are made before each stop."""
    made: list[str] = field(default_factory=list)

    def client(self) -> dict[str, Any]:
        """Return the agents."""
        return {name: self._agent(name) for name in NAMES}

    def _agent(self, name: str) -> Any:
        def say(_: Any) -> Any:
            if self.stops and self.stops[0] == 0:
                del self.stops[0]
                raise Stopped
            self.stops[:1] = [number - 1 for number in self.stops[:1]]
            self.made.append(name)
            if isinstance(said := self.scripts[name], Exception):
                raise said
            return said

        async def asay(messages: Any) -> Any:
            return say(messages)

        return RunnableLambda(say, asay, name=name)


def resumed(graph: Any, *, asynchronous: bool, most: int) -> tuple[Any, Any]:
    """Run a graph, and go on until it ends; return its state and its history."""
    config: Any = {"configurable": {"thread_id": "1"}, "max_concurrency": 1}
    inputs: Any = ask()
    for _ in range(most):
        try:
            if asynchronous:
                state = asyncio.run(graph.ainvoke(inputs, config))
            else:
                state = graph.invoke(inputs, config)
            return state, state["mixture"]["history"]
        except Stopped:
            pass
        except MixtureError as error:
            if not FAILS["now"]:  # it fails for another reason than a condition
                return None, error.history  # type: ignore[attr-defined]  # as above
            FAILS["now"] = False
        inputs = None
    raise AssertionError("it never ends")


# LangGraph never awaits the branches that wait behind the one that stops.
@pytest.mark.filterwarnings("ignore:coroutine 'arun_with_retry' was never awaited")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(
    pipeline=pipelines,
    scripts=st.fixed_dictionaries(dict.fromkeys(NAMES, says)),
    stops=st.lists(st.integers(0, 8), max_size=3),
    asynchronous=st.booleans(),
)
def test_a_program_that_stops_goes_on_and_asks_for_nothing_that_is_saved(
    pipeline: list[Any],
    scripts: dict[str, Any],
    stops: list[int],
    asynchronous: bool,
) -> None:
    """It ends in an answer or an error, with each saved call in its history once.

    A run ends in the middle of a call, or because a condition raises an error, and is
    resumed until it ends. Calls run one by one, so that only the one that stops is
    lost. Calls that failed may be made anew; those that were answered may not.
    """
    FAILS["now"] = True
    models = Stopping(scripts, list(stops))
    graph = create_mixture(
        pipeline,
        client=models.client(),
        on_failure="keep",
        checkpointer=InMemorySaver(),
    )
    most = len(stops) + 3
    state, history = resumed(graph, asynchronous=asynchronous, most=most)
    calls = [call for row in history for call in row["llm_calls"]]
    recorded = Counter(call["model"] for call in calls)
    if state is not None:
        assert state["messages"][-1].text.strip()
        assert [row["name"] for row in history] == names_of(flattened(pipeline))
    if state is not None and not any("error" in call for call in calls):
        assert recorded == Counter(models.made)
    assert recorded <= Counter(models.made)
