"""The paper's three layers on OpenRouter. Needs OPENROUTER_API_KEY.

One client for all: names are passed to it as `model`.
"""

import os

from langchain_openai import ChatOpenAI

from langchain_mixture import create_mixture, together_moa

PROPOSERS = [
    "qwen/qwen-2.5-72b-instruct",
    "meta-llama/llama-3.3-70b-instruct",
    "mistralai/mixtral-8x22b-instruct",
    "databricks/dbrx-instruct",
]
client = ChatOpenAI(
    base_url=os.environ.get("OPENROUTER_BASE_URL", "https://openrouter.ai/api/v1"),
    api_key=os.environ["OPENROUTER_API_KEY"],
)
steps = together_moa(PROPOSERS, "qwen/qwen-2.5-72b-instruct", max_tokens=512)
graph = create_mixture(steps, client=client)
state = graph.invoke({"messages": [("user", "What is quantum computing?")]})
print(state["messages"][-1].text)
