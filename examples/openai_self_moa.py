"""Self-MoA: six samples of one model, fused by the same. Needs OPENAI_API_KEY."""

from langchain_mixture import create_mixture, self_moa

graph = create_mixture(self_moa("openai:gpt-4o-mini", samples=6, temp=0.7))
question = "What are three good uses of a brick?"
state = graph.invoke({"messages": [("user", question)]})
print(state["messages"][-1].text)
