"""A LangSmith dataset as examples, and the scores as its feedback, over a stub."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from langchain_mixture import Propose, Take
from langchain_mixture.evaluation import compare, matches
from tests.models import models

DATASET = "11111111-1111-4111-8111-111111111111"
SESSION = "33333333-3333-4333-8333-333333333333"
SINCE = "2026-01-01T00:00:00Z"


class _Handler(BaseHTTPRequestHandler):
    """Knows one dataset of two examples, and keeps what is posted."""

    server: _Server

    def do_GET(self) -> None:  # http.server's name
        dataset = {"id": DATASET, "name": "capitals", "created_at": SINCE}
        examples = [
            {
                "id": f"22222222-2222-4222-8222-22222222222{number}",
                "dataset_id": DATASET,
                "inputs": {"question": f"Question {number}?"},
                # Several outputs are told apart by their names.
                "outputs": [{"answer": "A"}, {"why": "It is.", "gold": "A"}][
                    number - 1
                ],
                "created_at": SINCE,
            }
            for number in (1, 2)
        ]
        first = "offset=0" in self.path
        known: dict[str, Any] = {
            "/datasets": [dataset],
            "/examples": examples if first else [],
        }
        self._send(known.get(self.path.partition("?")[0], {}))

    def do_POST(self) -> None:  # http.server's name
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.posted.append((self.path, body))
        if self.path == "/sessions":
            session = {"id": SESSION, "start_time": SINCE, "tenant_id": DATASET}
            self._send({**body, **session})
        else:
            self._send({})

    def _send(self, answer: Any) -> None:
        refuses = self.server.refuses and self.command == "POST"
        data = json.dumps(answer).encode()
        self.send_response(403 if refuses else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    posted: list[tuple[str, dict[str, Any]]]
    refuses = False


@pytest.fixture
def langsmith(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    """LangSmith's API on loopback."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.posted = []
    monkeypatch.setenv("LANGSMITH_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("LANGSMITH_API_KEY", "none")
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


CANDIDATES = {"mix": [Propose(["a", "b"]), Take(1)]}


def test_a_dataset_is_read_and_gets_the_scores_as_feedback(langsmith: _Server) -> None:
    """Each candidate is an experiment; the only input and output are what they are."""
    client = models(a="A", b="B")
    found = compare(
        CANDIDATES, "capitals", matches(str.strip), client=client, progress=False
    )
    assert [message[-1].text for message in client["a"].asked] == [
        "Question 1?",
        "Question 2?",
    ]
    assert found.scores("mix") == [1, 1]
    posted: dict[str, list[Any]] = {}
    for path, body in langsmith.posted:
        posted.setdefault(path, []).append(body)
    sessions = posted["/sessions"]
    assert [session["name"].rpartition("-")[0] for session in sessions] == [
        "mix",
        "a",
        "b",
    ]
    assert {session["reference_dataset_id"] for session in sessions} == {DATASET}
    assert "cannot tell" in sessions[0]["description"]
    assert [run["outputs"]["answer"] for run in posted["/runs"]] == [*"AAAABB"]
    scores = [feedback["score"] for feedback in posted["/feedback"]]
    assert scores == [1, 1, 1, 1, 0, 0]


def test_what_was_paid_for_is_not_lost_where_langsmith_refuses(
    langsmith: _Server, caplog: pytest.LogCaptureFixture
) -> None:
    """The comparison says that there is no feedback, and why."""
    langsmith.refuses = True
    with caplog.at_level(logging.WARNING, "langchain_mixture"):
        found = compare(
            CANDIDATES,
            "capitals",
            matches(str.strip),
            client=models("a", "b"),
            progress=False,
        )
    assert found.calls == 4
    assert "LangSmith has no feedback" in str(found)
    assert "LangSmith has no feedback" in caplog.text
