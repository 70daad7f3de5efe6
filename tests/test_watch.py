"""watch: what the terminal shows of a run while it goes on, and lines elsewhere."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import re
import sys
import threading
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import dispatch_custom_event
from langchain_core.runnables import RunnableLambda
from rich.console import Console

from langchain_mixture import (
    Aggregate,
    ChatMixture,
    Propose,
    Rank,
    StepFailedError,
    Take,
    create_mixture,
)
from langchain_mixture.seeing import watch
from langchain_mixture.seeing.watch import _Watcher
from tests.models import Scripted, Streaming, ask, called, mixture, models

STEPS = [Propose(["a", "b"]), Aggregate("c")]


def plain() -> Console:
    """Make a console that is no terminal."""
    return Console(file=io.StringIO(), width=120)


def text_of(console: Console) -> str:
    """Give what was written to such a console."""
    file: Any = console.file
    return str(file.getvalue())


# -- Lines -----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream", "astream"])
@pytest.mark.parametrize("face", ["model", "graph", "agent"])
async def test_without_a_terminal_each_reply_is_a_line(face: str, how: str) -> None:
    """The run is found without being told of the block around it."""
    console = plain()
    faces: dict[str, Any] = {
        "model": mixture(),
        "graph": mixture().graph,
        "agent": create_agent(mixture()),
    }
    with watch(console):
        await called(faces[face], how, "Why?" if face == "model" else ask(), None)
    lines = text_of(console).splitlines()
    assert lines[0] == "mixture: 1_propose → 2_aggregate"
    assert lines[1].startswith("1_propose: ")
    assert lines[2].endswith("(2 of 2 answered)")
    assert lines[3].startswith("2_aggregate: c answered ")
    assert lines[4].startswith("mixture: complete after ")
    assert len(lines) == 5


def test_behind_the_block_nothing_is_shown() -> None:
    """Nor before it."""
    console = plain()
    mixture().invoke("Why?")
    with watch(console):
        pass
    mixture().invoke("Why?")
    assert text_of(console) == ""


def test_an_agents_own_events_are_not_shown() -> None:
    """They may have any form."""

    def tells(messages: Any) -> str:
        dispatch_custom_event("another", "of another form")
        return "So."

    console = plain()
    with watch(console):
        create_mixture([Propose([RunnableLambda(tells)])]).invoke(ask())
    assert "complete" in text_of(console)


def test_a_failed_call_says_why_and_a_failed_run_too() -> None:
    """With what a provider's markup cannot change."""
    console = plain()
    client = models("a", bad=ValueError("[red]no[/red]"))
    graph = create_mixture([Propose(["bad", "bad"]), Take(1)], client=client)
    with watch(console), pytest.raises(StepFailedError):
        graph.invoke(ask())
    text = text_of(console)
    assert len(re.findall(r"bad failed \d\.\d s", text)) == 2
    assert "ValueError: [red]no[/red]" in text
    assert "mixture: no response is left: " in text


def test_a_mixture_inside_another_is_indented() -> None:
    """So that its lines are told from those around."""
    console = plain()
    outer = ChatMixture([Propose([mixture()])], client={}, name="outer")
    with watch(console):
        outer.invoke("Why?")
    lines = text_of(console).splitlines()
    assert lines[0] == "outer: 1_propose"
    assert lines[1] == "  mixture: 1_propose → 2_aggregate"


