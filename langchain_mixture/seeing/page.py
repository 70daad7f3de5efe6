"""What all pages share: one file each, without network, in one style."""

from __future__ import annotations

from base64 import b64encode
from functools import cache
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any

from langchain_mixture.seeing.needs import needed

HERE = Path(__file__).parent


def rendered(folder: Path, template: str, *, extra: str, **values: Any) -> str:
    """Return a page that extends `base.html.jinja`.

    Args:
        folder: The folder of the template.
        template: Its file's name.
        extra: The extra that brings jinja2.
        **values: What the template shows. All text in it is escaped.

    Raises:
        ImportError: The package jinja2 is not installed.
    """
    return str(_templates(folder, extra).get_template(template).render(**values))


@cache
def _templates(folder: Path, extra: str) -> Any:
    jinja2 = needed("jinja2", "the page", extra)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, HERE]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals["style"] = (HERE / "style.css").read_text(encoding="utf-8")
    return environment


@cache
def script(name: str) -> tuple[str, str]:
    """Return a script of this folder, and the source that a policy allows it by."""
    text = (HERE / name).read_text(encoding="utf-8")
    return text, f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def framed(page: str) -> str:
    """Return a page for a notebook, in a frame that keeps its style to itself."""
    return (
        f'<iframe srcdoc="{escape(page)}" sandbox="allow-scripts" title="A page of '
        'langchain-mixture" style="width:100%;height:42rem;border:0"></iframe>'
    )


def shaded(rows: list[list[float]]) -> list[tuple[float, str]]:
    """Return a picture of numbers from 0 to 1: an SVG path for each shade.

    Example:
        >>> shaded([[1.0, 0.0]])
        [(0.0, 'M1 0h1v1h-1z'), (1.0, 'M0 0h1v1h-1z')]
    """
    paths: dict[float, list[str]] = {}
    for y, row in enumerate(rows):
        for x, value in enumerate(row):
            shade = round(min(1.0, max(0.0, value)) * 10) / 10
            paths.setdefault(shade, []).append(f"M{x} {y}h1v1h-1z")
    return [(shade, "".join(paths[shade])) for shade in sorted(paths)]
