"""Past one machine: workers on one database, an Agent Server, remote agents."""

import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.openai_stub import Answer, Stub, serve
from tests.test_resume import ONE_SERVER, postgres, saved_replies, wait_until

__all__ = ["postgres"]

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
AGENT_SERVER = ROOT / ".venv-server" / "bin" / "langgraph"


def worker(stub: Stub, database: str) -> subprocess.Popen[str]:
    """Start a worker on one thread of a database."""
    return subprocess.Popen(
        [sys.executable, EXAMPLES / "worker.py", database, "order-17", "Why?"],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OPENAI_BASE_URL": stub.url,
            "OPENAI_API_KEY": "none",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def waiting_workers(database: str) -> int:
    """Count those that wait for another's lock."""
    with closing(psycopg.connect(database)) as connection:
        query = "select count(*) from pg_locks where locktype = 'advisory'"
        row = connection.execute(f"{query} and not granted").fetchone()
    return int(row[0]) if row else 0


@ONE_SERVER
def test_a_worker_takes_over_the_thread_of_one_that_was_killed(postgres: str) -> None:
    """Of two that wait, one asks what was not saved, and one finds the answer."""
    with closing(psycopg.connect(postgres, autocommit=True)) as connection:
        connection.execute("create database workers")
    database = postgres.replace("/postgres", "/workers")
    released = threading.Event()

    def answer(request: dict[str, Any]) -> Answer | str:
        hangs = request["model"] == "gpt-4o" and stub.asked().count("gpt-4o") == 1
        return Answer("It is.", after=released if hangs else None)

    with serve(answer) as stub:
        workers = [worker(stub, database)]
        try:
            wait_until(
                lambda: "gpt-4o" in stub.asked() and saved_replies(database) == 2
            )
            workers += [worker(stub, database), worker(stub, database)]
            wait_until(lambda: waiting_workers(database) == 2)
            workers[0].send_signal(signal.SIGKILL)
            told = [process.communicate(timeout=120) for process in workers[1:]]
        finally:
            for process in workers:
                process.kill()
                process.communicate()
            released.set()
        assert told == [("It is.\n", "")] * 2
        expected = {"gpt-4o-mini": 1, "gpt-4.1-mini": 1, "gpt-4o": 2}
        assert Counter(stub.asked()) == Counter(expected)


def test_the_page_shows_the_workers_own_lines() -> None:
    """What it quotes of examples/worker.py is in there."""
    page = (ROOT / "docs" / "machines.md").read_text()
    (quoted,) = re.findall(r"```text\n(with .*?)```", page, re.DOTALL)
    assert quoted in (EXAMPLES / "worker.py").read_text()


@pytest.fixture
def agent_server(tmp_path: Path) -> Iterator[str]:
    """Run LangGraph's Agent Server in a copy of the examples, and give its URL."""
    if not AGENT_SERVER.exists():
        pytest.skip("no Agent Server: `make test-server` installs it")
    for name in ("langgraph.json", "served.py"):
        shutil.copy(EXAMPLES / name, tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(AGENT_SERVER), "dev", "--no-browser", "--no-reload"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "LANGSMITH_TRACING": "false"},
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}"

    def is_up() -> bool:
        assert process.poll() is None, (tmp_path / "log").read_text()
        with suppress(OSError), urllib.request.urlopen(f"{url}/ok", timeout=5):
            return True
        return False

    try:
        wait_until(is_up)
        yield url
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=30)
        process.kill()
        process.wait()


@pytest.fixture
def openai_on_loopback(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    """Send what goes to OpenAI, from here and from servers, to a stub."""
    with serve() as stub:
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        monkeypatch.setenv("OPENAI_BASE_URL", stub.url)
        yield stub


def test_a_mixture_on_an_agent_server_is_run_from_afar(
    openai_on_loopback: Stub,
    agent_server: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By the SDK, by RemoteGraph, and as an agent of a mixture here."""
    monkeypatch.setenv("AGENT_SERVER", agent_server)
    runpy.run_path(str(EXAMPLES / "remote.py"), run_name="__main__")
    first, *done, last = capsys.readouterr().out.splitlines()
    assert first == "complete gpt-4o answers"
    assert set(done) == {
        "done: 1_propose/openai/gpt-4o-mini",
        "done: 1_propose/openai/gpt-4.1-mini",
        "done: 1_propose",
        "done: 2_aggregate",
    }
    assert last == "gpt-4o answers"
    # Three runs there, and two calls from here.
    expected = {"gpt-4o-mini": 4, "gpt-4.1-mini": 3, "gpt-4o": 4}
    assert Counter(openai_on_loopback.asked()) == Counter(expected)