def test_without_rich_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the block begins."""
    monkeypatch.setitem(sys.modules, "rich.console", None)
    said = "pip install rich, or the extra `watch`"
    with pytest.raises(ImportError, match=said), watch():
        raise AssertionError


# -- A terminal ------------------------------------------------------------------------


def picture(watcher: _Watcher) -> str:
    """Give what a terminal would show now."""
    console = Console(file=io.StringIO(), width=100, height=40)
    console.print(watcher._picture())
    return text_of(console)


def terminal() -> Console:
    """Make a console that takes itself for a terminal."""
    return Console(file=io.StringIO(), force_terminal=True, width=100, height=40)


async def test_a_terminal_shows_who_waits_writes_and_has_answered() -> None:
    """And how many of a step have answered, while the run goes on."""
    console = terminal()
    watcher = _Watcher(console)
    answered, goes_on = asyncio.Event(), asyncio.Event()

    async def slow(_: Any) -> str:
        await goes_on.wait()
        return "slowly"

    class Ear(_Watcher):
        def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
            super().on_custom_event(name, data, **kwargs)
            if data["event"] == "replied":
                answered.set()

    watcher = Ear(console)
    client = {**models("a", "c"), "slow": RunnableLambda(slow)}
    graph = create_mixture([Propose(["a", "slow"]), Aggregate("c")], client=client)
    config: Any = {"callbacks": [watcher]}
    task = asyncio.create_task(graph.ainvoke(ask(), config))
    await answered.wait()
    shown = picture(watcher)
    assert "a answered" in shown
    assert "15 tokens" in shown
    assert "slow writing" in shown
    assert "1 of 2 answered" in shown
    assert "c waiting" in shown
    goes_on.set()
    await task
    shown = picture(watcher)
    assert "2 of 2 answered" in shown
    assert "c answers" in shown  # the answer
    assert "complete" in shown


def test_the_answer_is_shown_as_it_is_written() -> None:
    """Of its own tokens alone, though a proposer streams too."""
    watcher = _Watcher(terminal())
    goes_on, wrote = threading.Event(), threading.Event()

    class Held(Streaming):
        def _stream(self, *args: Any, **kwargs: Any) -> Any:
            for chunk in super()._stream(*args, **kwargs):
                yield chunk
                wrote.set()
                goes_on.wait(30)

    client: Any = {
        "a": Streaming(model="a", script="proposed words"),
        "c": Held(model="c", script="first second"),
    }
    model = ChatMixture([Propose(["a"]), Aggregate("c")], client=client)
    stream = model.stream("Why?", {"callbacks": [watcher]})
    assert next(iter(stream)).text == "first"
    shown = picture(watcher)
    assert "first" in shown
    assert "second" not in shown
    assert "proposed" not in shown
    goes_on.set()
    list(stream)
    assert "first second" in picture(watcher)


def test_many_agents_are_counted_and_not_all_listed() -> None:
    """So that 64 of them leave room for the answer."""
    watcher = _Watcher(terminal())
    names = [f"m{number}" for number in range(64)]
    graph = create_mixture([Propose(names), Take(1)], client=models(*names))
    graph.invoke(ask(), {"callbacks": [watcher]})
    shown = picture(watcher)
    assert "64 of 64 answered" in shown
    assert re.search(r"and \d\d more", shown)
    assert len(shown.splitlines()) < 40


def test_a_small_terminal_has_room_for_all_of_it() -> None:
    """80 by 24: five agents, one that fails at length, a judge, and the answer."""
    small = Console(file=io.StringIO(), force_terminal=True, width=80, height=24)
    watcher = _Watcher(small)
    client = models(
        "a", "b", "c", "d", bad=ValueError("no " * 90), judge="1", e="So. " * 900
    )
    steps = [Propose(["a", "b", "bad", "c", "d"]), Rank("judge", 1), Aggregate("e")]
    graph = create_mixture(steps, client=client)
    graph.invoke(ask(), {"callbacks": [watcher]})
    small.print(watcher._picture())
    shown = re.sub(r"\x1b\[[0-9;]*m", "", text_of(small))
    assert len(shown.splitlines()) <= 24
    assert "degraded" in shown
    assert "So. So." in shown


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_a_real_terminal_is_left_as_it_was() -> None:
    """The last picture stays, and the cursor is shown again."""
    ours, its = pty.openpty()
    with os.fdopen(its, "w") as file:
        console = Console(file=file, force_terminal=True, width=80, height=24)
        with watch(console):
            mixture().invoke("Why?")
    os.set_blocking(ours, False)
    written = b""
    try:
        while part := os.read(ours, 1 << 16):
            written += part
    except OSError:  # all of it is read
        pass
    os.close(ours)
    text = written.decode()
    assert "1_propose" in text
    assert "c answers" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_a_scripted_model_needs_no_watch() -> None:
    """A model that is no mixture shows nothing."""
    console = plain()
    with watch(console):
        Scripted(model="a").invoke("Why?")
    assert text_of(console) == ""
