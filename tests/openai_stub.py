"""A loopback server that speaks OpenAI's chat completions, and can misbehave."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal


@dataclass
class Answer:
    """What the server sends back for one request."""

    text: str | None = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    finish: str = "stop"
    refusal: str | None = None
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    usage: dict[str, Any] | None = None
    """The tokens that are reported; None = ten read and five written."""
    body: str | None = None
    """Sent as it is, instead of a completion."""
    after: threading.Event | None = None
    """Waited for before the answer, and after the first token of a stream."""
    hang: threading.Event | None = None
    """Waited for before anything is sent, even of a stream."""
    drop: Literal["before", "middle"] | None = None
    """Where the connection is cut: before the answer, or half-way through it."""
    drip: float = 0.0
    """Seconds between any two pieces of the answer."""


@dataclass
class Stub:
    """A running server: what it was asked, and what it is to answer."""

    url: str
    answer: Callable[[dict[str, Any]], Answer | str]
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """The models whose request was given up by the client."""

    def asked(self) -> list[str]:
        """Give the models that were asked, in the order of the requests."""
        return [request["model"] for request in self.requests]


def by_name(request: dict[str, Any]) -> str:
    """Answer with the model's name."""
    return f"{request['model']} answers"


_ARGUMENTS: dict[str, Any] = {
    "add": {"a": 2, "b": 3},
    "multiply": {"a": 17, "b": 23},
    "Verdict": {"is_true": False, "reason": "It is butterscotch."},
    "choose": {"choice": "hard"},
    "panel": {"question": "Is it?"},
    "task": {"description": "Is it?", "subagent_type": "expert"},
    "transfer_to_experts": {},
}
"""What the tools that the server knows are called with."""


def able(request: dict[str, Any]) -> Answer | str:
    """Call the first tool that it knows, fill a schema in, else answer."""
    offered = [tool["function"]["name"] for tool in request.get("tools") or []]
    tools = [name for name in offered if name in _ARGUMENTS]
    last = request["messages"][-1]
    if form := request.get("response_format"):
        return json.dumps(_ARGUMENTS[form["json_schema"]["name"]])
    if tools and last["role"] == "user":
        call = {"name": tools[0], "arguments": json.dumps(_ARGUMENTS[tools[0]])}
        return Answer(
            tool_calls=[{"id": "1", "type": "function", "function": call}],
            finish="tool_calls",
        )
    if last["role"] == "tool":
        return f"the tool said {last['content']}"
    return f"{request['model']} answers"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:  # http.server's name
        stub = self.server.stub
        if not self.path.endswith("/chat/completions"):  # such as a trace
            self.send_error(404)
            return
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        stub.requests.append(request)
        stub.keys.append(self.headers.get("Authorization", ""))
        stub.paths.append(self.path)
        said = stub.answer(request)
        said = Answer(said) if isinstance(said, str) else said
        streams = request.get("stream") and said.status == 200 and said.body is None
        wait = said.hang or (None if streams else said.after)
        if wait is not None and self._is_left_during(wait):
            stub.left.append(request["model"])
            self.close_connection = True
            return
        if said.drop == "before":
            self.close_connection = True
            return
        if streams:
            self._stream(request, said)
        else:
            self._whole(request, said)

    def _whole(self, request: dict[str, Any], said: Answer) -> None:
        body = said.body
        if body is None and said.status != 200:
            body = json.dumps({"error": {"message": said.text, "code": None}})
        elif body is None:
            body = json.dumps(_completion(request, said))
        data = body.encode()
        headers = {"Content-Type": "application/json", **said.headers}
        self._begin(said.status, {**headers, "Content-Length": str(len(data))})
        pieces = 20 if said.drip else 2
        size = -(-len(data) // pieces)
        for number in range(pieces):
            if said.drop == "middle" and number == 1:
                return
            self.wfile.write(data[number * size : (number + 1) * size])
            time.sleep(said.drip)

    def _stream(self, request: dict[str, Any], said: Answer) -> None:
        chunked = {"Transfer-Encoding": "chunked"}  # else a cut looks like an end
        self._begin(200, {"Content-Type": "text/event-stream", **chunked})
        for index, chunk in enumerate(_chunks(request, said)):
            if index == 2 and said.after is not None:
                said.after.wait(30)
            if index == 2 and said.drop == "middle":
                return
            self._event(json.dumps(chunk))
            time.sleep(said.drip)
        self._event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, data: str) -> None:
        event = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
        self.wfile.flush()

    def _begin(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")  # so that no test leaves one open
        self.end_headers()

    def _is_left_during(self, wait: threading.Event) -> bool:
        """Wait, and tell whether the client has closed the connection meanwhile."""
        for _ in range(3000):
            if wait.wait(0.01):
                return False
            readable, _, _ = select.select([self.connection], [], [], 0)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                return True
        return False

    def log_message(self, *args: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024
    stub: Stub

    def handle_error(self, *args: object) -> None:
        """Clients that leave are expected."""


@contextmanager
def serve(
    answer: Callable[[dict[str, Any]], Answer | str] = by_name,
) -> Iterator[Stub]:
    """Serve on a free loopback port while the context lasts."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.stub = Stub(f"http://127.0.0.1:{server.server_port}/v1", answer)
    with running(server):
        yield server.stub


@contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[None]:
    """Run a server on a thread while the context lasts."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


_USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def _completion(request: dict[str, Any], said: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": said.text}
    if said.refusal is not None:
        message["refusal"] = said.refusal
    if said.tool_calls:
        message["tool_calls"] = said.tool_calls
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": request["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": said.finish}],
        "usage": said.usage or _USAGE,
        "service_tier": "default",  # LiteLLM needs it of Groq
    }


def _chunks(request: dict[str, Any], said: Answer) -> Iterator[dict[str, Any]]:
    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": request["model"],
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        }

    yield chunk({"role": "assistant", "content": ""})
    for word in said.text.split(" ") if said.text is not None else ():
        yield chunk({"content": f"{word} "})
    if said.refusal is not None:
        yield chunk({"refusal": said.refusal})
    for index, call in enumerate(said.tool_calls):
        yield chunk({"tool_calls": [{"index": index, **call}]})
    yield chunk({}, said.finish)
    if request.get("stream_options", {}).get("include_usage"):
        yield {**chunk({}), "choices": [], "usage": said.usage or _USAGE}
