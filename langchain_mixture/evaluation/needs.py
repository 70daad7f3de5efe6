"""The packages of the extra `evaluation`, imported when they are used."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def needed(module: str) -> Any:
    """Import a module of the extra `evaluation`.

    Raises:
        ImportError: It is not installed; the message says how to install it.

    Example:
        >>> needed("math").sqrt(4)
        2.0
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(
            f"langchain_mixture.evaluation needs the package {package}: pip install "
            f"{package}, or the extra `evaluation`"
        ) from error
