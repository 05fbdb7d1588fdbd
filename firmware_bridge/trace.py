"""``sea-dbs trace``: the chain that a recording holds, every part of it within reach computed again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from envs.errors import UserError
from export import chain as policy_chain
from export.chain import CHAIN, ONNX, QUANTISED, SOURCE, START, TRAINING, Link
from export.manifest import MANIFEST, Release
from export.manifest import load as load_manifest
from firmware_bridge.chain import IMAGE, SESSION, SESSION_LINKS, digest_rows, read_links
from firmware_bridge.images import Image, derived
from firmware_bridge.named_images import file_of, image_broken, named_images
from firmware_bridge.recorder import SESSION_FILE
from firmware_bridge.rederive import came_again, compiled
from firmware_bridge.release.verdict import broken, words
from sea_dbs.config import load_config
from sea_dbs.files import sha256_file
from sea_dbs.recording_file import open_recording
from sea_dbs.report.session_data import SessionData, read_session

RELEASE = "release"  # no link of the chain: it signs the chain's head
HELD, BROKEN, UNREACHED, ABSENT, OPEN = "held", "broken", "not reachable", "absent", "not closed"


@dataclass(frozen=True)
class Row:
    """One part of a link: which file, its SHA-256 as recorded (hex), the verdict, and why."""

    link: str
    file: str
    sha256: str
    verdict: str
    detail: str


@dataclass
class Trace:
    """All rows in the order of the chain, and what the recording says of itself."""

    recording: str
    model_hash: str = ""
    outcome: str | None = None
    mode: str = ""  # by what right it drove
    rows: list[Row] = field(default_factory=list)

    @property
    def broken(self) -> str | None:
        """One sentence about the first broken link."""
        for row in self.rows:
            if row.verdict == BROKEN:
                return f"the chain is broken at the link '{row.link}': {row.detail}"
        return None

    @property
    def closed(self) -> bool:
        """Whether the recording was closed by its session."""
        return bool(self.rows) and self.rows[-1].verdict in (HELD, BROKEN)

    def as_json(self) -> dict[str, Any]:
        """For machines; the rows as in the table."""
        return {
            "recording": self.recording,
            "outcome": self.outcome,
            "model_hash": self.model_hash,
            "mode": self.mode,
            "closed": self.closed,
            "broken": self.broken,
            "links": [vars(row) for row in self.rows],
        }


def trace(session: Path, export: Path | None = None, run: Path | None = None, *, rebuild: bool = False) -> Trace:
    """Follow the chain of a recording (its folder or its file) from training to its last row.

    Args:
        session: a session's folder, or its session.sqlite.
        export: the export folder; None: where it stood when the session ran, if it is still there.
        run: the run folder, to compute the hashes of its settings and weights.
        rebuild: make what follows from the ONNX files again, down to the image, and compare.

    Raises:
        UserError: no recording, one without a chain, or a folder that is no export or run.
    """
    path = session / SESSION_FILE if session.is_dir() else session
    data = read_session(path)
    with open_recording(path) as db:
        recorded, place, damaged = read_links(db)
        rows_digest = digest_rows(db)
    if not recorded and not damaged:
        raise UserError(f"{path} holds no chain: it was recorded by an older version")
    result = Trace(str(path), outcome=data.session["outcome"], mode=data.session["mode"])
    if SOURCE in recorded:
        result.model_hash = recorded[SOURCE].hash.hex()
    reach = Reach(export or place, explicit=export is not None, run=run)
    before = START
    for name in SESSION_LINKS:
        link = recorded.get(name)
        if name == SESSION:
            if data.session["release"] is not None:
                result.rows.append(_release(data.session["release"], result.model_hash, reach))
            result.rows += _session(link, before, rows_digest, data)
        elif link is None:
            result.rows.append(Row(name, "", "", BROKEN, damaged.get(name, "the recording does not name it")))
        elif policy_chain.inconsistent([link], before):
            said = "the recording contradicts itself: the link's hash does not follow from its parts"
            result.rows += _all(link, BROKEN, said)
        else:
            result.rows += _image(link, recorded, data, reach) if name == IMAGE else _policy(link, data, reach)
        before = link.hash if link is not None else before
    if rebuild and result.broken is None:
        result.rows = _rebuilt(result.rows, recorded, reach)
    return result


class Reach:
    """The folders outside the recording that are here now.

    Raises:
        UserError: a folder was named that is not what it should be.
    """

    def __init__(self, export: Path | None, *, explicit: bool, run: Path | None) -> None:
        there = export is not None and any((export / name).is_file() for name in (MANIFEST, CHAIN))
        if explicit and not there:
            raise UserError(f"--export {export} is no export folder: neither {MANIFEST} nor {CHAIN} is in it")
        if run is not None and not any((run / name).is_file() for name in ("config.yaml", "policy.pt")):
            raise UserError(f"--run {run} is no run folder: neither config.yaml nor policy.pt is in it")
        self.export = export if there else None
        self.run = run

    def images(self) -> list[tuple[str, Image]]:
        """The images that the export folder names, with their files.

        Raises:
            UserError: an image.json that is damaged.
        """
        folder = self.export
        return [] if folder is None else [(file_of(folder, image), image) for image in named_images(folder)]


def _all(link: Link, verdict: str, detail: str) -> list[Row]:
    return [Row(link.name, name, sha, verdict, detail) for name, sha in sorted(link.parts.items())] or [
        Row(link.name, "", link.hash.hex(), verdict, detail)
    ]


def _policy(link: Link, data: SessionData, reach: Reach) -> list[Row]:
    """The rows of a link of the export folder."""
    if not link.parts and reach.export is None:
        return _all(link, ABSENT, link.note)
    rows = _all(link, UNREACHED, "pass --export DIR") if reach.export is None else _compare(link, reach.export)
    if link.name == TRAINING and link.note:  # somebody else's policy: the hashes of what its owner handed over
        rows = [replace(row, detail=f"{row.detail}; training {link.note}") for row in rows]
    elif link.name == TRAINING:
        rows = _training(rows, reach)
    if link.name == ONNX and link.parts:
        decided = data.hashes.get("onnx")
        if decided is not None and decided not in link.parts.values():
            rows.append(Row(ONNX, "hashes", decided, BROKEN, "the recording says that another file decided"))
    if link.name == SOURCE and reach.export is not None:
        rows.append(_head(link, reach.export))
    return rows


def _compare(link: Link, folder: Path) -> list[Row]:
    try:
        found, _ = policy_chain.parts_of(folder, link.name)
    except UserError as error:
        return _all(link, BROKEN, str(error))
    rows = []
    for name in sorted({*link.parts, *found}):
        why = policy_chain.difference(
            {k: v for k, v in link.parts.items() if k == name}, {k: v for k, v in found.items() if k == name}
        )
        held = "as manifest.json says" if link.name == TRAINING else "computed again"
        sha = link.parts.get(name, found.get(name, ""))
        rows.append(Row(link.name, name, sha, BROKEN if why else HELD, why or held))
    return rows or _all(link, ABSENT, link.note)


def _training(rows: list[Row], reach: Reach) -> list[Row]:
    """Settings and weights: what the manifest says is no proof, the run folder's files are."""
    if reach.run is None:
        return [
            Row(row.link, row.file, row.sha256, UNREACHED, f"{row.detail}; pass --run DIR")
            if row.verdict == HELD
            else row
            for row in rows
        ]
    found = {"config": _config_hash(reach.run), "weights": _file_hash(reach.run / "policy.pt")}
    files = {"config": "config.yaml", "weights": "policy.pt"}
    result = []
    for row in rows:
        if row.verdict == BROKEN or row.file not in found:
            result.append(row)
            continue
        actual, file = found[row.file], reach.run / files[row.file]
        if actual == row.sha256:
            result.append(Row(row.link, row.file, row.sha256, HELD, f"computed from {file}"))
            continue
        if not file.is_file():
            result.append(Row(row.link, row.file, row.sha256, UNREACHED, f"{file} is not there"))
            continue
        what = "cannot be read" if actual is None else f"was changed (its hash is {actual[:12]}…)"
        result.append(Row(row.link, row.file, row.sha256, BROKEN, f"{file} {what}"))
    return result


