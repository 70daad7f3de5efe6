"""The packages of the extra `evaluation`, imported when they are used."""

from __future__ import annotations

from typing import Any

from langchain_mixture.seeing import needs


def needed(module: str) -> Any:
    """Import a module of the extra `evaluation`.

    Raises:
        ImportError: It is not installed; the message says how to install it.

    Example:
        >>> needed("math").sqrt(4)
        2.0
    """
    return needs.needed(module, "langchain_mixture.evaluation", "evaluation")
