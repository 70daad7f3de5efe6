"""Google's Gemini API."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.providers.stub import Answer, Body, Failure, Finish, Turn, pieces, sse

_FINISH: dict[Finish, str] = {
    "stop": "STOP",
    "calls": "STOP",
    "length": "MAX_TOKENS",
    "filter": "SAFETY",
    "refusal": "PROHIBITED_CONTENT",
    "pause": "STOP",
}
_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
}


@dataclass(frozen=True)
class Gemini:
    """Google's Gemini API."""

    kind = "text/event-stream"
    path = "enerateContent"  # also of streamGenerateContent

    def streams(self, path: str, body: Body) -> bool:
        return ":streamGenerateContent" in path

    def tools(self, body: Body) -> list[str]:
        tools = body.get("tools") or []
        named = [tool.get("functionDeclarations", []) for tool in tools]
        return [function["name"] for functions in named for function in functions]

    def turns(self, body: Body) -> list[Turn]:
        turns = [_turn(content) for content in body["contents"]]
        if body.get("systemInstruction"):
            turns.insert(0, Turn("system", _text(body["systemInstruction"]["parts"])))
        return turns

    def complaint(self, body: Body) -> str | None:
        if not body["contents"]:
            return "* GenerateContentRequest.contents: contents is not specified\n"
        turns = [turn for turn in self.turns(body) if turn.role != "system"]
        for before, turn in zip([None, *turns], turns, strict=False):
            role = before.role if before is not None else None
            if turn.calls and role not in ("user", "tool"):
                return (
                    "Please ensure that function call turn comes immediately after a "
                    "user turn or after a function response turn."
                )
            called = before.calls if before is not None else ()
            if len(turn.results) != len(called):
                return (
                    "Please ensure that the number of function response parts is "
                    "equal to the number of function call parts of the function call "
                    "turn."
                )
        if turns[-1].role == "assistant":
            return "Please ensure that single turn requests end with a user role"
        for content in body["contents"]:
            if not content.get("parts") or {"text": ""} in content["parts"]:
                return (
                    "Unable to submit request because it must have a text parameter. "
                    "Add a text parameter and try again."
                )
        return None

    def failure(self, failure: Failure) -> Body:
        status = {"code": failure.status, "status": _STATUS[failure.status]}
        return {"error": {**status, "message": failure.message}}

    def whole(self, body: Body, answer: Answer, number: int) -> Body:
        return _said(_parts(answer), number, answer)

    def parts(self, body: Body, answer: Answer, number: int) -> Iterator[str]:
        for part in _parts(answer):
            if "text" not in part:
                yield sse(_said([part], number))
            for piece in pieces(part.get("text", "")):
                yield sse(_said([{**part, "text": piece}], number))
        yield sse(_said([], number, answer))


def _parts(answer: Answer) -> list[Body]:
    parts: list[Body] = []
    if answer.thinking:
        parts.append({"text": answer.thinking, "thought": True})
    parts += answer.blocks
    if answer.text:
        parts.append({"text": answer.text})
    for index, (name, arguments) in enumerate(answer.calls):
        if not isinstance(arguments, str):  # a malformed call is not sent at all
            called = {"id": f"call_{index}", "name": name, "args": arguments}
            parts.append({"functionCall": called, "thoughtSignature": "c2ln"})
    return parts


def _said(parts: list[Body], number: int, ended: Answer | None = None) -> Body:
    candidate: Body = {"content": {"parts": parts, "role": "model"}, "index": 0}
    said: Body = {
        "candidates": [candidate],
        "modelVersion": "gemini-2.5-flash",
        "responseId": f"response_{number}",
    }
    if ended is not None:
        finish = _FINISH[ended.finish]
        if any(isinstance(arguments, str) for _, arguments in ended.calls):
            finish = "MALFORMED_FUNCTION_CALL"
        candidate["finishReason"] = finish
        if finish in ("SAFETY", "PROHIBITED_CONTENT"):
            candidate.pop("content")
        said["usageMetadata"] = {
            "promptTokenCount": 10,
            "cachedContentTokenCount": 4,
            "candidatesTokenCount": 3,
            "thoughtsTokenCount": 2,
            "totalTokenCount": 15,
        }
    return said


def _turn(content: Body) -> Turn:
    parts = content.get("parts") or []
    results = [part["functionResponse"] for part in parts if "functionResponse" in part]
    calls = [part["functionCall"]["name"] for part in parts if "functionCall" in part]
    if results:
        names = tuple(result["name"] for result in results)
        return Turn("tool", str(results), results=names)
    return Turn(
        "assistant" if content["role"] == "model" else "user",
        _text(parts),
        calls=tuple(calls),
        pictures=sum("inlineData" in part for part in parts),
    )


def _text(parts: list[Body]) -> str:
    return "".join(part.get("text", "") for part in parts)