def _config_hash(run: Path) -> str | None:
    try:
        return load_config(run / "config.yaml").sha256()
    except UserError:
        return None


def _file_hash(path: Path) -> str | None:
    return sha256_file(path) if path.is_file() else None


def _head(link: Link, folder: Path) -> Row:
    """Whether chain.json, which boards and sessions take the model hash from, ends where the recording says."""
    head = link.hash.hex()
    try:
        stated = policy_chain.load(folder).model_hash.hex()
    except UserError as error:
        return Row(SOURCE, CHAIN, head, BROKEN, str(error))
    if stated == head:
        return Row(SOURCE, CHAIN, head, HELD, "the head: the model hash")
    return Row(SOURCE, CHAIN, head, BROKEN, f"{CHAIN} ends in another model hash ({stated[:12]}…)")


def _image(link: Link, recorded: dict[str, Link], data: SessionData, reach: Reach) -> list[Row]:
    sha, hashes = link.parts.get("image", ""), data.hashes
    firmware, bound = hashes.get("firmware", sha), hashes.get("board_model", "")
    model = hashes.get("model")
    source = recorded.get(SOURCE)
    if firmware != sha:
        return [Row(IMAGE, link.note, sha, BROKEN, f"the board reported the firmware {firmware[:12]}…")]
    if source is not None and model is not None and model != source.hash.hex():
        return [Row(IMAGE, link.note, sha, BROKEN, f"the host spoke for the model {model[:12]}…, not for the chain's")]
    if model is not None and bound not in (model, "00" * 32):
        return [Row(IMAGE, link.note, sha, BROKEN, f"the board was bound to the model {bound[:12]}…")]
    try:
        images = reach.images()
    except UserError as error:
        return [Row(IMAGE, link.note, sha, BROKEN, str(error))]
    for file, image in images:
        if image.sha256 == sha or f"{image.board} {image.format}" in link.note:
            other = f"{file} names another image ({image.sha256[:12]}…)"
            wrong = image_broken(image, recorded) if image.sha256 == sha else other
            return [Row(IMAGE, file, sha, BROKEN if wrong else HELD, wrong or "computed again")]
    return [Row(IMAGE, link.note, sha, UNREACHED, "as the board reported it; no export folder within reach names it")]


