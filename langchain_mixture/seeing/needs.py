"""The packages of the extras, imported when they are used."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def needed(module: str, what: str, extra: str) -> Any:
    """Import a module of an extra.

    Args:
        module: The module.
        what: What needs it, for the error.
        extra: The extra that brings it.

    Raises:
        ImportError: It is not installed; the message says how to install it.

    Example:
        >>> needed("math", "the report", "report").sqrt(4)
        2.0
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(
            f"{what} needs the package {package}: pip install {package}, or the extra "
            f"`{extra}`"
        ) from error
