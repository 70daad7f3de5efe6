"""The LLM cache of a mixture itself: what it keeps, and under which key."""

from dataclasses import dataclass
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.prompts import ChatPromptTemplate

from langchain_mixture import (
    Aggregate,
    ChatMixture,
    Filter,
    Map,
    Propose,
    Refine,
    Step,
    Take,
)
from tests.models import Scripted, models


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
