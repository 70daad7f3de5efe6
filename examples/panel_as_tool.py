"""A panel that an agent may ask where it wants to. Needs OPENAI_API_KEY."""

from langchain.agents import create_agent

from langchain_mixture import Aggregate, ChatMixture, Propose

experts = ChatMixture(
    [
        Propose(["openai:gpt-4o", "openai:gpt-4.1"]),
        Aggregate("openai:gpt-4o"),
    ]
)


def panel(question: str) -> str:
    """Ask a panel of experts. They know nothing but what the question says."""
    return experts.invoke(question).text


# experts.as_tool(name="panel", description="Ask a panel of experts.") does as well.
agent = create_agent("openai:gpt-4o-mini", [panel])
state = agent.invoke({"messages": [{"role": "user", "content": "Is P equal to NP?"}]})
print(state["messages"][-1].text)
