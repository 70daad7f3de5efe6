"""Ctrl-C in sync code ends a run at once, in a real process."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from langchain_mixture.threads import interruptible

PROGRAM = """
import signal, sys, threading
from langchain_mixture import Aggregate, ChatMixture, Propose, create_mixture
from tests.models import Scripted, ask

# A shell that starts tests in the background has them ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

def hang(_):
    sys.stdout.write("begun\\n")  # in one piece, from several threads
    sys.stdout.flush()
    threading.Event().wait(300)
    return "late"

many = [Propose([Scripted(model="m", script=hang)] * 3)]
one = [Propose([Scripted(model="m", script=hang)])]
nested = [Propose([ChatMixture(many), Scripted(model="f")])]
ways = {
    "invoke": lambda: ChatMixture(many).invoke("Why?"),
    "one call": lambda: ChatMixture(one).invoke("Why?"),
    "stream": lambda: list(ChatMixture(many).stream("Why?")),
    "graph": lambda: create_mixture(many).invoke(ask()),
    "graph messages": lambda: list(
        create_mixture(many).stream(ask(), stream_mode="messages")
    ),
    "nested": lambda: ChatMixture(nested).invoke("Why?"),
}
try:
    ways[sys.argv[1]]()
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize(
    "way", ["invoke", "one call", "stream", "graph", "graph messages", "nested"]
)
def test_ctrl_c_ends_a_run(way: str) -> None:
    """The program goes on with KeyboardInterrupt and ends, though the calls hang."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, way],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    try:
        assert process.stdout is not None
        for _ in range(1 if way == "one call" else 3):
            assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert printed == "interrupted\n", errors
    assert process.returncode == 0, errors


def test_the_handler_of_ctrl_c_is_given_back() -> None:
    """Between the parts of a stream, and after it, Python's own is in its place."""
    program = """
import signal
from langchain_mixture import ChatMixture, Propose
signal.signal(signal.SIGINT, signal.default_int_handler)
from tests.models import Streaming
for _ in ChatMixture([Propose([Streaming(model="m")])]).stream("Why?"):
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""
    root = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-c", program], check=True, cwd=root, timeout=60)


@pytest.fixture
def default_handler() -> Iterator[None]:
    """Python's own handler of Ctrl-C; the one of the tests comes back."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("default_handler")
def test_a_handler_that_the_program_sets_meanwhile_stays() -> None:
    """Python's own takes its place again only where ours still stands."""
    with interruptible(print):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    with interruptible(print):
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@pytest.mark.usefixtures("default_handler")
def test_ctrl_c_cancels_before_it_is_raised() -> None:
    """So that what the block waits for has ended when it leaves."""
    order: list[str] = []
    with (
        pytest.raises(KeyboardInterrupt),
        interruptible(lambda: order.append("cancelled")),
    ):
        signal.raise_signal(signal.SIGINT)
    assert order == ["cancelled"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
