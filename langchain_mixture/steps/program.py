"""A pipeline as a program: lists inside lists, steps that are skipped, and loops."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from langchain_mixture.errors import InvalidMixtureError, shown
from langchain_mixture.records import Response
from langchain_mixture.secrets import one_line
from langchain_mixture.steps.base import Condition, Step
from langchain_mixture.steps.checks import check_value

Steps: TypeAlias = Sequence[Any]
"""Steps, and lists of steps, which stand for their own."""


def until(condition: Condition, steps: Steps, most: int) -> list[Step]:
    """Return the steps `most` times over, all skipped once a condition is true.

    It is asked before each of these steps, not only before each round. A step that has
    a condition of its own is skipped where either is true.

    Args:
        condition: A function of the responses, sync or async, such as `agreed()`.
        steps: The steps of one round.
        most: The most rounds; 1 or more.

    Raises:
        InvalidMixtureError: An argument cannot be used.

    Example:
        >>> from langchain_mixture import Propose, until
        >>> from langchain_mixture.conditions import agreed
        >>> pipeline = [
        ...     Propose(["a", "b"]),
        ...     until(agreed(2 / 3), [Propose(["a"], add=True)], most=4),
        ... ]
        >>> len(pipeline[1])
        4
    """
    check_value(condition, "condition", "until")
    check_value(most, "most", "until")
    return [_skipped_by(condition, step) for _ in range(most) for step in flat(steps)]


def _skipped_by(condition: Condition, step: Step) -> Step:
    own = conditions_of(step)
    changed = copy.copy(step)
    unless = AnyOf((*own, condition)) if own else condition
    object.__setattr__(changed, "unless", unless)  # steps are frozen
    return changed


@dataclass(frozen=True, repr=False)
class AnyOf:
    """The conditions of a step that has several: it is skipped where one is true."""

    conditions: tuple[Condition, ...]

    def __repr__(self) -> str:
        return " or ".join(map(name_of_condition, self.conditions))

    async def __call__(self, responses: Sequence[Response]) -> bool:
        for condition in self.conditions:
            answer = condition(responses)
            if answer if isinstance(answer, bool) else await cast("Any", answer):
                return True
        return False


def conditions_of(step: Step) -> tuple[Condition, ...]:
    """Return the conditions of which any skips a step.

    Example:
        >>> from langchain_mixture import Take
        >>> conditions_of(Take(1))
        ()
    """
    unless = step.unless
    if unless is None:
        return ()
    return unless.conditions if isinstance(unless, AnyOf) else (unless,)


def name_of_condition(condition: Condition) -> str:
    """Return how a condition is written in a history: its `repr`, or its name.

    Example:
        >>> name_of_condition(all)
        'all'
    """
    return getattr(condition, "__name__", None) or one_line(repr(condition))


def flat(steps: object, place: str = "steps") -> list[Step]:
    """Return the steps of a pipeline, with those of the lists in it in their places.

    Raises:
        InvalidMixtureError: This is no list of steps, or an empty one.

    Example:
        >>> from langchain_mixture import Shuffle, Take
        >>> flat([Shuffle(), [Take(3), Take(1)]])
        [Shuffle(), Take(n=3), Take(n=1)]
    """
    if not isinstance(steps, list | tuple) or not steps:
        raise InvalidMixtureError(
            f"{place} is {shown(steps)}; allowed: a list of one or more steps."
        )
    found: list[Step] = []
    for index, step in enumerate(steps):
        here = f"{place}[{index}]"
        if isinstance(step, list | tuple):
            found += flat(step, here)
        else:
            found.append(_checked(step, here))
    return found


def _checked(step: object, place: str) -> Step:
    if isinstance(step, type) and issubclass(step, Step):
        raise InvalidMixtureError(
            f"{place} is the class {step.__name__}; write {step.__name__}(…) for an "
            "instance of it."
        )
    if not isinstance(step, Step):
        raise InvalidMixtureError(
            f"{place} is {shown(step)}; allowed: an instance of Step, or a list of "
            "them."
        )
    return step
