"""Advice for an agent of Anthropic's, whose prompt cache holds.

Needs langchain-anthropic, ANTHROPIC_API_KEY and OPENAI_API_KEY.
"""

from langchain.agents import create_agent
from langchain_anthropic.middleware import AnthropicPromptCachingMiddleware

from langchain_mixture import Propose
from langchain_mixture.middleware import MixtureMiddleware


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


agent = create_agent(
    "anthropic:claude-sonnet-5",
    [multiply],
    middleware=[
        MixtureMiddleware([Propose(["openai:gpt-4o", "openai:gpt-4.1"])]),
        AnthropicPromptCachingMiddleware(),
    ],
)
state = agent.invoke({"messages": [{"role": "user", "content": "What is 17 * 23?"}]})
for message in state["messages"]:
    if message.type == "ai":
        print(message.text, message.usage_metadata)
