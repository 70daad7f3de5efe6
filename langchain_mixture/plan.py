"""Is a list of steps a pipeline, which agents does it ask, and how are they named?"""

from __future__ import annotations

import re
from collections.abc import Sequence

from langchain_mixture.errors import InvalidMixtureError, shown
from langchain_mixture.options import Options
from langchain_mixture.steps.base import Agent, Step


def bounds_of(
    steps: Sequence[Step], options: Options
) -> list[tuple[Sequence[Agent], int]]:
    """Return what each step may ask and leave, by what can arrive at it.

    Returns:
        For each step its agents, one a call, and the most responses that it may leave.

    Raises:
        InvalidMixtureError: It is no pipeline, or a step can get no response.
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
        # Where a step may stop without an answer, what it was given goes on.
        stops = options.stops and len(agents) > 0
        arriving = max(arriving, leaving) if stops else leaving
    return bounds


def count_calls(steps: Sequence[Step]) -> int:
    """Say how many calls a pipeline makes at most where none of them fails.

    Fallbacks and retries are not in it, and an agent that is a mixture or another graph
    is one call.

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
    """Refuse what is no pipeline.

    Raises:
        InvalidMixtureError: It is no list of steps, or empty.
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
    """Name each step in the graph, such as `1_propose`."""
    kinds = (type(step).__name__ for step in steps)
    words = (re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind).lower() for kind in kinds)
    return [f"{number}_{name}" for number, name in enumerate(words, 1)]
