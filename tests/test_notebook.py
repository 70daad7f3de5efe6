"""What a notebook shows of mixtures, and of their errors."""

from __future__ import annotations

import re
import socket
from typing import Any

import pytest

from langchain_mixture import (
    Aggregate,
    ChatMixture,
    Propose,
    StepFailedError,
    Take,
    create_mixture,
)
from tests.models import ask, models

NAMES = [f"m{number}" for number in range(7)]
STEPS = [
    Propose(["openai:gpt-4o", "<b>", *NAMES, "m9", "m9"]),
    Take(2),
    Aggregate("judge"),
]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing open a connection."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("face", ["model", "graph"])
@pytest.mark.usefixtures("offline")
def test_a_pipeline_is_a_card(face: str) -> None:
    """Its steps and their agents, without a network, and escaped."""
    client = models("openai:gpt-4o", "<b>", *NAMES, "m9", "judge")
    if face == "model":
        shown = ChatMixture(STEPS, client=client)._repr_html_()
    else:
        bundle = create_mixture(STEPS, client=client)._repr_mimebundle_()
        assert bundle.keys() == {"text/plain", "text/html"}
        shown = bundle["text/html"]
    assert re.findall(r"<b>(\w+)</b>", shown) == ["1_propose", "2_take", "3_aggregate"]
    assert "<div>openai:gpt-4o</div><div>&lt;b&gt;</div><div>m0</div>" in shown
    assert "and 2 more" in shown
    assert "http" not in shown


@pytest.mark.usefixtures("offline")
def test_a_model_shows_itself_without_resolving_names() -> None:
    """A name that no package knows yet is a name."""
    shown = ChatMixture([Propose(["nobody:knows", "me"]), Take(1)])._repr_html_()
    assert "nobody:knows" in shown


def test_a_failed_step_shows_the_line_that_called_it() -> None:
    """And not the 200 lines of frames in between."""
    graph = create_mixture([Propose(["a", "a"])], client=models(a=ValueError("no")))
    with pytest.raises(StepFailedError) as raised:
        graph.invoke(ask())
    shown = "\n".join(raised.value._render_traceback_())
    assert "graph.invoke(ask())" in shown
    assert len(shown.splitlines()) <= 5
    assert shown.endswith(f"{type(raised.value).__name__}: {raised.value}")
