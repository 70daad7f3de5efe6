"""What a conversation costs by hand, with every provider's own client package."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from langchain_mixture import Aggregate, ChatMixture, Propose, cost, create_mixture
from tests.providers.cases import CALL, ION, QUESTION, weather
from tests.providers.setups import PACKAGES, SET_UPS, SetUp
from tests.providers.stub import serve

PRICES = {"input": 3.0, "cached_read": 0.3, "output": 15.0, "reasoning": 20.0}

# Each answer of a stub has read ten tokens, four of them from the cache, and written
# five, two of them as reasoning.
IN_FULL = 6 * 3.0 + 4 * 0.3 + 3 * 15.0 + 2 * 20.0
BY_HAND = {
    "anthropic": 6 * 3.0 + 4 * 0.3 + 5 * 15.0,  # its reasoning is not told apart
    "xai": 6 * 3.0 + 4 * 0.3 + 5 * 15.0 + 2 * 20.0,  # reasoning counts beside the five
    "mistral": 10 * 3.0 + 5 * 15.0,  # its client tells the sums alone
    "ollama": 10 * 3.0 + 5 * 15.0,  # so does Ollama
}
"""Dollars for a million such answers."""

CLIENTS = [
    pytest.param(
        one,
        id=one.name,
        marks=pytest.mark.skipif(
            find_spec(PACKAGES[one.name]) is None, reason=f"no {PACKAGES[one.name]}"
        ),
    )
    for one in SET_UPS
]
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession")


def prices(provider: str | None, model: str) -> dict[str, float]:
    """Return the same prices for all."""
    return PRICES


def said(model: Any, talk: list[Any], how: str) -> Any:
    """Return an answer, or a streamed answer's chunks added up."""
    if how == "invoke":
        return model.invoke(talk)
    first, *rest = model.stream(talk)
    return sum(rest, start=first)


@pytest.mark.parametrize("how", ["invoke", "stream"])
@pytest.mark.parametrize("set_up", CLIENTS)
def test_a_conversation_costs_what_it_does_by_hand(set_up: SetUp, how: str) -> None:
    """A tool loop of two answers, with an adviser once: three calls, each once."""
    with serve(set_up.wire, [CALL, ION]) as stub, serve(set_up.wire, [ION]) as other:
        steps = [Propose([set_up.make(other.url)]), Aggregate(set_up.make(stub.url))]
        model = ChatMixture(steps, prices=prices).bind_tools([weather])
        talk: list[Any] = [HumanMessage(QUESTION)]
        first = said(model, talk, how)
        (call,) = first.tool_calls
        second = said(model, [*talk, first, weather.invoke(call)], how)
        assert (len(stub.requests), len(other.requests)) == (2, 1)
    each = BY_HAND.get(set_up.name, IN_FULL) / 1e6
    for answer, calls in ((first, 2), (second, 1)):
        spent = answer.response_metadata["mixture"]["cost"]
        assert spent["total"] == pytest.approx(calls * each, abs=1e-12)
        assert (spent["estimated"], spent["unpriced"]) == (0, [])


UNLISTED = ("ollama", "fireworks", "together")
"""Their models are not in the list under the names that the clients give."""


@pytest.mark.parametrize("set_up", CLIENTS)
def test_list_prices_know_the_provider_and_the_model(set_up: SetUp) -> None:
    """genai-prices finds them by what the client says; what is not in it is named."""
    pytest.importorskip("genai_prices")
    with serve(set_up.wire, [ION]) as stub:
        graph = create_mixture([Propose([set_up.make(stub.url)])])
        state = graph.invoke({"messages": [HumanMessage(QUESTION)]})
    found = cost(state["mixture"])
    assert bool(found.unpriced) is (set_up.name in UNLISTED)
    assert found.unpriced or 0 < (found.total or 0) < 1e-3
