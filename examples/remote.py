"""Three ways to use a mixture on an Agent Server: its SDK, RemoteGraph, as an agent.

Start the server first: see served.py. AGENT_SERVER is its address. The last way also
needs OPENAI_API_KEY, for the models that are asked from here.
"""

import os
from typing import Any

from langgraph.pregel.remote import RemoteGraph
from langgraph_sdk import get_sync_client

from langchain_mixture import Aggregate, ChatMixture, Propose

url = os.environ.get("AGENT_SERVER", "http://127.0.0.1:2024")
question: Any = {"messages": [{"role": "user", "content": "What is an ion?"}]}
with get_sync_client(url=url) as client:
    # The SDK: threads, runs and streams.
    thread = client.threads.create()
    state: Any = client.runs.wait(thread["thread_id"], "mixture", input=question)
    print(state["mixture"]["status"], state["messages"][-1]["content"])

    # RemoteGraph: the calls of a graph in this process.
    far = RemoteGraph("mixture", sync_client=client)
    for task in far.stream(question, stream_mode="tasks"):
        if "result" in task:
            print("done:", task["name"])

    # An agent of a mixture, beside a model that is asked from here.
    panel = Propose([far, "openai:gpt-4o-mini"])
    model = ChatMixture([panel, Aggregate("openai:gpt-4o")])
    print(model.invoke("What is an ion?").text)
