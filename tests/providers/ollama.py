"""Ollama's chat API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from tests.providers.stub import Answer, Body, Failure, Turn, pieces


@dataclass(frozen=True)
class Ollama:
    """Ollama's chat API; it refuses no order of roles."""

    kind = "application/x-ndjson"
    path = "/api/chat"

    def streams(self, path: str, body: Body) -> bool:
        return bool(body.get("stream", True))

    def tools(self, body: Body) -> list[str]:
        return [tool["function"]["name"] for tool in body.get("tools") or []]

    def turns(self, body: Body) -> list[Turn]:
        return [
            Turn(
                message["role"],
                message.get("content") or "",
                calls=tuple(
                    call["function"]["name"] for call in message.get("tool_calls") or ()
                ),
                results=(message.get("tool_name") or "",)
                if message["role"] == "tool"
                else (),
                pictures=len(message.get("images") or ()),
            )
            for message in body["messages"]
        ]

    def complaint(self, body: Body) -> str | None:
        if any(not isinstance(m.get("content", ""), str) for m in body["messages"]):
            return "json: cannot unmarshal array into Go struct field .messages.content"
        return None

    def failure(self, failure: Failure) -> Body:
        return {"error": failure.message}

    def whole(self, body: Body, answer: Answer, number: int) -> Body:
        message: Body = {"role": "assistant", "content": answer.text}
        if answer.thinking:
            message["thinking"] = answer.thinking
        if answer.calls:
            message["tool_calls"] = _called(answer)
        return {**_head(body), "message": message, **_end(answer)}

    def parts(self, body: Body, answer: Answer, number: int) -> Iterator[str]:
        def part(**more: object) -> str:
            message = {"role": "assistant", "content": "", **more}
            said = {**_head(body), "message": message, "done": False}
            return f"{json.dumps(said)}\n"

        for piece in pieces(answer.thinking):
            yield part(thinking=piece)
        for piece in pieces(answer.text):
            yield part(content=piece)
        if answer.calls:
            yield part(tool_calls=_called(answer))
        message = {"role": "assistant", "content": ""}
        yield f"{json.dumps({**_head(body), 'message': message, **_end(answer)})}\n"


def _called(answer: Answer) -> list[Body]:
    called = [{"name": name, "arguments": given} for name, given in answer.calls]
    return [{"function": function} for function in called]


def _head(body: Body) -> Body:
    return {"model": body["model"], "created_at": "2025-01-01T00:00:00Z"}


def _end(answer: Answer) -> Body:
    return {
        "done": True,
        "done_reason": "length" if answer.finish == "length" else "stop",
        "total_duration": 1,
        "load_duration": 1,
        "prompt_eval_count": 10,
        "prompt_eval_duration": 1,
        "eval_count": 5,
        "eval_duration": 1,
    }
