"""Run `uvicorn --app-dir examples progress:app` to see on a page who has answered."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.responses import FileResponse, StreamingResponse
from starlette.routing import Route

from langchain_mixture import Aggregate, ChatMixture, MixtureError, Propose

PAGE = Path(__file__).with_name("progress.html")
panel = Propose(["openai:gpt-4o-mini", "openai:gpt-4.1-mini"])
model = ChatMixture([panel, Aggregate("openai:gpt-4o-mini")])


async def events(question: str) -> AsyncIterator[str]:
    try:
        async for event in model.astream_events(question, version="v2"):
            data: Any = event["data"]
            if event["event"] == "on_chat_model_stream":
                yield json.dumps({"text": data["chunk"].text})
            elif event["name"] == "mixture" and data["event"] in ("asked", "replied"):
                state = data["reply"]["outcome"] if "reply" in data else "writing"
                told = {"agent": data["agent"], "state": state}
                yield json.dumps({"member": f"{data['call']} {data['attempt']}"} | told)
    except MixtureError as error:
        yield json.dumps({"text": str(error)})  # without keys
    yield json.dumps({"done": True})


async def ask(request: Any) -> StreamingResponse:
    lines = (f"data: {p}\n\n" async for p in events(request.query_params["question"]))
    return StreamingResponse(lines, media_type="text/event-stream")


app = Starlette(routes=[Route("/", lambda _: FileResponse(PAGE)), Route("/ask", ask)])
