"""Files from elsewhere: data, never code, and never more of it than was expected.

A file that somebody hands us may be broken or hostile. What is read here is bounded before it is unpacked: bytes,
depth, repetition by aliases. `envs.npz` does the same for arrays.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from envs.errors import UserError

MAX_YAML_BYTES = 1 << 20  # a cohort of 1,000 patients takes 0.4 MB
MAX_YAML_VALUES = 200_000  # with aliases written out
MAX_YAML_DEPTH = 32
MAX_YAML_SCALAR = 4096  # characters: numbers of more digits cost time that grows with their square


def read_bounded(path: Path, limit: int, what: str) -> bytes:
    """The bytes of a plain file, ``limit`` at most; ``what`` names it: "the config".

    Raises:
        UserError: it cannot be read, is no plain file (a pipe has no end), or is larger.
    """
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"cannot read {what} {path}: it is no plain file")
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise UserError(f"cannot read {what} {path}: {error.strerror or error}") from error
    if len(data) > limit:
        raise UserError(f"{what} {path} is larger than the {limit:,} bytes that are taken")
    return data


def load_yaml(text: str | bytes, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """The value of a YAML (or JSON) text: plain values only.

    Args:
        text: at most `MAX_YAML_BYTES`.
        loader: `yaml.SafeLoader` or a subclass.

    Raises:
        yaml.YAMLError: not YAML, a tag that is no plain value, too large, too deep, or too much of it by aliases.
    """
    assert issubclass(loader, yaml.SafeLoader)
    size = len(text if isinstance(text, bytes) else text.encode(errors="surrogatepass"))
    if size > MAX_YAML_BYTES:
        raise yaml.YAMLError(f"it has {size:,} bytes, more than the {MAX_YAML_BYTES:,} that are taken")
    try:
        _measure(text, loader)
        return yaml.load(text, Loader=loader)
    except (ValueError, OverflowError, KeyError, RecursionError) as error:  # a number or date that is none
        raise yaml.YAMLError(f"it holds a value that cannot be read: {error}") from error


def _measure(text: str | bytes, loader: type[yaml.SafeLoader]) -> None:
    """Count what would be built, from the events alone."""
    anchors: dict[str, int] = {}  # name -> values below it, aliases written out
    stack: list[tuple[str | None, int]] = [(None, 0)]  # open collections: anchor, values so far
    for event in yaml.parse(text, Loader=loader):
        added = 0
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in anchors:  # unknown, or inside what it names
                raise _refused(f"*{event.anchor} names nothing", event)
            added = anchors[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            if len(event.value) > MAX_YAML_SCALAR:
                raise _refused(f"a value of {len(event.value):,} characters, {MAX_YAML_SCALAR:,} are taken", event)
            added = 1
            if event.anchor:
                anchors[event.anchor] = added
        elif isinstance(event, yaml.CollectionStartEvent):
            stack.append((event.anchor, 1))
            if len(stack) > MAX_YAML_DEPTH:
                raise _refused(f"deeper than {MAX_YAML_DEPTH} levels", event)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, added = stack.pop()
            if anchor:
                anchors[anchor] = added
        stack[-1] = (stack[-1][0], stack[-1][1] + added)
        if sum(count for _, count in stack) > MAX_YAML_VALUES:
            raise yaml.YAMLError(f"it holds more than {MAX_YAML_VALUES:,} values, its aliases written out")


def _refused(reason: str, event: yaml.Event) -> yaml.YAMLError:
    where = f"line {event.start_mark.line + 1}: " if event.start_mark is not None else ""
    return yaml.YAMLError(f"{where}{reason}")
