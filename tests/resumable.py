"""A program that is killed: `python -m tests.resumable URL DATABASE sync|async`.

DATABASE is a file for SQLite, or the URL of a PostgreSQL database.

It answers one question on the thread "1", or goes on with it, and prints the answer.
"""

import asyncio
import os
import sys
from typing import Any

from langchain_openai import ChatOpenAI
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from langchain_mixture import Aggregate, Propose, Synthesize, create_mixture

STEPS = [
    Propose(["a", "b", "c"]),
    Synthesize(["d", "e"]),
    Aggregate("f"),
]
CONFIG: Any = {"configurable": {"thread_id": "1"}}
QUESTION: Any = {"messages": [("user", "What is an ion?")]}


def graph(url: str, saver: Any) -> Any:
    """Build the graph over the server at a URL."""
    client = ChatOpenAI(base_url=url, api_key="none", model="x", max_retries=0)  # type: ignore[arg-type]  # a str will do
    return create_mixture(STEPS, client=client, checkpointer=saver)


def answer(url: str, database: str) -> str:
    """Answer, or go on, in sync code."""
    kind: Any = PostgresSaver if database.startswith("postgresql:") else SqliteSaver
    with kind.from_conn_string(database) as saver:
        saver.setup()
        mixture = graph(url, saver)
        begun = mixture.get_state(CONFIG).created_at  # see docs/resume.md
        inputs = None if begun else QUESTION
        state = mixture.invoke(inputs, CONFIG, durability="sync")
        return str(state["messages"][-1].text)


async def aanswer(url: str, database: str) -> str:
    """Do the same on an event loop."""
    is_postgres = database.startswith("postgresql:")
    kind: Any = AsyncPostgresSaver if is_postgres else AsyncSqliteSaver
    async with kind.from_conn_string(database) as saver:
        await saver.setup()
        mixture = graph(url, saver)
        begun = (await mixture.aget_state(CONFIG)).created_at
        inputs = None if begun else QUESTION
        state = await mixture.ainvoke(inputs, CONFIG, durability="sync")
        return str(state["messages"][-1].text)


if __name__ == "__main__":
    if sys.argv[3] == "sync":
        print(answer(*sys.argv[1:3]))
    else:
        print(asyncio.run(aanswer(*sys.argv[1:3])))
    sys.stdout.flush()
    os._exit(0)  # an abandoned connection of the stub's is not waited for
