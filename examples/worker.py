"""One of several workers that share a PostgreSQL: answer on a thread, or go on with it.

    python worker.py postgresql://me@127.0.0.1/mixtures order-17 "What is an ion?"

A lock of the database keeps two workers off one thread. It is released when a worker
dies, and the next one asks only what has no saved answer. Needs OPENAI_API_KEY, and
langgraph-checkpoint-postgres.
"""

import sys
from typing import Any

import psycopg
from langgraph.checkpoint.postgres import PostgresSaver

from langchain_mixture import Aggregate, Propose, create_mixture

STEPS = [
    Propose(["openai:gpt-4o-mini", "openai:gpt-4.1-mini"]),
    Aggregate("openai:gpt-4o"),
]
database, thread, question = sys.argv[1:]
config: Any = {"configurable": {"thread_id": thread}}
with (
    psycopg.connect(database, autocommit=True) as lock,
    PostgresSaver.from_conn_string(database) as saver,
):
    lock.execute("select pg_advisory_lock(hashtext(%s))", [thread])
    saver.setup()  # once is enough: where you deploy, before the workers start
    graph = create_mixture(STEPS, checkpointer=saver)
    begun = graph.get_state(config).created_at
    inputs: Any = None if begun else {"messages": [("user", question)]}
    state = graph.invoke(inputs, config, durability="sync")
print(state["messages"][-1].text)
