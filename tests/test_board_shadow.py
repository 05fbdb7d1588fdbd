"""Who may drive: a policy that was released with the board's key; in shadow it decides and nothing of it is applied."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from envs.errors import UserError
from firmware_bridge.client import BoardClient
from firmware_bridge.codes import Clamp, Feature, NackCode, State
from firmware_bridge.links import LoopbackLink
from firmware_bridge.messages import Ack, Nack
from firmware_bridge.observation import Decided, cut
from firmware_bridge.security.auth import release_tag
from firmware_bridge.security.keys import DeviceKey
from tests.board_tools import CoreInProcess, harness
from tests.observe_tools import SLOT_US, TinyPolicy, armed, observation

KEY, OTHER = DeviceKey(bytes(range(32))), DeviceKey(bytes(32))
MODEL, VERDICT = bytes([7]) * 32, bytes([9]) * 32


def keyed(*, policy: bool = False) -> tuple[CoreInProcess, BoardClient]:
    core = CoreInProcess(policy=policy, key=KEY.secret)
    return core, BoardClient(LoopbackLink(core), key=KEY)


@pytest.mark.parametrize("policy", [False, True], ids=["the host decides", "the board decides"])
def test_a_policy_drives_a_board_with_a_key_only_once_released(policy: bool) -> None:
    _, client = keyed(policy=policy)
    client.hello(MODEL)
    right = release_tag(KEY, MODEL, VERDICT)
    wrong: list[tuple[bytes, bytes]] = [
        (bytes(32), bytes(32)),
        (VERDICT, bytes(32)),
        (bytes(32), right),
        (VERDICT, release_tag(OTHER, MODEL, VERDICT)),
        (VERDICT, release_tag(KEY, bytes(32), VERDICT)),
        (VERDICT, right[:-1] + bytes([right[-1] ^ 1])),
    ]
    for verdict, tag in wrong:
        with pytest.raises(UserError, match="no release verdict for this model"):
            client.arm(verdict, tag)
    assert client.status().state == State.IDLE
    client.arm(VERDICT, right)
    assert client.status().state == State.ARMED


@pytest.mark.parametrize(("name", "code"), [("fp32", 2), ("fp16", 3)])
def test_no_other_format_drives_under_the_release_of_int8(name: str, code: int) -> None:
    harness().harness_format(code)
    try:
        _, client = keyed(policy=True)
        client.hello(MODEL)
        with pytest.raises(UserError, match="no release verdict for this model"):
            client.arm(VERDICT, release_tag(KEY, MODEL, VERDICT))
        client.hello(MODEL, shadow=True)
        client.arm()
        assert client.status().state == State.ARMED, name
    finally:
        harness().harness_format(1)


def test_a_classical_controller_needs_no_release() -> None:
    _, client = keyed()
    client.hello()
    client.arm()
    assert isinstance(client.set_stim(1, 0, 20_000, [1], 3000, 60), Ack)


def test_bench_mode_needs_no_release() -> None:
    core = CoreInProcess(policy=True)
    client = BoardClient(LoopbackLink(core))
    client.hello(MODEL)
    client.arm()
    assert client.status().state == State.ARMED


def test_a_board_that_does_not_confirm_shadow_is_not_armed(monkeypatch: pytest.MonkeyPatch) -> None:
    _, client = keyed(policy=True)
    exchange = client._exchange

    def stripped(*arguments: Any) -> Any:
        event = exchange(*arguments)
        assert event is not None
        return event._replace(message=replace(event.message, features=event.message.features & ~Feature.SHADOW))

    monkeypatch.setattr(client, "_exchange", stripped)
    client.hello(MODEL)
    with pytest.raises(UserError, match="asked for a session in shadow and does not confirm it"):
        client.hello(MODEL, shadow=True)


def test_in_shadow_the_policy_decides_and_the_host_drives() -> None:
    core, client = keyed(policy=True)
    assert client.hello(MODEL, shadow=True).features & Feature.SHADOW
    client.arm()
    twin = TinyPolicy()
    assert isinstance(client.set_stim(1, 0, 40_000, [1] + [0] * 9, 3000, 60, 1000), Ack)
    for k in (1, 2):  # each counts for itself
        values = observation(k)
        reply = client.observe(k, values, 0, 1000)
        assert isinstance(reply, Decided)
        np.testing.assert_array_equal(reply.logits, twin.infer(values))
        assert reply.nack is None
        assert (reply.decision.clamp, reply.decision.amplitude_uA) == (Clamp.SHADOW, 0)
        core.advance(core.now_us + 50_000)
    assert core.pulses == [0], "what the host ordered, and nothing else"
    assert client.status().decision_id == 1


def test_what_a_shadow_does_wrong_costs_nothing() -> None:
    core, client = keyed(policy=True)
    client.hello(MODEL, shadow=True)
    client.arm()
    core.thinking = True
    assert isinstance(client.set_stim(1, 0, 40_000, [1] * 60, 3000, 60, 1000), Ack)
    for k in range(1, 6):
        late(core, client, k)
    assert client.status().state == State.CLOSED_LOOP
    assert client.status().decisions_late == 5


def late(core: CoreInProcess, client: BoardClient, decision_id: int, *, by_us: int = SLOT_US // 2 + 1) -> None:
    """The policy answers so long after the start of its decision."""
    parts = cut(decision_id, observation(decision_id), start_us=core.now_us + 1_000, lease_ms=1000)
    client.link.write(b"".join(client.connection.send(part) for part in parts))
    taken = core.take()
    assert taken is not None
    core.advance(core.now_us + 1_000 + by_us)
    core.decided(taken)


@pytest.fixture
def deciding() -> Any:
    core = CoreInProcess(policy=True)
    client = armed(core)
    reply = client.observe(1, observation(1), 0, 1000)
    assert isinstance(reply, Decided)
    core.thinking = True
    return core, client


def test_a_late_answer_is_skipped_and_the_third_in_a_row_ends_the_loop(deciding: Any) -> None:
    core, client = deciding
    held = client.status()
    late(core, client, 2)
    late(core, client, 3)
    status = client.status()
    assert (status.state, status.decisions_late) == (State.CLOSED_LOOP, 2)
    assert (status.decision_id, status.lease_until_us) == (held.decision_id, held.lease_until_us), "held, not renewed"
    late(core, client, 4)
    status = client.status()
    assert (status.state, status.decisions_late) == (State.FALLBACK, 3)


def test_an_answer_in_time_starts_the_count_afresh(deciding: Any) -> None:
    core, client = deciding
    for k in (2, 4, 6):
        late(core, client, k)
        late(core, client, k + 1, by_us=SLOT_US // 2)  # its first slot can still be given
    status = client.status()
    assert (status.state, status.decisions_late) == (State.CLOSED_LOOP, 3)


def test_the_answer_that_is_late_says_so(deciding: Any) -> None:
    core, client = deciding
    parts = cut(2, observation(2), start_us=0, lease_ms=20)
    client.link.write(b"".join(client.connection.send(part) for part in parts))
    taken = core.take()
    assert taken is not None
    core.advance(core.now_us + 20_001)
    core.decided(taken)
    core.thinking = False
    again = client.observe(2, observation(2), 0, 20)
    assert isinstance(again, Decided)
    assert isinstance(again.nack, Nack)
    assert (again.nack.code, again.nack.value) == (NackCode.INFERENCE, 20_001)
