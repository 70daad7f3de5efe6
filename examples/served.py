"""The graph that langgraph.json names, for LangGraph's Agent Server.

In this folder: langgraph dev. Needs OPENAI_API_KEY, and langgraph-cli[inmem].
"""

from langchain_mixture import Aggregate, Propose, create_mixture

graph = create_mixture(
    [
        Propose(["openai:gpt-4o-mini", "openai:gpt-4.1-mini"]),
        Aggregate("openai:gpt-4o"),
    ]
)
