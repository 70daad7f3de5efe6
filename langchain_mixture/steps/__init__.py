"""The steps: what to ask whom, and what to keep of the replies.

Pure: a step decides; it does no I/O and imports nothing from LangGraph.
`base` is the contract, `asking` the steps that ask models, `transforms` the others.
"""
