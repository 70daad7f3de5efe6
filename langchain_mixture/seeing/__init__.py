"""Seeing what a mixture does: a recording of its runs, and the report of it."""

from langchain_mixture.seeing.recording import Recording

__all__ = ["Recording"]
