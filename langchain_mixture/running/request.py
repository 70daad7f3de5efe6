"""The tools and settings of one call of a ChatMixture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSequence
from langchain_core.utils.function_calling import convert_to_openai_tool

from langchain_mixture.advice import Advised
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
    """As they were given: each model's `bind_tools` writes them in its own way."""
    tool_choice: Any = None
    binding: Mapping[str, Any] = field(default_factory=dict)
    """The other arguments of `bind_tools`: strict, response_format, …"""
    advised: Advised | None = None
    """Where advice stands in the conversation; None outside of a ChatMixture."""
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
        return bool(self.functions) and self.tool_choice in FREE_CHOICES

    @cached_property
    def functions(self) -> list[Any]:
        """The tools that are functions, which every provider knows.

        The others, such as a provider's own web search, are the answering step's alone.
        """
        return [tool for tool in self.tools if _is_function(tool)]

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
        if not answering:
            return beneath(
                runnable, lambda leaf: _bind(leaf, self.functions, {}), config
            )
        options = dict(self.binding)
        if self.tool_choice is not None:
            options["tool_choice"] = self.tool_choice
        return beneath(runnable, lambda leaf: _bind(leaf, self.tools, options), config)


def _is_function(tool: Any) -> bool:
    if isinstance(tool, dict):
        # Core takes each dict with a name for a function, such as Anthropic's own
        # {"type": "web_search_20250305", "name": "web_search"} (langchain-core 1.8.3).
        kind = tool.get("type", "function")
        if kind not in ("function", "object") and "input_schema" not in tool:
            return False
        try:
            return convert_to_openai_tool(tool).get("type") == "function"
        except ValueError:  # a provider's own, such as {"google_search": {}}
            return False
    return "provider_tool_definition" not in (getattr(tool, "extras", None) or {})


def binds_tools(leaf: Runnable[Any, Any]) -> bool:
    """Whether a model, or a chain, has a way to bind tools.

    Example:
        >>> from langchain_core.runnables import RunnableLambda
        >>> binds_tools(RunnableLambda(str))
        False
    """
    # A chain takes no tools: its other parts would not expect a tool call.
    if isinstance(leaf, RunnableSequence) or not hasattr(leaf, "bind_tools"):
        return False
    return getattr(type(leaf), "bind_tools", None) is not BaseChatModel.bind_tools


def _bind(
    leaf: Runnable[Any, Any], tools: Sequence[Any], options: Mapping[str, Any]
) -> Runnable[Any, Any]:
    if not binds_tools(leaf):
        raise NotImplementedError
    bound: Runnable[Any, Any] = cast("Any", leaf).bind_tools(list(tools), **options)
    return bound
