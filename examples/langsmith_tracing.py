"""A traced mixture. Needs OPENAI_API_KEY, and for the trace LANGSMITH_API_KEY.

The trace shows the mixture, its graph, a run for each branch, and the models in them,
with their tokens; LANGSMITH_PROJECT names where it goes.
"""

import os

from langchain_core.tracers.context import tracing_v2_enabled
from langsmith import Client

from langchain_mixture import Aggregate, ChatMixture, Propose

model = ChatMixture(
    [
        Propose(["openai:gpt-4o-mini", "openai:gpt-4.1-mini"]),
        Aggregate("openai:gpt-4o-mini"),
    ],
    name="advisers",
    tags=["mixture-example"],
)
# Setting LANGSMITH_TRACING=true does the same for a whole program.
with tracing_v2_enabled(os.environ.get("LANGSMITH_PROJECT"), client=Client()) as tracer:
    print(model.invoke("What is quantum computing?").text)
tracer.wait_for_futures()
