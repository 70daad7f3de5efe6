"""A mixture as the model of an agent with a tool. Needs OPENAI_API_KEY."""

from langchain.agents import create_agent

from langchain_mixture import Aggregate, ChatMixture, Propose


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


model = ChatMixture(
    [
        Propose(["openai:gpt-4o-mini", "openai:gpt-4.1-mini"]),
        Aggregate("openai:gpt-4o-mini"),
    ]
)
agent = create_agent(model, [multiply])
state = agent.invoke({"messages": [{"role": "user", "content": "What is 17 * 23?"}]})
for message in state["messages"]:
    message.pretty_print()
