"""compare in a process that is killed or interrupted, counted at the server."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.openai_stub import Stub, serve

PROGRAM = Path(__file__).with_name("comparing_program.py")
CALLS = 12 * (6 + 1 + 3 + 7)
"""Of the three mixtures on twelve questions, members included."""
IN_FLIGHT = 4


@contextmanager
def running(stub: Stub, save: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the program; kill it in the end, should it still run."""
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), stub.url, str(save)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def fingerprints(stub: Stub) -> Counter[str]:
    """Count the same questions to the same model."""
    return Counter(
        json.dumps([request["model"], request["messages"]]) for request in stub.requests
    )


def saved(save: Path) -> int:
    """Count the answers in the file."""
    return sum('"key"' in line for line in save.read_text().split("\n"))


@pytest.fixture
def counted() -> Iterator[tuple[Stub, Any]]:
    """A server that says when it has been asked a number of times."""
    reached: dict[int, threading.Event] = {}

    def answer(request: dict[str, Any]) -> str:
        event = reached.get(len(stub.requests))
        if event is not None:
            event.set()
        return f"{request['model']} answers"

    with serve(answer) as stub:
        yield stub, lambda count: reached.setdefault(count, threading.Event())


def test_a_killed_comparison_repeats_at_most_the_calls_in_flight(
    counted: tuple[Stub, Any], tmp_path: Path
) -> None:
    """Killed twice: no answer that was saved is asked again."""
    stub, reached = counted
    save = tmp_path / "answers.jsonl"
    for count in (40, 110):
        event = reached(count)
        with running(stub, save) as process:
            assert event.wait(60)
            process.send_signal(signal.SIGKILL)
            process.wait(10)
        assert len(stub.requests) - saved(save) <= 2 * IN_FLIGHT
    with running(stub, save) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    counts = fingerprints(stub)
    assert len(counts) == CALLS == saved(save)
    assert len(stub.requests) - CALLS <= 2 * IN_FLIGHT
    assert max(counts.values()) <= 2
    assert int(out.split("\n")[-2]) < CALLS


def test_ctrl_c_prints_what_there_is(counted: tuple[Stub, Any], tmp_path: Path) -> None:
    """The table of the finished questions, then the interrupt."""
    stub, reached = counted
    event = reached(100)
    with running(stub, tmp_path / "answers.jsonl") as process:
        assert event.wait(60)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert "Not finished" in out, err
    assert "fused" in out
    assert "KeyboardInterrupt" in err
    assert process.returncode != 0
