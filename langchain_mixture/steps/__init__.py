"""The steps. A step decides which calls to make and which responses to keep.

It does no I/O and imports nothing from LangGraph. `base` is the contract, `asking` has
the steps that make calls, `counting` those that compare answers, `transforms` the rest.
"""
