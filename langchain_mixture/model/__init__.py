"""The LangChain side of ChatMixture: a chat model that runs a graph.

`graph_model` invokes and streams the graph, `nesting` puts the graph's run under the
model's in a trace, and `profile` has a mixture's name and model profile.
"""
