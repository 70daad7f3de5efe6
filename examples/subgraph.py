"""The graph of a mixture as a node of a graph of your own. Needs OPENAI_API_KEY."""

from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph

from langchain_mixture import Aggregate, Propose, create_mixture


def instruct(state: MessagesState) -> MessagesState:  # noqa: ARG001
    return {"messages": [SystemMessage("Answer in one sentence.")]}


mixture = create_mixture(
    [
        Propose(["openai:gpt-4o-mini", "openai:gpt-4.1-mini"]),
        Aggregate("openai:gpt-4o-mini"),
    ]
)
builder = StateGraph(MessagesState)
builder.add_node("instruct", instruct)
builder.add_node("mixture", mixture)
builder.add_edge(START, "instruct")
builder.add_edge("instruct", "mixture")
builder.add_edge("mixture", END)
graph = builder.compile(checkpointer=InMemorySaver())

config: RunnableConfig = {"configurable": {"thread_id": "1"}}
question = HumanMessage("What is quantum computing?")
for namespace, update in graph.stream(
    {"messages": [question]}, config, stream_mode="updates", subgraphs=True
):
    print(len(namespace) * "  ", *update)
print(graph.get_state(config).values["messages"][-1].text)
