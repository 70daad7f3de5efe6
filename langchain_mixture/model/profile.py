"""A mixture's name in traces, and its model profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from langchain_core.language_models import ModelProfile
from langchain_core.runnables import Runnable

from langchain_mixture.agents.resolve import Client
from langchain_mixture.agents.wrappers import leaves, name_of
from langchain_mixture.errors import InvalidMixtureError
from langchain_mixture.options import Options
from langchain_mixture.plan import bounds_of
from langchain_mixture.running.layer import Layer, layers_of
from langchain_mixture.steps.base import Agent, Step


def outline_of(steps: Sequence[Step]) -> list[str]:
    """Name each step and the agents that it may ask; nothing else, which may be secret.

    Example:
        >>> from langchain_mixture import Aggregate, Propose
        >>> outline_of([Propose(["gpt-4o", "gpt-4.1"]), Aggregate("gpt-4o")])
        ['Propose(gpt-4o, gpt-4.1)', 'Aggregate(gpt-4o)']
    """
    return [
        f"{type(step).__name__}({', '.join(_name(agent) for agent in agents)})"
        for step, (agents, _) in zip(steps, bounds_of(steps, Options()), strict=True)
    ]


def _name(agent: Agent) -> str:
    return agent if isinstance(agent, str) else name_of(agent)


def profile_of(steps: Sequence[Step], client: Client) -> ModelProfile | None:
    """Join the profiles of a pipeline's models; None where a model tells nothing.

    Tools and structured output are the answering step's, the input window is the
    smallest, and images are taken only if all take them. Names are looked up in a
    mapping or a chat model, and not made into models for this.
    """
    cheap = client if isinstance(client, Mapping | Runnable) else {}
    try:
        layers = layers_of(steps, cheap, Options())
    except InvalidMixtureError:
        return None

    def profiles(some: Sequence[Layer]) -> list[Mapping[str, Any]]:
        asked = [m for layer in some for m in (*layer.agents, *layer.fallbacks)]
        models = [leaf for agent in asked for leaf in leaves(agent.runnable)]
        return [getattr(model, "profile", None) or {} for model in models]

    answering = profiles([layer for layer in layers if layer.answering])
    every = profiles(layers)
    profile: dict[str, Any] = {
        key: all(p.get(key) for p in answering)
        for key in ("tool_calling", "structured_output", "tool_choice")
        if any(key in p for p in answering)
    }
    if any("image_inputs" in p for p in every):
        profile["image_inputs"] = all(p.get("image_inputs") for p in every)
    if windows := [p["max_input_tokens"] for p in every if "max_input_tokens" in p]:
        profile["max_input_tokens"] = min(windows)
    return cast("ModelProfile", profile) if profile else None
