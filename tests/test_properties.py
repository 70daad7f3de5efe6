"""What holds for any pipeline and any pattern of failures."""

import asyncio
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langchain_mixture import (
    Aggregate,
    Dropout,
    Filter,
    Map,
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
)
from tests.models import Scripted, ask

NAMES = "abcdef"

agents = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4)
agent = st.sampled_from(NAMES)
seeds = st.integers(0, 9)
counts = st.integers(1, 4)
fallbacks = st.lists(agent, max_size=2)


def asking(kind: Any) -> Any:
    """Build steps of several agents, some with a quorum that lets all of them end."""

    def with_agents(chosen: list[str]) -> Any:
        quorums = st.none() | st.integers(1, len(chosen))
        return st.builds(kind, st.just(chosen), quorum=quorums, grace=st.just(60))

    return agents.flatmap(with_agents)


steps: st.SearchStrategy[Step] = st.one_of(
    asking(Propose),
    asking(Synthesize),
    asking(Refine),
    st.builds(Aggregate, agent, fallbacks=fallbacks),
    st.builds(Vote, agent, fallbacks=fallbacks),
    st.builds(Rank, agent, counts, fallbacks=fallbacks),
    st.builds(Shuffle, seed=seeds),
    st.builds(Dropout, st.floats(0, 1), seed=seeds),
    st.builds(Sample, counts, seed=seeds),
    st.builds(Take, counts),
    st.just(Filter(lambda text: "a" in text)),
    st.just(Map(str.upper)),
)
pipelines = st.builds(
    lambda first, rest: [first, *rest],
    asking(Propose),
    st.lists(steps, max_size=6),
)
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
    pipeline: list[Step],
    scripts: dict[str, Any],
    on_failure: Any,
    max_calls: int | None,
    max_total_tokens: int | None,
    deadline: float | None,
    asynchronous: bool,
) -> None:
    """The history has every request, nothing is asked twice, no cap is passed."""
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
    spare = sum(len(step.fallbacks) for step in pipeline)
    if max_calls is not None:
        assert len(recorded) <= max_calls
    if on_failure == "raise" and (max_calls, max_total_tokens, deadline) == (None,) * 3:
        assert len(recorded) <= count_calls(pipeline) + spare
