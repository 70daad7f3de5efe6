"""Several free models of Groq, each proposal as it arrives. Needs GROQ_API_KEY."""

import os

from langchain_openai import ChatOpenAI

from langchain_mixture import Aggregate, Propose, create_mixture

GROQ_FREE = [
    "llama-3.3-70b-versatile",
    "llama-3.1-8b-instant",
    "qwen/qwen3-32b",
    "meta-llama/llama-4-scout-17b-16e-instruct",
]
client = ChatOpenAI(
    base_url=os.environ.get("GROQ_BASE_URL", "https://api.groq.com/openai/v1"),
    api_key=os.environ["GROQ_API_KEY"],
)
graph = create_mixture(
    [
        Propose(GROQ_FREE, temp=0.7, max_tokens=512),
        Aggregate("llama-3.3-70b-versatile"),
    ],
    client=client,
)
for update in graph.stream(
    {"messages": [("user", "What is quantum computing?")]}, stream_mode="updates"
):
    for node, change in update.items():
        for reply in change.get("replies", []):
            print(f"{node}: {reply['text'] or reply['error']}")
        for message in change.get("messages", []):
            print(f"{node}: {message.text}")
