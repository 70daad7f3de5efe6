"""Shows the section "Example:" of our docstrings as griffe's "Examples:"."""

from typing import Any

import griffe


class Example(griffe.Extension):
    """Renames the section."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Do so in one docstring."""
        if obj.docstring:
            text = obj.docstring.value
            obj.docstring.value = text.replace("\nExample:\n", "\nExamples:\n")
