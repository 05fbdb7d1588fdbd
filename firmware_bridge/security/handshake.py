"""The host's side of the challenge-response: does the board hold the key that we hold?"""

from __future__ import annotations

from envs.errors import UserError
from firmware_bridge.codes import Feature
from firmware_bridge.messages import HelloAck
from firmware_bridge.security.auth import From, SessionAuth
from firmware_bridge.security.keys import DeviceKey


def authenticate(
    name: str, key: DeviceKey | None, ack: HelloAck, proof: tuple[bytes, bytes] | None
) -> SessionAuth | None:
    """The keys of a session, once the board has proven that it holds the device key; None: bench mode on both ends.

    Args:
        name: of the link.
        key: ours.
        ack: the board's answer, which names both nonces.
        proof: body and tag of its frame; None: it was not signed.

    Raises:
        UserError: one end holds a key and the other none, or they hold different ones. Never a silent bench mode.
    """
    keyed = bool(ack.features & Feature.KEYED)
    if key is None:
        if keyed:
            raise UserError(f"the board at {name} takes signed frames alone: pass its key, --key FILE")
        return None
    if not keyed:
        raise UserError(
            f"the board at {name} holds no key (bench mode: anybody may command it), a key was given: start it with "
            "--key FILE, or the session without"
        )
    auth = SessionAuth(key, ack.host_nonce, ack.board_nonce)
    if proof is None or not auth.check(From.BOARD, *proof):
        raise UserError(
            f"the board at {name} does not hold the key {key.fingerprint}: it has another one, or is an impostor"
        )
    return auth
