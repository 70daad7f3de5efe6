"""The graph of a mixture as a node of a graph of your own. Needs OPENAI_API_KEY."""

from typing import Any

from langchain_core.messages import SystemMessage
from langgraph.graph import START, MessagesState, StateGraph

from langchain_mixture import Aggregate, Propose, Result, create_mixture


class State(MessagesState):
    """The outer graph's: it declares `mixture` to keep status, history and usage."""

    mixture: Result


def instruct(state: State) -> MessagesState:  # noqa: ARG001
    return {"messages": [SystemMessage("Answer in one sentence.")]}


panel = Propose(["openai:gpt-4o-mini", "openai:gpt-4.1-mini"])
builder = StateGraph(State, input_schema=MessagesState)
builder.add_node("instruct", instruct)
builder.add_node("mixture", create_mixture([panel, Aggregate("openai:gpt-4o-mini")]))
builder.add_edge(START, "instruct")
builder.add_edge("instruct", "mixture")
question: Any = {"messages": [("user", "What is quantum computing?")]}

parts: Any = builder.compile().stream(question, stream_mode="tasks", subgraphs=True)

# In a graph within another, "updates" have no replies of the branches; "tasks" do.
for _, task in parts:
    result = task.get("result", {})
    for reply in result.get("replies", []):
        print(f"{task['name']}: {reply['text'] or reply['error']}")
print(f"{result['mixture']['status']}: {result['messages'][-1].text}")
