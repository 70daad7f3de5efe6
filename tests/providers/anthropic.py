"""Anthropic's Messages API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.providers.stub import (
    Answer,
    Body,
    Failure,
    Finish,
    Turn,
    arguments_of,
    blocks,
    pieces,
    sse,
    unknown,
)

_STOPS: dict[Finish, str] = {
    "stop": "end_turn",
    "calls": "tool_use",
    "length": "max_tokens",
    "filter": "refusal",
    "refusal": "refusal",
    "pause": "pause_turn",
}
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "api_error",
}
_MOST_MARKS = 4
_BLOCKS = frozenset(
    {
        *("text", "image", "document", "search_result", "tool_use", "tool_result"),
        *("thinking", "redacted_thinking", "server_tool_use", "container_upload"),
        *("web_search_tool_result", "web_fetch_tool_result", "mcp_tool_use"),
        *("code_execution_tool_result", "mcp_tool_result", "tool_search_tool_result"),
    }
)


@dataclass(frozen=True)
class Messages:
    """Anthropic's Messages API."""

    kind = "text/event-stream"
    path = "/messages"

    def streams(self, path: str, body: Body) -> bool:
        return bool(body.get("stream"))

    def tools(self, body: Body) -> list[str]:
        tools = body.get("tools") or []
        return [tool["name"] for tool in tools if "input_schema" in tool]

    def turns(self, body: Body) -> list[Turn]:
        turns = [turn for message in body["messages"] for turn in _turns(message)]
        if body.get("system"):
            found = blocks(body["system"])
            text = "".join(block["text"] for block in found)
            marked = any("cache_control" in block for block in found)
            turns.insert(0, Turn("system", text, marked=marked))
        return turns

    def complaint(self, body: Body) -> str | None:
        messages = body["messages"]
        if not messages:
            return "messages: at least one message is required"
        if messages[0]["role"] != "user":
            return 'messages: first message must use the "user" role'
        for message in messages:
            if complaint := unknown(message["content"], _BLOCKS):
                return complaint
        return _misplaced(messages) or _unfit(body)

    def failure(self, failure: Failure) -> Body:
        error = {"type": _KINDS[failure.status], "message": failure.message}
        return {"type": "error", "error": error, "request_id": "req_1"}

    def whole(self, body: Body, answer: Answer, number: int) -> Body:
        return {
            **_head(body, number),
            "content": _content(answer, number),
            "stop_reason": _STOPS[answer.finish],
            "usage": _usage(5),
        }

    def parts(self, body: Body, answer: Answer, number: int) -> Iterator[str]:
        def part(kind: str, **more: Any) -> str:
            return sse({"type": kind, **more}, kind)

        begun = {**_head(body, number), "content": [], "stop_reason": None}
        yield part("message_start", message={**begun, "usage": _usage(1)})
        for index, block in enumerate(_content(answer, number)):
            start, deltas = _streamed(block)
            yield part("content_block_start", index=index, content_block=start)
            for delta in deltas:
                yield part("content_block_delta", index=index, delta=delta)
            yield part("content_block_stop", index=index)
        delta = {"stop_reason": _STOPS[answer.finish], "stop_sequence": None}
        yield part("message_delta", delta=delta, usage=_usage(5))
        yield part("message_stop")


def _content(answer: Answer, number: int) -> list[Body]:
    content: list[Body] = []
    if answer.thinking:
        thought = {"thinking": answer.thinking, "signature": "c2ln"}
        content.append({"type": "thinking", **thought})
    content += answer.blocks
    if answer.text:
        text: Body = {"type": "text", "text": answer.text}
        if answer.cites:
            text["citations"] = [_citation(answer)]
        content.append(text)
    for index, (name, arguments) in enumerate(answer.calls):
        called = {"id": f"toolu_{number}{index}", "name": name, "input": arguments}
        content.append({"type": "tool_use", **called})
    return content


def _citation(answer: Answer) -> Body:
    return {
        "type": "char_location",
        "cited_text": answer.text,
        "document_index": 0,
        "document_title": answer.cites,
        "start_char_index": 0,
        "end_char_index": len(answer.text),
        "file_id": None,
    }


