"""A deep agent that a panel advises, and a mixture among its subagents.

Needs deepagents and OPENAI_API_KEY.
"""

from deepagents import create_deep_agent
from langchain.chat_models import init_chat_model

from langchain_mixture import Aggregate, ChatMixture, Propose, without_tools
from langchain_mixture.middleware import MixtureMiddleware

panel = Propose(["openai:gpt-4o", "openai:gpt-4.1"], view=without_tools)
agent = create_deep_agent(
    init_chat_model("openai:gpt-4o-mini"),
    middleware=[MixtureMiddleware([panel])],  # asked once a turn
    subagents=[
        {
            "name": "expert",
            "description": "For questions that one model is not trusted with.",
            "system_prompt": "Answer the question, and say how sure you are.",
            # Each task is a conversation of its own: this panel is asked once in it.
            "model": ChatMixture([panel, Aggregate("openai:gpt-4o")]),
        }
    ],
)
state = agent.invoke({"messages": [{"role": "user", "content": "Is P equal to NP?"}]})
for message in state["messages"]:
    message.pretty_print()
