"""The tools and settings of one call of a ChatMixture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig, RunnableSequence

from langchain_mixture.agents.wrappers import beneath

FREE_CHOICES = (None, "auto")
"""The values of `tool_choice` that leave the choice to the model."""


@dataclass(frozen=True)
class Request:
    """The tools and settings of one call of a ChatMixture.

    The answering step's calls get all of them. If the tool choice is free, the other
    steps that write get the tools too; their tool calls become text for the next step.
    """

    tools: Sequence[Any] = ()
    tool_choice: Any = None
    binding: Mapping[str, Any] = field(default_factory=dict)
    """The other arguments of `bind_tools`: strict, response_format, …"""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the answering call: temperature, max_tokens, stop, …"""

    @property
    def binds(self) -> bool:
        """Whether there is anything to bind."""
        return bool(self.tools or self.binding)

    @property
    def is_free(self) -> bool:
        """Whether there are tools and the model may choose to call none.

        A forced choice would make every proposer call a tool instead of answering.
        """
        return bool(self.tools) and self.tool_choice in FREE_CHOICES

    def bound(
        self,
        runnable: Runnable[Any, Any],
        *,
        answering: bool,
        config: RunnableConfig | None = None,
    ) -> Runnable[Any, Any]:
        """Return an agent with the tools bound beneath its wrappers.

        Args:
            runnable: The agent.
            answering: Whether it answers, and so also gets the tool choice and the
                other arguments.
            config: The config that sets configurable fields.

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
    # A chain takes no tools: its other parts would not expect a tool call.
    if isinstance(leaf, RunnableSequence) or not hasattr(leaf, "bind_tools"):
        raise NotImplementedError
    bound: Runnable[Any, Any] = leaf.bind_tools(list(tools), **options)
    return bound
