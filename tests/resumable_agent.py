"""A program that is killed in a tool loop: `python -m tests.resumable_agent …`.

Its arguments are the URL of a server, a file for SQLite, how the mixture stands in the
agent (ChatMixture or middleware), and sync or async.

The agent answers one question on the thread "1", or goes on with it, and prints the
answer.
"""

import asyncio
import os
import sys
from typing import Any

from langchain.agents import create_agent
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from langchain_mixture import Aggregate, ChatMixture, Propose
from langchain_mixture.middleware import MixtureMiddleware

CONFIG: Any = {"configurable": {"thread_id": "1"}}
QUESTION: Any = {"messages": [("user", "What is an ion?")]}


def look(n: int) -> str:
    """Look something up."""
    return f"result {n}"


def agent(url: str, face: str, saver: Any) -> Any:
    """Build the agent over the server at a URL."""
    key: Any = "none"
    client = ChatOpenAI(base_url=url, api_key=key, model="writer", max_retries=0)
    panel = Propose([client.model_copy(update={"model_name": name}) for name in "ab"])
    if face == "ChatMixture":
        model = ChatMixture([panel, Aggregate(client)])
        return create_agent(model, [look], checkpointer=saver)
    middleware = MixtureMiddleware([panel])
    return create_agent(client, [look], middleware=[middleware], checkpointer=saver)


def answer(url: str, database: str, face: str) -> str:
    """Answer, or go on, in sync code."""
    with SqliteSaver.from_conn_string(database) as saver:
        saver.setup()
        running = agent(url, face, saver)
        begun = running.get_state(CONFIG).created_at
        inputs = None if begun else QUESTION
        state = running.invoke(inputs, CONFIG, durability="sync")
        return str(state["messages"][-1].text)


async def aanswer(url: str, database: str, face: str) -> str:
    """Do the same on an event loop."""
    async with AsyncSqliteSaver.from_conn_string(database) as saver:
        await saver.setup()
        running = agent(url, face, saver)
        begun = (await running.aget_state(CONFIG)).created_at
        inputs = None if begun else QUESTION
        state = await running.ainvoke(inputs, CONFIG, durability="sync")
        return str(state["messages"][-1].text)


if __name__ == "__main__":
    *where, mode = sys.argv[1:]
    print(answer(*where) if mode == "sync" else asyncio.run(aanswer(*where)))
    sys.stdout.flush()
    os._exit(0)  # an abandoned connection of the stub's is not waited for
