"""LangChain's side of ChatMixture: a chat model that asks a graph.

`graph_model` invokes and streams, `nesting` puts the graph's run under the model's, and
`profile` tells what a mixture can do.
"""
