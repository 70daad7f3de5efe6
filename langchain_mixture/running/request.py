"""The tools and settings of one call of a ChatMixture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig, RunnableSequence

from langchain_mixture.agents.wrappers import beneath

FREE_CHOICES = (None, "auto")
"""The values of `tool_choice` under which a model need not call a tool."""


@dataclass(frozen=True)
class Request:
    """The tools and settings of one call of a ChatMixture.

    The answering step's calls get all of it. Under a free tool choice the other steps
    that write get the tools too, and what they would call is written out for the next.
    """

    tools: Sequence[Any] = ()
    tool_choice: Any = None
    binding: Mapping[str, Any] = field(default_factory=dict)
    """What else `bind_tools` was given: strict, response_format, …"""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the answering call: temperature, max_tokens, stop, …"""

    @property
    def binds(self) -> bool:
        """Whether there is anything for `bind_tools`."""
        return bool(self.tools or self.binding)

    @property
    def is_free(self) -> bool:
        """Whether the answer may do without a tool, so that advisers may have them."""
        return bool(self.tools) and self.tool_choice in FREE_CHOICES

    def bound(
        self,
        runnable: Runnable[Any, Any],
        *,
        answering: bool,
        config: RunnableConfig | None = None,
    ) -> Runnable[Any, Any]:
        """Bind the tools to an agent, beneath its wrappers.

        Raises:
            NotImplementedError: The agent cannot bind tools.
        """
        options: dict[str, Any] = dict(self.binding) if answering else {}
        if answering and self.tool_choice is not None:
            options["tool_choice"] = self.tool_choice
        return beneath(runnable, lambda leaf: _bind(leaf, self.tools, options), config)


def _bind(
    leaf: Runnable[Any, Any], tools: Sequence[Any], options: Mapping[str, Any]
) -> Runnable[Any, Any]:
    if isinstance(leaf, RunnableSequence) or not hasattr(leaf, "bind_tools"):
        raise NotImplementedError
    bound: Runnable[Any, Any] = leaf.bind_tools(list(tools), **options)
    return bound
