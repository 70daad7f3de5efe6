"""A web page that shows who has answered while it waits.

uvicorn --app-dir examples progress:app     # then open http://127.0.0.1:8000
"""

import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, StreamingResponse
from starlette.routing import Route

from langchain_mixture import Aggregate, ChatMixture, MixtureError, Propose

PROPOSERS = ["openai:gpt-4o-mini", "openai:gpt-4.1-mini"]
model = ChatMixture([Propose(PROPOSERS), Aggregate("openai:gpt-4o-mini")])

PAGE = """<!doctype html><meta charset="utf-8"><title>Progress</title>
<form><input name="question" size="60" autofocus> <button>Ask</button></form>
<ul id="members"></ul><pre id="answer" style="white-space: pre-wrap"></pre>
<script>
const question = new URLSearchParams(location.search).get("question");
const source = question && new EventSource("/ask?" + new URLSearchParams({question}));
if (source) source.onmessage = ({data}) => {
  const {member, agent, state, text, done} = JSON.parse(data);
  if (done) return source.close();
  if (text) return answer.append(text);
  const line = document.getElementById(member) || document.createElement("li");
  line.id = member;
  line.textContent = `${agent}: ${state}`;
  members.append(line);
};
</script>"""


async def events(question: str) -> AsyncIterator[dict[str, Any]]:
    try:
        async for event in model.astream_events(question, version="v2"):
            data: Any = event["data"]
            if event["event"] == "on_chat_model_stream":
                yield {"text": data["chunk"].text}
            elif event["name"] == "mixture" and data["event"] == "asked":
                yield {**who(data), "agent": data["agent"], "state": "writing"}
            elif event["name"] == "mixture" and data["event"] == "replied":
                reply = data["reply"]
                yield {**who(data), "agent": reply["agent"], "state": reply["outcome"]}
    except MixtureError as error:
        yield {"text": str(error)}  # without keys
    yield {"done": True}


def who(data: dict[str, Any]) -> dict[str, str]:
    return {"member": f"{data['call']} {data['attempt']}"}


async def ask(request: Request) -> StreamingResponse:
    parts = events(request.query_params["question"])
    lines = (f"data: {json.dumps(part)}\n\n" async for part in parts)
    return StreamingResponse(lines, media_type="text/event-stream")


async def page(_: Request) -> HTMLResponse:
    return HTMLResponse(PAGE)


app = Starlette(routes=[Route("/", page), Route("/ask", ask)])
