"""The page as data, and its one way into HTML: every text is escaped, every picture is inside."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources

from sea_dbs.extras import need


@dataclass(frozen=True)
class Text:
    """A paragraph; ``tone``: "", "good", "warn" or "bad"."""

    text: str
    tone: str = ""
    kind: str = "text"


@dataclass(frozen=True)
class Missing:
    """A part that is not there, and how to make it."""

    text: str
    command: str = ""
    kind: str = "missing"


@dataclass(frozen=True)
class Figure:
    """A picture: file name beside the page, PNG bytes, and a caption that says what to see."""

    name: str
    png: bytes
    alt: str
    caption: str
    kind: str = "figure"

    @property
    def source(self) -> str:
        """The picture as a data address."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


@dataclass(frozen=True)
class Table:
    """Cells as text. ``marks`` gives rows a class ("policy", "good", "bad"); ``numeric`` columns are right-aligned."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    marks: Sequence[str] = ()
    numeric: Sequence[int] = ()
    kind: str = "table"


Block = Text | Missing | Figure | Table


@dataclass(frozen=True)
class Section:
    """A chapter of the page."""

    anchor: str
    title: str
    lead: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Tile:
    """One number that a reader should take away."""

    value: str
    what: str
    tone: str = ""


@dataclass(frozen=True)
class Page:
    """Everything on the page."""

    title: str
    headline: Sequence[Text]
    tiles: Sequence[Tile]
    sections: Sequence[Section]
    footer: Sequence[str] = field(default_factory=tuple)

    def figures(self) -> list[Figure]:
        """All pictures, in order."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Figure)]


def render(page: Page) -> str:
    """The page as one HTML file that needs nothing else.

    Raises:
        UserError: jinja2 is not installed.
    """
    need("report", "jinja2")
    from jinja2 import Environment, StrictUndefined

    source = (resources.files("sea_dbs.report") / "report.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source).render(page=page)
