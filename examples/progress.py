"""A page that shows who has answered: uvicorn --app-dir examples progress:app."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, StreamingResponse
from starlette.routing import Route

from langchain_mixture import Aggregate, ChatMixture, Propose

PROPOSERS = ["openai:gpt-4o-mini", "openai:gpt-4.1-mini"]
model = ChatMixture([Propose(PROPOSERS), Aggregate("openai:gpt-4o-mini")])
page = FileResponse(Path(__file__).with_suffix(".html"))


async def events(question: str) -> AsyncIterator[dict[str, Any]]:
    async for event in model.astream_events(question, version="v2"):
        data: Any = event["data"]
        if event["event"] == "on_chat_model_stream":
            yield {"text": data["chunk"].text}
        elif event["name"] == "mixture" and data["event"] in ("asked", "replied"):
            state = data["reply"]["outcome"] if "reply" in data else "writing"
            yield {"member": f"{data['agent']} ({data['call']})", "state": state}
    yield {}


async def ask(request: Request) -> StreamingResponse:
    parts = events(request.query_params["question"])
    lines = (f"data: {json.dumps(part)}\n\n" async for part in parts)
    return StreamingResponse(lines, media_type="text/event-stream")


app = Starlette(routes=[Route("/", page), Route("/ask", ask)])
