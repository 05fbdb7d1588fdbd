"""One behaviour, every link: a pty, a TCP socket, memory."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from envs.errors import UserError
from firmware_bridge.board import HostBoard
from firmware_bridge.client import BoardClient
from firmware_bridge.codes import State
from firmware_bridge.links import Link, LoopbackLink, SerialLink
from firmware_bridge.messages import Ack, Nack
from tests.board_tools import CoreInProcess


class LinkBehaviour:
    """What a session may rely on, whatever carries the bytes."""

    def test_a_session_from_handshake_to_stop(self, link: Link) -> None:
        with BoardClient(link) as client:
            assert State(client.hello().state) is State.IDLE
            client.arm()
            assert isinstance(client.set_stim(1, 0, 20_000, [1, 0] * 128, 3000, 60), Ack)
            assert isinstance(client.set_stim(2, 0, 20_000, [1], 3000, 60, 5, check=False), Nack)
            assert isinstance(client.renew(1), Ack)
            assert State(client.status().state) is State.CLOSED_LOOP
            assert client.time_sync().round_trip_us >= 0
            client.heartbeat()
            client.stop()
            assert State(client.status().state) is State.IDLE
            assert [State(s.state) for s in client.notices] == [State.ARMED, State.CLOSED_LOOP, State.IDLE]

    def test_noise_on_the_line_costs_no_order(self, link: Link) -> None:
        with BoardClient(link) as client:
            link.write(bytes(range(256)) * 8)
            client.hello()
            for k in range(20):
                link.write(b"\x13" * k)
                client.heartbeat()
            status = client.status()
            assert status.frames_bad >= 20
            assert status.frames >= 22

    def test_a_silent_moment_reads_as_nothing(self, link: Link) -> None:
        assert link.read(0.01) == b""
        link.close()


class TestPty(LinkBehaviour):
    @pytest.fixture
    def link(self) -> Iterator[Link]:
        with HostBoard() as board:
            yield SerialLink(board.port)


class TestSocket(LinkBehaviour):
    @pytest.fixture
    def link(self) -> Iterator[Link]:
        core = CoreInProcess()
        with socket.create_server(("127.0.0.1", 0)) as server:

            def serve() -> None:
                peer, _ = server.accept()
                with peer:
                    while data := peer.recv(4096):
                        peer.sendall(core(data))

            thread = threading.Thread(target=serve)
            thread.start()
            made = SerialLink(f"socket://127.0.0.1:{server.getsockname()[1]}")
            yield made
            made.close()
            thread.join()


class TestLoopback(LinkBehaviour):
    @pytest.fixture
    def link(self) -> Link:
        return LoopbackLink(CoreInProcess())


class BadLine:
    """Loses, repeats and damages frames on their way to and from the board, each in turn."""

    def __init__(self, core: CoreInProcess) -> None:
        self._core = core
        self._turn = 0

    def __call__(self, data: bytes) -> bytes:
        self._turn += 1
        if self._turn % 5 == 1:
            return b""  # lost on the way there
        if self._turn % 5 == 2:
            damaged = bytearray(data)
            damaged[len(data) // 2] ^= 0x20
            return self._core(bytes(damaged))
        answer = self._core(data)
        if self._turn % 5 == 3:
            return b""  # done, and the answer lost
        return answer + answer + self._core(data)  # everything twice


def test_a_bad_line_delays_but_changes_nothing() -> None:
    core = CoreInProcess()
    client = BoardClient(LoopbackLink(BadLine(core)), timeout_s=5)
    client.hello()
    client.arm()
    for k in range(3):
        reply = client.set_stim(k + 1, k * 100_000, 20_000, [1] * 5, 3000, 60)
        assert isinstance(reply, Ack)
        core.advance((k + 1) * 100_000)
    assert core.pulses == list(range(0, 300_000, 20_000)), "each decision was taken once"
    assert client.connection.ignored["old sequence"] > 0


def test_a_handshake_is_tried_for_two_seconds_at_least() -> None:
    core = CoreInProcess()
    calls: list[bytes] = []

    def deaf_at_first(data: bytes) -> bytes:
        calls.append(data)
        return core(data) if len(calls) > 9 else b""  # a pty that looks for its peer once a second, and slower

    assert BoardClient(LoopbackLink(deaf_at_first)).hello().refusal == 0
    assert len(calls) == 10


def test_a_busy_board_is_named_and_not_stopped() -> None:
    core = CoreInProcess()
    first = BoardClient(LoopbackLink(core))
    first.hello()
    first.arm()
    assert isinstance(first.set_stim(1, 0, 20_000, [1] * 50, 3000, 60), Ack)
    second = BoardClient(LoopbackLink(core, name="the same board"))
    with pytest.raises(UserError, match="the same board may not be armed: another session's decision is under way"):
        second.hello(timeout_s=0.3)
    second.close()
    assert State(first.status().state) is State.CLOSED_LOOP
    core.advance(300_001)
    assert second.hello().refusal == 0
