"""Checks of a pipeline, before it is built: its steps, their bounds and their names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from langchain_mixture.errors import InvalidMixtureError, shown
from langchain_mixture.options import Options
from langchain_mixture.steps.base import Agent, Step


def bounds_of(
    steps: Sequence[Step], options: Options
) -> list[tuple[Sequence[Agent], int]]:
    """Return the bounds of each step, given the most responses that can reach it.

    Returns:
        For each step its agents, one per call, and the most responses it may keep.

    Raises:
        InvalidMixtureError: This is no pipeline, or a step can get no response.
    """
    check_steps(steps)
    bounds: list[tuple[Sequence[Agent], int]] = []
    arriving = 0
    for step, name in zip(steps, names_of(steps), strict=True):
        agents, leaving = step.bounds(arriving)
        if not leaving:
            raise InvalidMixtureError(
                f"{name} needs responses and can get none: begin with a step that "
                "makes some, such as Propose."
            )
        bounds.append((agents, leaving))
        # A step that may end without an answer passes on what it was given, which
        # can be more than it may keep.
        stops = options.stops and len(agents) > 0
        arriving = max(arriving, leaving) if stops else leaving
    return bounds


def count_calls(steps: Sequence[Step]) -> int:
    """Return the most calls that a pipeline makes if none of them fails.

    Fallbacks and retries are not counted. An agent that is a mixture or another graph
    counts as one call.

    Example:
        >>> from langchain_mixture import together_moa
        >>> count_calls(together_moa())
        13
    """
    check_steps(steps)
    calls = arriving = 0
    for step in steps:
        agents, arriving = step.bounds(arriving)
        calls += len(agents)
    return calls


def check_steps(steps: object) -> None:
    """Raise an error if this is not a list of steps.

    Raises:
        InvalidMixtureError: This is no list of steps, or an empty one.
    """
    if not isinstance(steps, list | tuple) or not steps:
        raise InvalidMixtureError(
            f"steps is {shown(steps)}; allowed: a list of one or more steps."
        )
    for index, step in enumerate(steps):
        if isinstance(step, type) and issubclass(step, Step):
            raise InvalidMixtureError(
                f"steps[{index}] is the class {step.__name__}; write {step.__name__}(…)"
                " for an instance of it."
            )
        if not isinstance(step, Step):
            raise InvalidMixtureError(
                f"steps[{index}] is {shown(step)}; allowed: an instance of Step."
            )


def names_of(steps: Sequence[Step]) -> list[str]:
    """Return the name of each step in the graph, such as `1_propose`."""
    kinds = (type(step).__name__ for step in steps)
    words = (re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind).lower() for kind in kinds)
    return [f"{number}_{name}" for number, name in enumerate(words, 1)]
