"""OpenAI's Responses API."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.providers.chat import Chat
from tests.providers.stub import (
    Answer,
    Body,
    Failure,
    Role,
    Turn,
    arguments_of,
    blocks,
    pieces,
    sse,
    unknown,
)

_BLOCKS = frozenset(
    {
        *("input_text", "input_image", "input_file", "input_audio"),
        *("output_text", "refusal", "summary_text", "reasoning_text"),
    }
)
_REASONS = {"length": "max_output_tokens", "filter": "content_filter"}


@dataclass(frozen=True)
class Responses:
    """OpenAI's Responses API."""

    kind = "text/event-stream"
    path = "/responses"

    def streams(self, path: str, body: Body) -> bool:
        return bool(body.get("stream"))

    def tools(self, body: Body) -> list[str]:
        tools = body.get("tools") or []
        return [tool["name"] for tool in tools if tool["type"] == "function"]

    def turns(self, body: Body) -> list[Turn]:
        given = body["input"]
        if isinstance(given, str):
            return [Turn("user", given)]
        return [turn for item in given for turn in _turns(item)]

    def complaint(self, body: Body) -> str | None:
        for item in body["input"] if isinstance(body["input"], list) else ():
            if complaint := unknown(item.get("content"), _BLOCKS):
                return complaint
        called: list[str] = []
        answered: list[str] = []
        before = None
        for turn in self.turns(body):
            called += turn.calls
            answered += turn.results
            for result in turn.results:
                if result not in called:
                    return (
                        "No tool call found for function call output with call_id "
                        f"{result}."
                    )
        for call in called:
            if call not in answered:
                return f"No tool output found for function call {call}."
        for item in body["input"] if isinstance(body["input"], list) else ():
            if before is not None and _is_user(item):
                return (
                    f"Item '{before}' of type 'reasoning' was provided without its "
                    "required following item."
                )
            before = item["id"] if item.get("type") == "reasoning" else None
        return None

    def failure(self, failure: Failure) -> Body:
        return Chat().failure(failure)

    def whole(self, body: Body, answer: Answer, number: int) -> Body:
        reason = _REASONS.get(answer.finish)
        return {
            **_head(body, number),
            "status": "incomplete" if reason else "completed",
            "incomplete_details": {"reason": reason} if reason else None,
            "output": _items(answer, number),
            "usage": _usage(),
        }

    def parts(self, body: Body, answer: Answer, number: int) -> Iterator[str]:
        for order, event in enumerate(self._events(body, answer, number)):
            yield sse({**event, "sequence_number": order}, event["type"])

    def _events(self, body: Body, answer: Answer, number: int) -> Iterator[Body]:
        empty = {**_head(body, number), "status": "in_progress", "output": []}
        for kind in ("response.created", "response.in_progress"):
            yield {"type": kind, "response": empty}
        for index, item in enumerate(_items(answer, number)):
            yield from _item_events(index, item)
        whole = self.whole(body, answer, number)
        yield {"type": f"response.{whole['status']}", "response": whole}


def _items(answer: Answer, number: int) -> list[Body]:
    items: list[Body] = []
    if answer.thinking:
        summary = [{"type": "summary_text", "text": answer.thinking}]
        items.append({"type": "reasoning", "id": f"rs_{number}", "summary": summary})
    items += answer.blocks
    if answer.text:
        content: Body = {"type": "output_text", "text": answer.text, "annotations": []}
        if answer.cites:
            content["annotations"] = [_citation(answer)]
        if answer.finish == "refusal":
            content = {"type": "refusal", "refusal": answer.text}
        items.append(
            {
                "type": "message",
                "id": f"msg_{number}",
                "status": "completed",
                "role": "assistant",
                "content": [content],
            }
        )
    for index, call in enumerate(answer.calls):
        items.append(
            {
                "type": "function_call",
                "id": f"fc_{number}{index}",
                "call_id": f"call_{number}{index}",
                "name": call[0],
                "arguments": arguments_of(call),
                "status": "completed",
            }
        )
    return items


