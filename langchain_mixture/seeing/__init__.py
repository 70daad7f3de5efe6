"""Seeing what a mixture does: live in the terminal, or afterwards as a report."""

from langchain_mixture.seeing.recording import Recording
from langchain_mixture.seeing.watch import watch

__all__ = ["Recording", "watch"]
