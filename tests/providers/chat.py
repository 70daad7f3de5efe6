"""OpenAI's Chat Completions, and its dialects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tests.providers.stub import (
    Answer,
    Body,
    Failure,
    Finish,
    Role,
    Turn,
    arguments_of,
    blocks,
    pieces,
    sse,
    unknown,
)

_FINISH: dict[Finish, str] = {
    "stop": "stop",
    "calls": "tool_calls",
    "length": "length",
    "filter": "content_filter",
    "refusal": "stop",
    "pause": "stop",
}
_CODES = {
    400: "invalid_request_error",
    401: "invalid_api_key",
    404: "model_not_found",
    429: "rate_limit_exceeded",
    500: "server_error",
}


@dataclass(frozen=True)
class Chat:
    """OpenAI's own dialect."""

    kind = "text/event-stream"
    path = "/chat/completions"
    blocks = frozenset({"text", "image_url", "input_audio", "file", "refusal"})
    """The blocks that a message may have."""
    thinking: str | None = None
    """The key of a message which holds what the model thought."""
    thinks_aside: bool = False
    """Whether thinking is counted beside the answer's tokens, as xAI does."""
    refuses: bool = False
    """Whether a message has a field for refusals."""
    counts_always: bool = False
    """Whether a stream ends with the usage, asked for or not."""
    alternates: bool = False
    """Whether user and assistant must take turns, as strict chat templates demand."""

    def streams(self, path: str, body: Body) -> bool:
        return bool(body.get("stream"))

    def tools(self, body: Body) -> list[str]:
        return [tool["function"]["name"] for tool in body.get("tools") or []]

    def turns(self, body: Body) -> list[Turn]:
        return [_turn(message) for message in body["messages"]]

    def complaint(self, body: Body) -> str | None:
        for message in body["messages"]:
            if complaint := unknown(message.get("content"), self.blocks):
                return complaint
        turns = self.turns(body)
        return unanswered(turns) or (out_of_turn(turns) if self.alternates else None)

    def failure(self, failure: Failure) -> Body:
        code = "context_length_exceeded" if failure.overflow else _CODES[failure.status]
        error = {"message": failure.message, "type": code, "param": None, "code": code}
        return {"error": error}

    def whole(self, body: Body, answer: Answer, number: int) -> Body:
        message: Body = {"role": "assistant", "content": answer.text or None}
        if self.refuses:
            message["refusal"] = None
        if answer.finish == "refusal":
            message |= {"content": None, "refusal": answer.text}
        if answer.thinking and self.thinking is not None:
            message[self.thinking] = answer.thinking
        if answer.calls:
            message["tool_calls"] = self.called(answer, number)
        for block in answer.blocks:
            message |= block
        choice = {"index": 0, "message": message, "finish_reason": self.ends(answer)}
        head = self._head(body, number, "chat.completion")
        return {**head, "choices": [choice], "usage": self.usage()}

    def parts(self, body: Body, answer: Answer, number: int) -> Iterator[str]:
        def part(delta: Body) -> str:
            choice = {"index": 0, "delta": delta, "finish_reason": None}
            return sse({**head, "choices": [choice]})

        head = self._head(body, number, "chat.completion.chunk")
        yield part({"role": "assistant", "content": ""})
        for piece in pieces(answer.thinking):
            if thought := self.thought(piece):
                yield part(thought)
        key = "refusal" if answer.finish == "refusal" else "content"
        for piece in pieces(answer.text):
            yield part({key: piece})
        for index, call in enumerate(self.called(answer, number)):
            yield from self.call_parts(part, index, call)
        for block in answer.blocks:
            yield part(block)
        choice = {"index": 0, "delta": {}, "finish_reason": self.ends(answer)}
        yield from self.end_parts(body, {**head, "choices": [choice]})
        yield sse("[DONE]")

    def thought(self, piece: str) -> Body:
        """Return a part of what the model thought, as the dialect has it."""
        return {} if self.thinking is None else {self.thinking: piece}

    def call_parts(self, part: Any, index: int, call: Body) -> Iterator[str]:
        """Return a tool call in parts: its name, then its arguments bit by bit."""
        arguments = call["function"]["arguments"]
        begun = {**call["function"], "arguments": ""}
        yield part({"tool_calls": [{"index": index, **call, "function": begun}]})
        for piece in pieces(arguments):
            more = {"index": index, "function": {"arguments": piece}}
            yield part({"tool_calls": [more]})

    def end_parts(self, body: Body, last: Body) -> Iterator[str]:
        """Return the end of a stream: the finish, then the usage if it is wanted."""
        if self.counts_always:
            yield sse({**last, "usage": self.usage()})
            return
        yield sse(last)
        if (body.get("stream_options") or {}).get("include_usage"):
            yield sse({**last, "choices": [], "usage": self.usage()})

    def called(self, answer: Answer, number: int) -> list[Body]:
        """Return the tool calls; ids have nine characters, as Mistral demands."""
        return [
            {
                "id": f"call{number:03}{index:02}",
                "type": "function",
                "function": {"name": call[0], "arguments": arguments_of(call)},
            }
            for index, call in enumerate(answer.calls)
        ]

    def ends(self, answer: Answer) -> str:
        return _FINISH[answer.finish]

    def usage(self) -> Body:
        total = 17 if self.thinks_aside else 15
        return {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": total,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 2},
        }

    def _head(self, body: Body, number: int, kind: str) -> Body:
        return {
            "id": f"chatcmpl-{number}",
            "object": kind,
            "created": 1,
            "model": body["model"],
            "system_fingerprint": "fp_1",
        }


