"""Tables and figures on a page of docs/, where a command can write them again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from envs.errors import UserError
from sea_dbs.files import atomic_write_bytes, atomic_write_text


def check_page(page: Path, mark: str) -> str:
    """The text of a page that holds both marks once.

    Raises:
        UserError: it cannot be read, or does not.
    """
    try:
        text = page.read_text()
    except OSError as error:
        raise UserError(f"cannot read {page}: {error.strerror}") from error
    begin, end = _marks(mark)
    if text.count(begin) != 1 or text.count(end) != 1:
        raise UserError(f"{page} must hold the lines '{begin}' and '{end}' once each: the tables go between them")
    return text


def _marks(mark: str) -> tuple[str, str]:
    return f"<!-- {mark} -->", f"<!-- /{mark} -->"


def publish(page: Path, mark: str, text: str, pictures: Sequence[Path]) -> None:
    """Put a text and pictures between ``<!-- MARK -->`` and ``<!-- /MARK -->`` of a page; pictures lie beside it.

    Raises:
        UserError: the page cannot be read or written, or does not hold both marks once.
    """
    old = check_page(page, mark)
    begin, end = _marks(mark)
    for picture in pictures:
        content = picture.read_bytes()
        atomic_write_bytes(page.parent / picture.name, content)
    shown = "\n\n".join(f"![{picture.stem}]({picture.name})" for picture in pictures)
    body = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    new = "\n\n".join(part for part in (text.strip(), shown) if part)
    atomic_write_text(page, body.sub(lambda _: f"{begin}\n{new}\n{end}", old))
