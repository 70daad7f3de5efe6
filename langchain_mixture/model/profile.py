"""A mixture's name in traces, and its model profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from langchain_core.language_models import ModelProfile
from langchain_core.runnables import Runnable

from langchain_mixture.agents.resolve import Client
from langchain_mixture.errors import InvalidMixtureError
from langchain_mixture.options import Options
from langchain_mixture.plan import bounds_of
from langchain_mixture.runnables import leaves
from langchain_mixture.running.layer import Layer, layers_of
from langchain_mixture.steps.checks import names_told
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
        f"{type(step).__name__}({', '.join(names_told(agents))})"
        for step, (agents, _) in zip(steps, bounds_of(steps, Options()), strict=True)
    ]


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
    profile: dict[str, Any] = {}
    for keys, models, join in (
        (_READ, every, all),
        (_WRITTEN, answering, all),
        (("max_input_tokens",), every, min),
        (("max_output_tokens",), answering, min),
    ):
        for key in keys:
            told = [p[key] for p in models if key in p]
            if told and (join is min or len(told) == len(models)):
                profile[key] = join(told)
            elif told:  # who does not tell is taken not to be able to
                profile[key] = False
    return cast("ModelProfile", profile) if profile else None


_READ: Final = (
    *("text_inputs", "image_inputs", "image_url_inputs", "pdf_inputs"),
    *("audio_inputs", "video_inputs", "image_tool_message", "pdf_tool_message"),
    *("attachment", "mid_conversation_system_messages"),
)
"""What all models must be able to read."""


_WRITTEN: Final = (
    *("text_outputs", "image_outputs", "audio_outputs", "video_outputs"),
    *("reasoning_output", "tool_calling", "tool_choice", "tool_call_streaming"),
    *("structured_output", "mid_conversation_tools", "temperature"),
)
"""What the answering models must be able to do."""
