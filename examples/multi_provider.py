"""Two providers in one pipeline. Needs OPENAI_API_KEY and ANTHROPIC_API_KEY.

Any LangChain chat model is an agent: here Claude through Anthropic's own
OpenAI-compatible API; with langchain-anthropic, ChatAnthropic(...) does as well.
"""

import os

from langchain_openai import ChatOpenAI

from langchain_mixture import Aggregate, Propose, create_mixture

claude = ChatOpenAI(
    model="claude-sonnet-4-20250514",
    base_url=os.environ.get("ANTHROPIC_BASE_URL", "https://api.anthropic.com/v1/"),
    api_key=os.environ["ANTHROPIC_API_KEY"],
)
graph = create_mixture(
    [
        Propose(["openai:gpt-4o", claude, "openai:gpt-4o-mini"]),
        Aggregate(claude, fallbacks=["openai:gpt-4o"]),
    ]
)
state = graph.invoke({"messages": [("user", "What is quantum computing?")]})
print(state["messages"][-1].text)
for row in state["mixture"]["history"]:
    print(row["name"], [call["model"] for call in row["llm_calls"]])
