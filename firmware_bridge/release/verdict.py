"""The verdict of a release check: signed into an export's manifest, and looked at before a board is armed.

    verdict_sha256 = SHA-256 of the verdict's canonical JSON (sorted keys, no blanks)
    tag            = HMAC(device key, "sea-dbs release 1" | model hash | verdict_sha256)

ARM carries both; a board with a key computes the tag again (``sea_auth_is_released``). The host says first, in one
sentence, what would be refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from envs.errors import UserError
from export import chain, manifest
from export.chain import Chain
from export.manifest import Release
from firmware_bridge.limits import LIMITS_HASH
from firmware_bridge.security.auth import is_released, release_tag
from firmware_bridge.security.keys import DeviceKey
from sea_dbs.files import sha256_json

FORMAT = "sea-dbs-release-1"
CHECKED = "int8"  # the format of the policy that is checked, and so the only one that is released


class Released(NamedTuple):
    """A verdict that holds for a policy and a key."""

    verdict: dict[str, Any]
    verdict_hash: bytes  # 32
    tag: bytes  # 32
    key: str  # fingerprint


def sign(folder: Path, verdict: dict[str, Any], key: DeviceKey) -> Release:
    """Write a verdict, signed, into an export's manifest, in one atomic step. The hash chain stays as it is.

    Raises:
        UserError: a verdict that is no release, another model's, or an export whose chain is broken.
    """
    model = chain.Chain.of_folder(folder).model_hash
    if verdict.get("released") is not True:
        raise UserError(f"the verdict on {folder} is not signed: it is no release")
    if verdict.get("model_hash") != model.hex():
        raise UserError(f"the verdict on {folder} is not signed: the export was changed while it was checked")
    digest = sha256_json(verdict)
    tag = release_tag(key, model, bytes.fromhex(digest))
    release = Release(verdict=verdict, verdict_sha256=digest, tag=tag.hex(), key=key.fingerprint)
    manifest.save(folder, manifest.load(folder).model_copy(update={"release": release}))
    return release


def released(folder: Path, of: Chain, key: DeviceKey, precision: str = CHECKED) -> Released:
    """The release of an export's policy by this key.

    Args:
        folder: the export.
        of: its chain.
        key: the board's.
        precision: in which the policy is to drive.

    Raises:
        UserError: there is none, or it does not hold for this policy, key or build: one sentence, with the way out.
    """
    found = manifest.load(folder).release
    again = f"run 'sea-dbs release {folder} --key FILE --out DIR', or pass --shadow on-off"
    if found is None:
        raise UserError(
            f"the policy of {folder} has no release verdict, so it may not drive a board with a key: {again}"
        )
    if why := broken(found, of.model_hash, key):
        raise UserError(f"the release of {folder} does not hold: {why}: {again}")
    limits = str(found.verdict.get("limits_hash"))
    if limits != LIMITS_HASH.hex():
        raise UserError(
            f"the release of {folder} does not hold: it was checked under other limits ({limits[:12]}…, this build has "
            f"{LIMITS_HASH.hex()[:12]}…): {again}"
        )
    if precision != CHECKED:
        raise UserError(
            f"the release of {folder} is one of its {CHECKED} policy, not of {precision}: pass --precision {CHECKED}"
        )
    return Released(found.verdict, bytes.fromhex(found.verdict_sha256), bytes.fromhex(found.tag), found.key)


def broken(release: Release, model_hash: bytes, key: DeviceKey | None) -> str | None:
    """Why a release does not hold, in one clause; None: it does, as far as it can be seen without a ``key``."""
    verdict = release.verdict
    if (actual := sha256_json(verdict)) != release.verdict_sha256:
        return f"the verdict was changed (its SHA-256 is {actual[:12]}…, {release.verdict_sha256[:12]}… was signed)"
    if verdict.get("format") != FORMAT or verdict.get("released") is not True:
        return f"what was signed is no release of the format {FORMAT}"
    if verdict.get("model_hash") != model_hash.hex():
        return f"it was given to the model {str(verdict.get('model_hash'))[:12]}…, this one is {model_hash.hex()[:12]}…"
    if key is None:
        return None
    if release.key != key.fingerprint:
        return f"the key {release.key} signed it, this board's is {key.fingerprint}"
    if not is_released(key, model_hash, bytes.fromhex(release.verdict_sha256), bytes.fromhex(release.tag)):
        return f"its tag is not one of the key {key.fingerprint}"
    return None


def words(verdict: dict[str, Any]) -> str:
    """A verdict in a few words: what was run, when, and how it came out."""
    patients, conditions, seconds = verdict["cohort"]["patients"], len(verdict["conditions"]), verdict["seconds"]
    said = "released" if verdict["released"] else "NOT released"
    return f"{said} on {verdict['date'][:10]} after {patients} patients × {conditions} conditions × {seconds:g} s"
