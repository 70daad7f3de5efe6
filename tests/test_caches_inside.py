"""LLM caches: the models inside a mixture have theirs, the mixture has none."""

from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import FakeListChatModel
from langchain_openai import ChatOpenAI

from langchain_mixture import (
    ChatMixture,
    InvalidMixtureError,
    Propose,
    create_mixture,
    self_moa,
)
from tests.models import KEY, Scripted
from tests.openai_stub import serve


@pytest.fixture
def cache() -> Any:
    """Set a global cache of model answers for one test."""
    cache = InMemoryCache()
    set_llm_cache(cache)
    yield cache
    set_llm_cache(None)


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


def test_a_cached_answer_without_a_report_of_tokens_is_not_estimated(
    cache: Any,
) -> None:
    """What came from the cache was not paid for: no tokens are made up for it."""
    graph = create_mixture([Propose([FakeListChatModel(responses=["Hi"])])])
    runs = [graph.invoke({"messages": [("user", "Why?")]}) for _ in range(2)]
    first, second = (run["mixture"]["usage"] for run in runs)
    assert first["estimated_tokens"] > 0
    assert second["total_tokens"] == second["estimated_tokens"] == 0


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


@pytest.mark.parametrize("how", ["invoke", "stream"])
def test_a_mixture_keeps_no_answer_of_its_own(cache: Any, how: str) -> None:
    """Under a global cache a model that is not cached is asked anew each time."""
    count = iter(range(100))
    inside = Scripted(model="a", script=lambda _: f"{next(count)}", cache=False)
    model = ChatMixture([Propose([inside])])

    def answer() -> str:
        if how == "invoke":
            return model.invoke("Why?").text
        return "".join(chunk.text for chunk in model.stream("Why?"))

    assert [answer(), answer()] == ["0", "1"]


@pytest.mark.parametrize(
    "value", [True, None, InMemoryCache()], ids=["True", "None", "cache"]
)
def test_a_cache_on_a_mixture_is_refused(value: Any) -> None:
    """The error says where a cache belongs."""
    with pytest.raises(InvalidMixtureError, match="on the models of its steps"):
        ChatMixture([Propose(["a"])], cache=value)
