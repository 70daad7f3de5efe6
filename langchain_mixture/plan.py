"""Checks of a pipeline, before it is built: its bounds, its names, who answers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from langchain_mixture.errors import InvalidMixtureError
from langchain_mixture.options import Options
from langchain_mixture.steps.base import Agent, Step
from langchain_mixture.steps.program import Steps, flat


def bounds_of(
    steps: Sequence[Step], options: Options
) -> list[tuple[Sequence[Agent], int]]:
    """Return the bounds of each step, given the most responses that can reach it.

    Returns:
        For each step its agents, one per call, and the most responses it may keep.

    Raises:
        InvalidMixtureError: A step can get no response.
    """
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
        arriving = _arriving(step, arriving, leaving, stops)
    return bounds


def _arriving(step: Step, arriving: int, leaving: int, stops: bool = False) -> int:
    """Return the most responses that reach the step behind; a skipped step has none."""
    passes_on = stops or step.unless is not None
    return max(arriving, leaving) if passes_on else leaving


def count_calls(steps: Steps) -> int:
    """Return the most calls that a pipeline makes if none of them fails.

    No step counts as skipped. Fallbacks and retries are not counted. An agent that is a
    mixture or another graph counts as one call.

    Example:
        >>> from langchain_mixture import together_moa
        >>> count_calls(together_moa())
        13
    """
    calls = arriving = 0
    for step in flat(steps):
        agents, leaving = step.bounds(arriving)
        arriving = _arriving(step, arriving, leaving)
        calls += len(agents)
    return calls


def answering_of(steps: Sequence[Step]) -> set[int]:
    """Return the positions of the steps whose text may be the answer.

    The last step that writes; where it may be skipped or adds, the one before it that
    writes may answer as well, and so on.

    Example:
        >>> from langchain_mixture import Aggregate, Propose
        >>> from langchain_mixture.conditions import agreed
        >>> sorted(answering_of([Propose(["a"]), Aggregate("b", unless=agreed())]))
        [0, 1]
    """
    found: set[int] = set()
    for index in reversed(range(len(steps))):
        step = steps[index]
        if step.answers:
            found.add(index)
            if step.unless is None and not step.add:
                break
    return found


def names_of(steps: Sequence[Step]) -> list[str]:
    """Return the name of each step in the graph, such as `1_propose`."""
    kinds = (type(step).__name__ for step in steps)
    words = (re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind).lower() for kind in kinds)
    return [f"{number}_{name}" for number, name in enumerate(words, 1)]
