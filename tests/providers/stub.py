"""A loopback server that speaks the wire format of a provider.

It keeps what it was asked and replays a script. A request which the real API would
refuse, such as one with roles out of order, is refused with the real API's status.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Protocol

from tests.openai_stub import running

Role = Literal["system", "user", "assistant", "tool"]
Finish = Literal["stop", "calls", "length", "filter", "refusal", "pause"]
Body = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What a model says, in no provider's words."""

    text: str = ""
    thinking: str = ""
    calls: Sequence[tuple[str, dict[str, Any] | str]] = ()
    """Tools and their arguments; a string is sent as it is, well formed or not."""
    finish: Finish = "stop"
    blocks: Sequence[dict[str, Any]] = ()
    """Blocks in the provider's own words, in front of the text."""
    cites: str = ""
    """The title of a source that the text cites."""


@dataclass(frozen=True)
class Failure:
    """An error of the API."""

    status: int
    message: str
    overflow: bool = False
    """Whether the conversation is too long for the model."""


@dataclass(frozen=True)
class Turn:
    """One turn of a recorded conversation, in no provider's words."""

    role: Role
    text: str = ""
    calls: tuple[str, ...] = ()
    """The ids of the tools that it calls, or their names where there are no ids."""
    results: tuple[str, ...] = ()
    """The calls that it answers."""
    pictures: int = 0
    marked: bool = False
    """Whether a cache mark stands on it."""


class Wire(Protocol):
    """A wire format."""

    kind: str
    """The media type of a stream."""
    path: str
    """What is in the path of a request."""

    def streams(self, path: str, body: Body) -> bool:
        """Whether a stream is asked for."""

    def tools(self, body: Body) -> list[str]:
        """The names of the tools that the model may call."""

    def turns(self, body: Body) -> list[Turn]:
        """The conversation."""

    def complaint(self, body: Body) -> str | None:
        """Why the real API would refuse the request, or None."""

    def failure(self, failure: Failure) -> Body:
        """The body of an error."""

    def whole(self, body: Body, answer: Answer, number: int) -> Body:
        """An answer in one piece."""

    def parts(self, body: Body, answer: Answer, number: int) -> Iterator[str]:
        """The same answer as a stream."""


Said = Answer | Failure


@dataclass
class Request:
    """One request, as it came."""

    path: str
    body: Body
    headers: dict[str, str]
    turns: list[Turn]

    @property
    def roles(self) -> list[Role]:
        """The roles of the conversation, in order."""
        return [turn.role for turn in self.turns]


@dataclass
class Stub:
    """A running server: what it was asked, and what it is to answer."""

    url: str
    wire: Wire
    script: Sequence[Said] | Callable[[Request], Said]
    """Answers in order, the last one again and again; or a function."""
    requests: list[Request] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """Why requests were refused that the real API would have refused."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def replay(self, script: Sequence[Said] | Callable[[Request], Said]) -> None:
        """Begin again, with another script."""
        self.script = script
        self.requests.clear()
        self.refused.clear()

    @property
    def bodies(self) -> list[Body]:
        """What was asked, in order."""
        return [request.body for request in self.requests]

    def reply(self, request: Request) -> tuple[int, Said]:
        """Keep the request; return its number and what is said to it."""
        with self.lock:
            self.requests.append(request)
            number = len(self.requests)
        if self.wire.path not in request.path:
            complaint: str | None = f"there is no {request.path}"
        else:
            complaint = self.wire.complaint(request.body)
        if complaint is not None:
            self.refused.append(complaint)
            return number, Failure(400, complaint)
        if callable(self.script):
            return number, self.script(request)
        return number, self.script[min(number, len(self.script)) - 1]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:  # http.server's name
        stub = self.server.stub
        body = json.loads(self._read())
        headers = {name.lower(): value for name, value in self.headers.items()}
        known = stub.wire.path in self.path
        turns = stub.wire.turns(body) if known else []
        number, said = stub.reply(Request(self.path, body, headers, turns))
        if isinstance(said, Failure):
            self._send(said.status, stub.wire.failure(said))
        elif stub.wire.streams(self.path, body):
            self._stream(stub.wire.parts(body, said, number))
        else:
            self._send(200, stub.wire.whole(body, said, number))

    def _read(self) -> bytes:
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _send(self, status: int, body: Body) -> None:
        data = json.dumps(body).encode()
        self._begin(status, "application/json", {"Content-Length": str(len(data))})
        self.wfile.write(data)

    def _stream(self, parts: Iterator[str]) -> None:
        kind = self.server.stub.wire.kind
        self._begin(200, kind, {"Transfer-Encoding": "chunked"})
        for part in parts:
            data = part.encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.write(b"0\r\n\r\n")

    def _begin(self, status: int, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        every = {"Content-Type": kind, "Connection": "close", "request-id": "req_1"}
        for name, value in {**every, **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    stub: Stub

    def handle_error(self, *args: object) -> None:
        """Clients that leave are expected."""


@contextmanager
def serve(
    wire: Wire, script: Sequence[Said] | Callable[[Request], Said] = ()
) -> Iterator[Stub]:
    """Serve on a free loopback port while the context lasts."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.stub = Stub(f"http://127.0.0.1:{server.server_port}", wire, script)
    with running(server):
        yield server.stub


def blocks(content: str | list[Any] | None, kind: str = "text") -> list[Body]:
    """Return the blocks of a message's content; a text is one block of a kind."""
    content = [content] if isinstance(content, str) else content or []
    return [
        {"type": kind, "text": block} if isinstance(block, str) else block
        for block in content
    ]


def unknown(content: str | list[Any] | None, kinds: Collection[str]) -> str | None:
    """Return what an API says of a block that it does not know."""
    for block in content if isinstance(content, list) else ():
        kind = block.get("type") if isinstance(block, dict) else type(block).__name__
        if kind not in kinds:
            return f"Invalid value: '{kind}'. Supported values are: {sorted(kinds)}"
    return None


def sse(data: Body | str, event: str | None = None) -> str:
    """Return one server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data)
    head = "" if event is None else f"event: {event}\n"
    return f"{head}data: {text}\n\n"


def pieces(text: str, most: int = 8) -> list[str]:
    """Return a text in pieces."""
    return [text[start : start + most] for start in range(0, len(text), most)]


def arguments_of(call: tuple[str, dict[str, Any] | str]) -> str:
    """Return the arguments of a call as they are sent."""
    _, arguments = call
    return arguments if isinstance(arguments, str) else json.dumps(arguments)
