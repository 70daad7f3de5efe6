"""A pipeline as a small picture for notebooks: plain HTML, without a network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from langchain_mixture.running.run import StepOutline
from langchain_mixture.steps.checks import names_told

MOST_AGENTS: Final = 8
"""Agents of one step that are named, at most."""


def card(title: str, steps: Sequence[StepOutline]) -> str:
    """Return a pipeline as HTML: a box for each step, with its agents.

    Example:
        >>> steps = [{"name": "1_take", "step": "Take", "agents": []}]
        >>> "1_take" in card("mixture", steps)
        True
    """
    box = "border:1px solid #8888;border-radius:8px;padding:.4rem .7rem;min-width:6rem"
    boxes = [
        f'<div style="{box}"><b>{escape(step["name"])}</b>{_agents(step["agents"])}'
        "</div>"
        for step in steps
    ]
    row = "display:flex;flex-wrap:wrap;gap:.5rem;align-items:center;margin:.4rem 0"
    arrow = '<span aria-hidden="true">→</span>'
    return (
        f'<div style="font:14px/1.5 system-ui,sans-serif"><div>{escape(title)}</div>'
        f'<div style="{row}">{arrow.join(boxes)}</div></div>'
    )


def _agents(agents: Sequence[str]) -> str:
    names = names_told(agents)
    lines = [f"<div>{escape(name)}</div>" for name in names[:MOST_AGENTS]]
    if len(names) > MOST_AGENTS:
        lines.append(f"<div>and {len(names) - MOST_AGENTS} more</div>")
    return "".join(lines)
