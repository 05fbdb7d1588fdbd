"""By what right a session may drive: as a bench, by a policy's release, by a classical controller; and in shadow."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from envs.errors import UserError
from export.chain import Chain
from firmware_bridge.client import NO_MODEL, NO_RELEASE
from firmware_bridge.release.verdict import Released, released, words
from firmware_bridge.security.keys import DeviceKey

RESEARCH = "research use only"
BENCH_MODE = f"bench mode: simulated electrode only; {RESEARCH}"
CLASSICAL = f"signed session: a classical controller drives, no policy; {RESEARCH}"


@dataclass(frozen=True)
class Permit:
    """What HELLO and ARM say for a session, and the sentence that every record of it carries."""

    mode: str = BENCH_MODE
    model_hash: bytes = NO_MODEL
    shadow: bool = False  # the model is bound, but nothing of what its policy decides is applied
    release: Released | None = None

    @property
    def arms_with(self) -> tuple[bytes, bytes]:
        """``verdict_hash`` and ``release_tag`` of ARM, 32 bytes each; zero where there is no release."""
        return (NO_RELEASE, NO_RELEASE) if self.release is None else (self.release.verdict_hash, self.release.tag)

    def as_json(self) -> dict[str, Any] | None:
        """The release as a recording holds it; None: there is none."""
        if self.release is None:
            return None
        held = self.release
        return {
            "verdict": held.verdict,
            "verdict_sha256": held.verdict_hash.hex(),
            "tag": held.tag.hex(),
            "key": held.key,
        }


def permit(
    folder: Path | None, chain: Chain, key: DeviceKey | None, *, drives: bool, precision: str, shadow_of: str | None
) -> Permit:
    """The permit of a session.

    Args:
        folder: the export of its policy; None: it has none.
        chain: of that export.
        key: the board's device key; None: bench mode.
        drives: whether the policy's own decisions are to reach the electrode.
        precision: in which it decides.
        shadow_of: the classical controller in whose shadow the policy decides; None: not in shadow.

    Raises:
        UserError: a policy is to drive a board with a key, and was not released by that key.
    """
    found = Permit() if key is None else Permit(CLASSICAL)
    if folder is None:
        return found
    found = replace(found, model_hash=chain.model_hash, shadow=not drives)
    if shadow_of is not None:
        base = BENCH_MODE.removesuffix(f"; {RESEARCH}") if key is None else "signed session"
        return replace(
            found,
            mode=f"shadow mode, {base}: {shadow_of} drives, the policy decides and nothing of it is applied; "
            f"{RESEARCH}",
        )
    if key is None or not drives:
        return found
    release = released(folder, chain, key, precision)
    mode = (
        f"release mode: {words(release.verdict)}, verdict {release.verdict_hash.hex()[:12]} of the key {release.key}; "
        f"{RESEARCH}"
    )
    return replace(found, mode=mode, release=release)


def check_shadow(shadow: str | None, policy: Path | None, controller: str | None) -> None:
    """Refuse options that do not go together.

    Raises:
        UserError: which.
    """
    if shadow is None:
        return
    if policy is None:
        raise UserError(f"--shadow {shadow} needs --policy EXPORT_DIR: the policy that decides and is not applied")
    if controller is not None:
        raise UserError(
            f"--shadow {shadow} names the controller that drives, so --controller {controller} cannot be given"
        )