def _streamed(block: Body) -> tuple[Body, list[Body]]:
    """Return how a block begins in a stream, and what is added to it."""
    if block["type"] == "text":
        deltas = [
            {"type": "text_delta", "text": text} for text in pieces(block["text"])
        ]
        cited = block.get("citations", ())
        deltas += [{"type": "citations_delta", "citation": one} for one in cited]
        return {"type": "text", "text": ""}, deltas
    if block["type"] == "thinking":
        thoughts = pieces(block["thinking"])
        deltas = [{"type": "thinking_delta", "thinking": one} for one in thoughts]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
        return {"type": "thinking", "thinking": "", "signature": ""}, deltas
    if "input" in block:
        sent = arguments_of((block["name"], block["input"]))
        bits = [{"type": "input_json_delta", "partial_json": s} for s in pieces(sent)]
        return {**block, "input": {}}, bits
    return block, []


def _turns(message: Body) -> Iterator[Turn]:
    found = blocks(message["content"])
    results = [block for block in found if block["type"] == "tool_result"]
    if results:
        yield Turn(
            "tool",
            "".join(_text(block.get("content", "")) for block in results),
            results=tuple(block["tool_use_id"] for block in results),
            marked=any("cache_control" in block for block in results),
        )
    rest = [block for block in found if block["type"] != "tool_result"]
    if rest or not results:
        yield Turn(
            message["role"],
            _text(rest),
            calls=tuple(b["id"] for b in rest if b["type"] == "tool_use"),
            pictures=sum(block["type"] == "image" for block in rest),
            marked=any("cache_control" in block for block in rest),
        )


def _text(content: str | list[Body]) -> str:
    return "".join(block.get("text", "") for block in blocks(content))


def _misplaced(messages: list[Body]) -> str | None:
    """Return what the API says where tool calls and results do not match."""
    for index, message in enumerate(messages):
        found = blocks(message["content"])
        before = blocks(messages[index - 1]["content"]) if index else []
        after = blocks(messages[index + 1]["content"]) if messages[index + 1 :] else []
        kinds = [block["type"] for block in found]
        called = {block["id"] for block in before if block["type"] == "tool_use"}
        given = {b["tool_use_id"] for b in found if b["type"] == "tool_result"}
        if not given <= called:
            return (
                f"messages.{index}.content.0: unexpected `tool_use_id` found in "
                f"`tool_result` blocks: {', '.join(sorted(given - called))}. Each "
                "`tool_result` block must have a corresponding `tool_use` block in "
                "the previous message."
            )
        calls = {block["id"] for block in found if block["type"] == "tool_use"}
        answers = {b["tool_use_id"] for b in after if b["type"] == "tool_result"}
        if not calls <= answers:
            return (
                f"messages.{index}: `tool_use` ids were found without `tool_result` "
                f"blocks immediately after: {', '.join(sorted(calls - answers))}. Each "
                "`tool_use` block must have a corresponding `tool_result` block in "
                "the next message."
            )
        if "tool_result" in kinds and kinds != sorted(
            kinds, key=lambda kind: kind != "tool_result"
        ):
            return (
                f"messages.{index}: `tool_result` blocks must come before all other "
                "content."
            )
    return None


def _unfit(body: Body) -> str | None:
    """Return what else the API refuses."""
    messages = body["messages"]
    for index, message in enumerate(messages):
        empty = not message["content"] and index < len(messages) - 1
        if empty or any(
            block["type"] == "text" and not block["text"].strip()
            for block in blocks(message["content"])
        ):
            return "messages: text content blocks must be non-empty"
    marks = json.dumps(body).count('"cache_control"')
    if marks > _MOST_MARKS:
        return (
            f"A maximum of {_MOST_MARKS} blocks with cache_control may be provided. "
            f"Found {marks}."
        )
    thinks = (body.get("thinking") or {}).get("type") in ("enabled", "adaptive")
    if thinks and (body.get("tool_choice") or {}).get("type") in ("any", "tool"):
        return "Thinking may not be enabled when tool_choice forces tool use."
    if messages[-1]["role"] == "assistant" and thinks:
        return (
            "This model does not support assistant message prefill. The conversation "
            "must end with a user message."
        )
    return None


def _head(body: Body, number: int) -> Body:
    return {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "stop_sequence": None,
    }


def _usage(output: int) -> Body:
    return {
        "input_tokens": 6,
        "cache_read_input_tokens": 4,
        "cache_creation_input_tokens": 0,
        "output_tokens": output,
    }
