"""Agents: the Runnables that steps ask.

`resolve` turns names into models, `wrappers` finds and replaces the model inside
retries, bindings and fallbacks, `function_model` is a chat model around a function.
"""
