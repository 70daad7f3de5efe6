"""The graph of a mixture as a node of a graph of your own. Needs OPENAI_API_KEY."""

from typing import Any

from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph

from langchain_mixture import Aggregate, Propose, Result, create_mixture


class State(MessagesState):
    """The outer graph's: it declares `mixture` to keep status, history and usage."""

    mixture: Result


def instruct(state: State) -> MessagesState:  # noqa: ARG001
    return {"messages": [SystemMessage("Answer in one sentence.")]}


mixture = create_mixture(
    [
        Propose(["openai:gpt-4o-mini", "openai:gpt-4.1-mini"]),
        Aggregate("openai:gpt-4o-mini"),
    ]
)
builder = StateGraph(State, input_schema=MessagesState)
builder.add_node("instruct", instruct)
builder.add_node("mixture", mixture)
builder.add_edge(START, "instruct")
builder.add_edge("instruct", "mixture")
builder.add_edge("mixture", END)
graph = builder.compile(checkpointer=InMemorySaver())

config: RunnableConfig = {"configurable": {"thread_id": "1"}}
question = HumanMessage("What is quantum computing?")
# In a graph within another, "updates" have no replies of the branches; "tasks" do.
parts: Any = graph.stream(
    {"messages": [question]}, config, stream_mode="tasks", subgraphs=True
)
for _, task in parts:
    for reply in task.get("result", {}).get("replies", []):
        print(f"{task['name']}: {reply['text'] or reply['error']}")
state = graph.get_state(config).values
print(f"{state['mixture']['status']}: {state['messages'][-1].text}")
