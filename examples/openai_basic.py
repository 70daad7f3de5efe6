"""The simplest mixture: two OpenAI models propose, one fuses. Needs OPENAI_API_KEY."""

from langchain_mixture import Aggregate, Propose, create_mixture

graph = create_mixture(
    [
        Propose(["openai:gpt-4o-mini", "openai:gpt-4.1-mini"]),
        Aggregate("openai:gpt-4o-mini"),
    ]
)
state = graph.invoke({"messages": [("user", "What is quantum computing?")]})
print(state["messages"][-1].text)
