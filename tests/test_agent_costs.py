"""What a mixture costs in a tool loop: the figures of `make bench-agents`, held."""

from functools import cache

import pytest

from benchmarks.agents import Anthropic, Measured, OpenAI, Setting, measure

FACES = pytest.mark.parametrize("face", ["ChatMixture", "middleware"])
CLIENTS = {"OpenAI": OpenAI(), "Anthropic": Anthropic()}


@cache
def found(client: str, face: str, setting: Setting) -> Measured:
    """Hold each conversation once for all tests."""
    return measure(CLIENTS[client], setting, face)


@FACES
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("setting", [Setting(2, 12, 2000), Setting(6, 4, 210)], ids=str)
def test_an_advised_agent_is_cached_as_its_model_alone(
    client: str, face: str, setting: Setting
) -> None:
    """By OpenAI's rule and by Anthropic's, with advice once a turn and no call more."""
    plain, ours = (found(client, one, setting) for one in ("plain", face))
    assert ours.prefix >= 0.95 * plain.prefix
    assert ours.prefix == pytest.approx(ours.most, abs=1e-3)  # nothing is sent anew
    if client == "Anthropic":
        assert ours.marks >= 0.95 * plain.marks > 0.8
    assert ours.requests == plain.requests
    assert ours.advisers == 3 * setting.turns


@FACES
def test_a_turn_of_twelve_steps_saves_little_more_than_a_plain_one(face: str) -> None:
    """Six thousand characters of advice are carried once, and not by each answer."""
    plain, ours = (
        found("OpenAI", one, Setting(2, 12, 2000)) for one in ("plain", face)
    )
    assert ours.saved <= 2.2 * plain.saved


@FACES
@pytest.mark.parametrize(
    ("prompt", "share"), [(2000, 0.92), (20_000, 0.93)], ids=["short", "long"]
)
def test_advice_at_every_call_is_cached_as_far_as_it_can_be(
    face: str, prompt: int, share: float
) -> None:
    """Each request begins with the one before, so the longest is all that is new."""
    ours = found("OpenAI", face, Setting(2, 12, 2000, 1, prompt))
    assert ours.prefix == pytest.approx(ours.most, abs=1e-3)
    assert ours.prefix >= share
    assert ours.advisers == 3 * ours.requests
