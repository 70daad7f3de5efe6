"""Agents: from what a step names to a Runnable that can be asked.

`resolve` turns names into models, `wrappers` sees through what is wrapped around a
model, and `function_model` makes a chat model of a plain function.
"""