def _citation(answer: Answer) -> Body:
    return {
        "type": "url_citation",
        "url": "https://example.com/",
        "title": answer.cites,
        "start_index": 0,
        "end_index": len(answer.text),
    }


def _item_events(index: int, item: Body) -> Iterator[Body]:
    where: Body = {"output_index": index}
    begun: dict[str, Any] = {"message": {"content": []}, "reasoning": {"summary": []}}
    begun["function_call"] = {"arguments": ""}
    start = {**item, **begun.get(item["type"], {}), "status": "in_progress"}
    if item["type"] == "reasoning":
        start.pop("status")
    yield {"type": "response.output_item.added", **where, "item": start}
    inside = {**where, "item_id": item["id"]}
    if item["type"] == "reasoning":
        yield from _summary_events({**inside, "summary_index": 0}, item["summary"][0])
    if item["type"] == "message":
        yield from _content_events({**inside, "content_index": 0}, item["content"][0])
    if item["type"] == "function_call":
        kind = "response.function_call_arguments"
        for piece in pieces(item["arguments"]):
            yield {"type": f"{kind}.delta", **inside, "delta": piece}
        yield {"type": f"{kind}.done", **inside, "arguments": item["arguments"]}
    yield {"type": "response.output_item.done", **where, "item": item}


def _summary_events(where: Body, part: Body) -> Iterator[Body]:
    begun = {**part, "text": ""}
    yield {"type": "response.reasoning_summary_part.added", **where, "part": begun}
    kind = "response.reasoning_summary_text"
    for piece in pieces(part["text"]):
        yield {"type": f"{kind}.delta", **where, "delta": piece}
    yield {"type": f"{kind}.done", **where, "text": part["text"]}
    yield {"type": "response.reasoning_summary_part.done", **where, "part": part}


def _content_events(where: Body, part: Body) -> Iterator[Body]:
    key = "refusal" if part["type"] == "refusal" else "text"
    kind = "response.refusal" if key == "refusal" else "response.output_text"
    begun = {**part, key: ""}
    if key == "text":
        begun["annotations"] = []
    yield {"type": "response.content_part.added", **where, "part": begun}
    for piece in pieces(part[key]):
        more: Body = {} if key == "refusal" else {"logprobs": []}
        yield {"type": f"{kind}.delta", **where, "delta": piece, **more}
    for order, citation in enumerate(part.get("annotations", ())):
        cited = {"annotation_index": order, "annotation": citation}
        yield {"type": "response.output_text.annotation.added", **where, **cited}
    done: Body = {key: part[key]}
    if key == "text":
        done["logprobs"] = []
    yield {"type": f"{kind}.done", **where, **done}
    yield {"type": "response.content_part.done", **where, "part": part}


def _turns(item: Body) -> Iterator[Turn]:
    kind = item.get("type", "message")
    if kind == "function_call":
        yield Turn("assistant", calls=(item["call_id"],))
    elif kind == "function_call_output":
        yield Turn("tool", str(item["output"]), results=(item["call_id"],))
    elif kind == "message":
        content = blocks(item["content"], "input_text")
        text = "".join(block.get("text", "") for block in content)
        pictures = sum(block.get("type") == "input_image" for block in content)
        role: Role = "system" if item["role"] == "developer" else item["role"]
        yield Turn(role, text, pictures=pictures)
    elif kind not in ("reasoning", "item_reference"):
        yield Turn("assistant")  # the provider's own tools


def _is_user(item: Body) -> bool:
    return item.get("type", "message") == "message" and item.get("role") == "user"


def _head(body: Body, number: int) -> Body:
    return {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": 1,
        "model": body["model"],
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "text": {"format": {"type": "text"}},
    }


def _usage() -> Body:
    return {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 15,
    }