def _release(recorded: str, model_hash: str, reach: Reach) -> Row:
    """The verdict that the board was armed with: whether it holds, and stands in the export's manifest."""
    try:
        release = Release.model_validate_json(recorded)
        said = words(release.verdict)
    except (ValueError, KeyError, TypeError):
        return Row(RELEASE, "verdict", "", BROKEN, "the recording's release is damaged")
    sha, signed = release.verdict_sha256, f"{said}; signed by the key {release.key}"
    if why := broken(release, bytes.fromhex(model_hash), None):
        return Row(RELEASE, "verdict", sha, BROKEN, why)
    if reach.export is None:
        return Row(RELEASE, "verdict", sha, UNREACHED, f"{signed}; pass --export DIR")
    try:
        there = load_manifest(reach.export).release
    except UserError as error:
        return Row(RELEASE, "verdict", sha, BROKEN, str(error))
    if there != release:
        return Row(RELEASE, "verdict", sha, UNREACHED, f"{signed}; the export was released anew since, or not at all")
    return Row(RELEASE, "verdict", sha, HELD, f"{signed}; as in {MANIFEST}")


def _rebuilt(rows: list[Row], recorded: dict[str, Link], reach: Reach) -> list[Row]:
    """The rows with what came of making model, C and image again."""
    made: dict[str, str] = {}
    why_not = "no export folder is within reach"
    if reach.export is not None:
        try:
            made = derived(reach.export)
        except UserError as error:
            why_not = str(error)
    result = []
    for row in rows:
        if row.link == IMAGE:
            result.append(_recompiled(row, recorded[IMAGE], reach))
        elif row.link not in (QUANTISED, SOURCE) or row.file not in made:
            whole = row.file.endswith(("integer.npz", "sea_policy.c"))
            result.append(replace(row, detail=f"{row.detail}; not made again: {why_not}") if whole else row)
        elif wrong := came_again(row.file, recorded[row.link], made):
            result.append(replace(row, verdict=BROKEN, detail=wrong))
        else:
            result.append(replace(row, detail=f"{row.detail}, and made again from the link before: equal"))
    return result


def _recompiled(row: Row, link: Link, reach: Reach) -> Row:
    try:
        what = compiled(link.note, reach.export, link.parts.get("image", ""))
    except UserError as error:
        return replace(row, detail=f"{row.detail}; not compiled again: {error}")
    if what is None:
        return replace(row, detail=f"{row.detail}; these sources, compiled here, make no such image")
    return replace(row, verdict=HELD, detail=f"compiled again ({what}): equal")


def _session(link: Link | None, before: bytes, digest: str, data: SessionData) -> Iterable[Row]:
    if link is None:
        if data.session["outcome"] is not None:
            why = "the session ended, but the digest that it wrote then is missing"
            return [Row(SESSION, "rows", "", BROKEN, why)]
        return [Row(SESSION, "rows", "", OPEN, "not closed: its host died, or its disk was full")]
    stated = link.parts.get("rows", "")
    if stated != digest:
        return [Row(SESSION, "rows", stated, BROKEN, f"a row was changed after the session ended ({digest[:12]}… now)")]
    if policy_chain.inconsistent([link], before):
        return [Row(SESSION, "rows", stated, BROKEN, "it does not follow from the links before it")]
    return [Row(SESSION, "rows", stated, HELD, f"every row computed again; {data.session['outcome']}")]
