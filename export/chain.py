"""chain.json: one chain of hashes from the training of a policy to its C source; its head is the model hash.

    training -> onnx -> quantised -> source  ( -> image -> session: firmware_bridge.trace)

A link names its parts (files of the export folder, or hashes of what lies outside it) with their SHA-256. With
h_0 = SHA-256("sea-dbs-chain-1"):

    content_i = SHA-256(name NUL hash[32 bytes] of each part, in the order of their names)
    h_i       = SHA-256(h_(i-1) content_i)

so that h_i stands for everything before it too. The part manifest.json is hashed without its ``release``, which signs
the head and is written after it. A link without parts is absent, and the chain says so and goes on. The head, h of
"source", is the model hash: HELLO carries it, and a board is bound to it. It finds what was changed, by
accident or later; it is no signature: who can write the whole folder can write another chain, with another head.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.errors import UserError
from export import manifest as manifests
from export.manifest import MANIFEST, Manifest
from sea_dbs.files import json_text, read_json, sha256_file, write_json

CHAIN = "chain.json"
FORMAT = "sea-dbs-chain-1"
_SHA256 = re.compile(r"[0-9a-f]{64}")
START = hashlib.sha256(FORMAT.encode()).digest()
TRAINING, ONNX, QUANTISED, SOURCE = LINKS = ("training", "onnx", "quantised", "source")
GIVEN = "not known: given by its owner"
_ABSENT = {
    QUANTISED: "this export holds no INT8 model",
    SOURCE: "this export holds no C source",
}


@dataclass(frozen=True)
class Link:
    """One link: ``parts`` maps a name to hex SHA-256, ``hash`` is h_i (32 bytes)."""

    name: str
    parts: Mapping[str, str]
    hash: bytes
    note: str = ""

    @property
    def content(self) -> bytes:
        """SHA-256 over the parts; 32 bytes."""
        return content_of(self.parts)

    def as_json(self) -> dict[str, Any]:
        """How the link stands in chain.json."""
        return {"link": self.name, "parts": dict(self.parts), "hash": self.hash.hex(), "note": self.note}


@dataclass(frozen=True)
class Chain:
    """The links in order; see the module."""

    links: tuple[Link, ...]

    @property
    def model_hash(self) -> bytes:
        """The head: 32 bytes."""
        return self.links[-1].hash

    def link(self, name: str) -> Link:
        """A link by its name."""
        return next(link for link in self.links if link.name == name)

    @staticmethod
    def of_folder(folder: Path) -> Chain:
        """The chain of an export folder, every part of it computed again from the files.

        Raises:
            UserError: no export folder, no chain, or the first link that does not hold, with the file that broke it.
        """
        recorded = load(folder)
        for link in recorded.links:
            if broken := differs(folder, link):
                raise UserError(f"the hash chain of {folder} is broken at the link '{link.name}': {broken}")
        return recorded


def content_of(parts: Mapping[str, str]) -> bytes:
    """SHA-256 over names and hashes (hex) of parts; 32 bytes."""
    digest = hashlib.sha256()
    for name in sorted(parts):
        digest.update(name.encode() + b"\0" + bytes.fromhex(parts[name]))
    return digest.digest()


def extend(before: bytes, name: str, parts: Mapping[str, str], note: str = "") -> Link:
    """The link that follows the hash ``before``."""
    return Link(name, dict(parts), hashlib.sha256(before + content_of(parts)).digest(), note)


def compute(folder: Path) -> Chain:
    """The chain of an export folder as its files are now.

    Raises:
        UserError: no export folder, or a file of it cannot be read.
    """
    links: list[Link] = []
    before = START
    for name in LINKS:
        parts, note = parts_of(folder, name)
        links.append(extend(before, name, parts, note))
        before = links[-1].hash
    return Chain(tuple(links))


def write(folder: Path) -> Chain:
    """Compute the chain and write chain.json: the last step of an export, before anything is compiled from it.

    Raises:
        UserError: as `compute`, or the file cannot be written.
    """
    chain = compute(folder)
    facts = {
        "format": FORMAT,
        "links": [link.as_json() for link in chain.links],
        "model_hash": chain.model_hash.hex(),
    }
    write_json(folder / CHAIN, facts)
    return chain


def load(folder: Path) -> Chain:
    """chain.json as it was written; what it says of itself is checked, the files are not.

    Raises:
        UserError: no export folder, no chain.json, another format, or a link whose hash does not follow from its parts.
    """
    path = folder / CHAIN
    if not path.is_file():
        manifests.load(folder)  # no export folder at all is said first
        raise UserError(f"{folder} has no {CHAIN}, so that its policy cannot be traced: export the run again")
    facts = read_json(path)
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        found = facts.get("format") if isinstance(facts, dict) else type(facts).__name__
        raise UserError(f"{path} has the format {found}: this version reads {FORMAT}")
    try:
        chain = Chain(tuple(links_of(facts["links"])))
        head = bytes.fromhex(facts["model_hash"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged: {error!r}") from None
    if tuple(link.name for link in chain.links) != LINKS:
        raise UserError(f"{path} is damaged: its links are not {', '.join(LINKS)}")
    if name := inconsistent(chain.links):
        raise UserError(f"the hash chain of {folder} is broken at the link '{name}': {CHAIN} contradicts itself")
    if head != chain.model_hash:
        raise UserError(f"the hash chain of {folder} is broken at its end: {CHAIN} names another model hash")
    return chain


def parts_of(folder: Path, name: str) -> tuple[dict[str, str], str]:
    """The parts of a link as the files of an export folder are now, and its note.

    Raises:
        UserError: a damaged manifest, or a file that cannot be read.
    """
    return _READ[name](folder)


def links_of(items: Iterable[Mapping[str, Any]]) -> list[Link]:
    """Links from JSON.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: they are no links.
    """
    links = []
    for item in items:
        parts = {str(name): bytes.fromhex(value).hex() for name, value in item["parts"].items()}
        links.append(Link(str(item["link"]), parts, bytes.fromhex(item["hash"]), str(item["note"])))
    return links


def inconsistent(links: Iterable[Link], before: bytes = START) -> str | None:
    """The first link whose hash does not follow from its parts and the hash before it."""
    for link in links:
        if extend(before, link.name, link.parts).hash != link.hash:
            return link.name
        before = link.hash
    return None


def differs(folder: Path, link: Link) -> str | None:
    """What of an export folder is not as a link of its chain says: one clause, or None where the link holds."""
    try:
        found, _ = parts_of(folder, link.name)
    except UserError as error:  # a damaged manifest, or a file that cannot be read
        return str(error)
    return difference(link.parts, found)


def difference(recorded: Mapping[str, str], found: Mapping[str, str]) -> str | None:
    """The first part that was changed, is missing, or is not named by the chain."""
    for name in sorted({*recorded, *found}):
        if name not in found:
            return f"{name} is missing"
        if name not in recorded:
            return f"{name} is not named by the chain"
        if recorded[name] != found[name]:
            return f"{name} was changed (SHA-256 {found[name][:12]}…, the chain says {recorded[name][:12]}…)"
    return None


Read = tuple[dict[str, str], str]


def _training(folder: Path) -> Read:
    described = manifests.load(folder)
    hashes = described.hashes
    parts = {"config": hashes.config, "weights": hashes.weights}
    for name, value in parts.items():
        if not _SHA256.fullmatch(value):
            raise UserError(f"{folder / MANIFEST} is damaged: hashes.{name} is no SHA-256: {value!r}")
    return parts, GIVEN if getattr(described, "origin", "run") == "file" else ""


def _onnx(folder: Path) -> Read:
    described: Manifest = manifests.load(folder)
    parts = _hash(folder, [entry.file for entry in described.precisions.values()])
    return dict(sorted({**parts, MANIFEST: _manifest_hash(folder)}.items())), ""


def _manifest_hash(folder: Path) -> str:
    """Hex SHA-256 of manifest.json as it was before a release was written into it."""
    values = read_json(folder / MANIFEST)
    if isinstance(values, dict) and "release" in values:
        return hashlib.sha256(json_text(manifests.unreleased(values)).encode()).hexdigest()
    return _hash(folder, [MANIFEST])[MANIFEST]


def _quantised(folder: Path) -> Read:
    parts = _hash(folder, ["integer.npz", "calibration.npz"])
    return parts, "" if "integer.npz" in parts else _ABSENT[QUANTISED]


def _source(folder: Path) -> Read:
    parts = _hash(folder, [path.relative_to(folder).as_posix() for path in folder.glob("c/*/*.[ch]")])
    return parts, "" if parts else _ABSENT[SOURCE]


def _hash(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Hex SHA-256 of those files that are there."""
    try:
        return {name: sha256_file(folder / name) for name in sorted(names) if (folder / name).is_file()}
    except OSError as error:
        raise UserError(f"cannot read a file of {folder}: {error}") from error


_READ: dict[str, Callable[[Path], Read]] = {
    TRAINING: _training,
    ONNX: _onnx,
    QUANTISED: _quantised,
    SOURCE: _source,
}
