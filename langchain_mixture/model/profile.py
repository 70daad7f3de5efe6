"""A mixture's name in traces, and its model profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from langchain_core.language_models import ModelProfile
from langchain_core.runnables import Runnable

from langchain_mixture.agents.resolve import Client
from langchain_mixture.errors import InvalidMixtureError
from langchain_mixture.options import Options
from langchain_mixture.plan import bounds_of
from langchain_mixture.runnables import leaves, name_of
from langchain_mixture.running.layer import Layer, layers_of
from langchain_mixture.steps.base import Agent
from langchain_mixture.steps.program import Steps, flat


def outline_of(steps: Steps) -> list[str]:
    """Return each step's class and the names of its agents; settings may be secret.

    Example:
        >>> from langchain_mixture import Aggregate, Propose
        >>> outline_of([Propose(["gpt-4o", "gpt-4.1"]), Aggregate("gpt-4o")])
        ['Propose(gpt-4o, gpt-4.1)', 'Aggregate(gpt-4o)']
    """
    steps = flat(steps)
    return [
        f"{type(step).__name__}({', '.join(_name(agent) for agent in agents)})"
        for step, (agents, _) in zip(steps, bounds_of(steps, Options()), strict=True)
    ]


def _name(agent: Agent) -> str:
    return agent if isinstance(agent, str) else name_of(agent)


def profile_of(steps: Steps, client: Client) -> ModelProfile | None:
    """Return the joint profile of a pipeline's models; None if none is known.

    Tools and structured output are the answering step's. The input window is the
    smallest one. Images are accepted only if all models accept them. Names are looked
    up in a mapping or a chat model.
    """
    # Core asks for the profile when the model is constructed: a client function or
    # init_chat_model must not make models of all names for that.
    cheap = client if isinstance(client, Mapping | Runnable) else {}
    try:
        layers = layers_of(steps, cheap, Options())
    except InvalidMixtureError:
        return None

    def profiles(some: Sequence[Layer]) -> list[Mapping[str, Any]]:
        asked = [a for layer in some for a in (*layer.agents, *layer.fallbacks)]
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
