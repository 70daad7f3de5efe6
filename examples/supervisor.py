"""A supervisor with a mixture as one of its workers.

Needs langgraph-supervisor and OPENAI_API_KEY.
"""

from langchain.agents import create_agent
from langchain.chat_models import init_chat_model
from langgraph_supervisor import create_supervisor

from langchain_mixture import Aggregate, ChatMixture, Propose


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


experts = ChatMixture(
    [
        Propose(["openai:gpt-4o", "openai:gpt-4.1"]),
        Aggregate("openai:gpt-4o"),
    ]
)
team = create_supervisor(
    [
        create_agent(experts, name="experts"),
        create_agent("openai:gpt-4o-mini", [multiply], name="clerk"),
    ],
    model=init_chat_model("openai:gpt-4o-mini"),
    prompt="Give hard questions to the experts, and sums to the clerk.",
).compile()
state = team.invoke({"messages": [{"role": "user", "content": "Is P equal to NP?"}]})
for message in state["messages"]:
    message.pretty_print()