@dataclass(frozen=True)
class Groq(Chat):
    """Groq's dialect: the usage of a stream stands beside the last choice."""

    def end_parts(self, body: Body, last: Body) -> Iterator[str]:
        yield sse({**last, "x_groq": {"id": "req_1", "usage": self.usage()}})


@dataclass(frozen=True)
class Mistral(Chat):
    """Mistral's dialect, with its order of roles."""

    blocks = Chat.blocks | {"thinking", "reference", "document_url"}

    def complaint(self, body: Body) -> str | None:
        turns = self.turns(body)
        for before, turn in pairwise(turns):
            if before.role == "tool" and turn.role in ("user", "system"):
                return f"Unexpected role '{turn.role}' after role 'tool'"
            if before.role == "assistant" and turn.role == "system":
                return "Unexpected role 'system' after role 'assistant'"
        last = body["messages"][-1]
        if last["role"] == "assistant" and not last.get("prefix"):
            return (
                "Expected last role User or Tool (or Assistant with prefix True) for "
                "serving but got assistant"
            )
        return super().complaint(body)

    def failure(self, failure: Failure) -> Body:
        kind = "context_length_exceeded" if failure.overflow else "invalid_request"
        error = {"message": failure.message, "type": kind, "code": "3230"}
        return {"object": "error", "param": None, **error}

    def whole(self, body: Body, answer: Answer, number: int) -> Body:
        whole = super().whole(body, answer, number)
        message = whole["choices"][0]["message"]
        message["content"] = answer.text  # never null
        if answer.thinking:
            message["content"] = _mistral_content(answer)
        return whole

    def thought(self, piece: str) -> Body:
        return {"content": [_mistral_thought(piece)]}

    def call_parts(self, part: Any, index: int, call: Body) -> Iterator[str]:
        yield part({"tool_calls": [{"index": index, **call}]})


def _mistral_content(answer: Answer) -> list[Body]:
    return [_mistral_thought(answer.thinking), {"type": "text", "text": answer.text}]


def _mistral_thought(text: str) -> Body:
    return {"type": "thinking", "thinking": [{"type": "text", "text": text}]}


def _turn(message: Body) -> Turn:
    role: Role = {"developer": "system"}.get(message["role"], message["role"])  # type: ignore[assignment] # what is sent is checked by the tests
    content = blocks(message.get("content"))
    answered = (message["tool_call_id"],) if role == "tool" else ()
    return Turn(
        role,
        "".join(block.get("text", "") for block in content),
        calls=tuple(call["id"] for call in message.get("tool_calls") or ()),
        results=answered,
        pictures=sum(block.get("type") == "image_url" for block in content),
        marked=any("cache_control" in block for block in content),
    )


def unanswered(turns: Sequence[Turn]) -> str | None:
    """Return what OpenAI says where tool calls and results do not match."""
    if not turns:
        return "[] is too short - 'messages'"
    open_calls: set[str] = set()
    for turn in turns:
        if turn.role == "tool":
            if not open_calls.issuperset(turn.results):
                return (
                    "messages with role 'tool' must be a response to a preceeding "
                    "message with 'tool_calls'."
                )
            open_calls -= set(turn.results)
        elif open_calls:
            return (
                "An assistant message with 'tool_calls' must be followed by tool "
                f"messages responding to each 'tool_call_id': {sorted(open_calls)}"
            )
        open_calls |= set(turn.calls)
    return f"tool calls without an answer: {sorted(open_calls)}" if open_calls else None


def out_of_turn(turns: Sequence[Turn]) -> str | None:
    """Return what a strict chat template says where two turns in a row are alike."""
    talk = [turn for turn in turns if turn.role != "system"]
    if [turn.role for turn in turns[1:] if turn.role == "system"]:
        return "System message must be at the beginning."
    sides = [turn.role for turn in talk if turn.role != "tool" and not turn.calls]
    if any(role == after for role, after in pairwise(sides)):
        return "Conversation roles must alternate user/assistant/user/assistant/..."
    return None
