"""The link's own speed: `python -m benchmarks.link [--out out/bench] [--boards host,qemu-m4f,…]`.

Round trip of one frame, and frames a second with a window of them under way, over a board's pty, through the client
that sessions use. Beside each board, in alternating blocks, the same bytes over a pty whose other end only echoes them:
what is left is the board and the codec. Times are wall time; the machine's load stands in the result.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.link_figure import draw
from benchmarks.plant import _processor
from envs.errors import UserError
from firmware_bridge.boards import BOARDS, start_board
from firmware_bridge.client import BoardClient
from firmware_bridge.connection import Connection, Received
from firmware_bridge.links import SerialLink
from firmware_bridge.messages import TimeSync

GOAL_P99_MS = 3.0  # of a round trip, host board, idle machine
GOAL_FRAMES = 2000.0  # frames a second, sustained, none lost
BLOCKS = 10  # alternating blocks of reference and board
WINDOW = 24  # frames under way: 24 × 69 bytes fit a pty's buffer of 4 kB
SLOWER = 10  # an emulated board is sent so many times fewer frames
QUIET_S = 2.0  # s without a reply after which frames are lost
SAY_S = 0.02  # s, longest wait of one read

ECHO = """
import os, pty, sys, tty
master, slave = pty.openpty()
tty.setraw(slave)
print(os.ttyname(slave), flush=True)
while True:
    data = os.read(master, 65536)
    while data:
        data = data[os.write(master, data):]
"""


@contextmanager
def echo() -> Iterator[SerialLink]:
    """A pty whose other end is a process that sends back what it gets."""
    process = subprocess.Popen([sys.executable, "-c", ECHO], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        link = SerialLink(process.stdout.readline().strip())
        yield link
        link.close()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def frame(connection: Connection) -> bytes:
    """A TIME_SYNC: 66 bytes, 69 on the wire; a board answers with as many."""
    return connection.send(TimeSync(0, 1 << 40, 1 << 40, 1 << 40, 1 << 40))


def trips(once: Callable[[], object], n: int) -> list[float]:
    """Milliseconds of each of n round trips."""
    times = []
    for _ in range(n):
        start = time.perf_counter_ns()
        once()
        times.append((time.perf_counter_ns() - start) * 1e-6)
    return times


def echo_once(link: SerialLink, data: bytes) -> None:
    """One round trip over the echo."""
    link.write(data)
    left = len(data)
    while left > 0:
        left -= len(link.read(1.0))


def pump(send: Callable[[], None], receive: Callable[[], int], n: int) -> dict[str, float]:
    """n frames, `WINDOW` of them under way: frames a second, and how many were lost."""
    sent = answered = 0
    start = last = time.monotonic()
    while answered < n and time.monotonic() - last < QUIET_S:
        while sent < n and sent - answered < WINDOW:
            send()
            sent += 1
        if more := receive():
            answered, last = answered + more, time.monotonic()
    return {"frames": n, "lost": n - answered, "frames_per_s": answered / (last - start), "seconds": last - start}


def pump_board(client: BoardClient, n: int) -> dict[str, float]:
    """Frames a second of a board; a reply counts once, when it answers a frame of ours."""
    waiting: set[int] = set()

    def send() -> None:
        client.link.write(frame(client.connection))
        waiting.add(client.connection.sequence)

    def receive() -> int:
        before = len(waiting)
        for event in client.connection.receive(client.link.read(SAY_S)):
            if isinstance(event, Received) and isinstance(event.message, TimeSync):
                waiting.discard(event.message.of_sequence)
        return before - len(waiting)

    return pump(send, receive, n)


def pump_echo(link: SerialLink, data: bytes, n: int) -> dict[str, float]:
    """Frames a second of the echo."""
    held = 0

    def receive() -> int:
        nonlocal held
        held += len(link.read(SAY_S))
        whole, held = divmod(held, len(data))
        return whole

    return pump(lambda: link.write(data), receive, n)


def quantiles(times: list[float]) -> dict[str, Any]:
    """Of round trips (ms)."""
    p50, p99 = np.percentile(times, (50, 99))
    return {"p50_ms": float(p50), "p99_ms": float(p99), "max_ms": max(times), "n": len(times)}


def measure_board(kind: str, n: int, frames: int) -> dict[str, Any]:
    """Round trips and frames a second of a board, and of the echo beside it."""
    with echo() as reference, start_board(kind, realtime=True) as board, BoardClient(SerialLink(board.port)) as client:
        client.hello()
        data = frame(Connection())
        load = os.getloadavg()[0]
        ours: list[float] = []
        echoed: list[float] = []
        for _ in range(BLOCKS):
            echoed += trips(lambda: echo_once(reference, data), n // BLOCKS)
            ours += trips(client.time_sync, n // BLOCKS)
        bare, flow = pump_echo(reference, data, frames), pump_board(client, frames)
        damaged = sum(client.connection.ignored.values())
        status = client.status()
    curve = [float(value) for value in np.percentile(ours, np.linspace(0, 100, 201))]
    echo_curve = [float(value) for value in np.percentile(echoed, np.linspace(0, 100, 201))]
    trip, bare_trip = quantiles(ours), quantiles(echoed)
    return {
        "kind": kind,
        "load": load,
        "wire_bytes": len(data),
        "round_trip": trip,
        "flow": {**flow, "ignored_by_host": damaged, "bad_on_board": status.frames_bad},
        "reference": {"round_trip": bare_trip, "flow": bare},
        "ratio_p50": trip["p50_ms"] / bare_trip["p50_ms"],
        "curves": {"board": curve, "echo": echo_curve},
    }


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    rows = [
        "| board | load | round trip p50 (ms) | p99 (ms) | echo beside it: p50, p99 (ms) | frames/s | lost | echo |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in result["boards"]:
        trip, bare, flow = r["round_trip"], r["reference"]["round_trip"], r["flow"]
        cells = (
            r["kind"],
            f"{r['load']:.1f}",
            f"{trip['p50_ms']:.2f}",
            f"{trip['p99_ms']:.2f}",
            f"{bare['p50_ms']:.2f}, {bare['p99_ms']:.2f}",
            f"{flow['frames_per_s']:,.0f}",
            f"{flow['lost']} of {flow['frames']:,}",
            f"{r['reference']['flow']['frames_per_s']:,.0f}",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def measure(kinds: list[str], n: int, frames: int) -> dict[str, Any]:
    """All boards, one after another; one that cannot be started is named."""
    boards, absent = [], {}
    for kind in kinds:
        try:
            boards.append(measure_board(kind, n, frames if kind == "host" else frames // SLOWER))
        except UserError as error:
            if kind == "host":
                raise
            absent[kind] = str(error)
            print(f"{kind}: {error}", flush=True)
            continue
        print(f"{kind} done", flush=True)
    return {
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "load": os.getloadavg()[0]},
        "date": datetime.now(UTC).date().isoformat(),
        "goals": {"p99_ms": GOAL_P99_MS, "frames_per_s": GOAL_FRAMES},
        "window": WINDOW,
        "boards": boards,
        "absent": absent,
        "command": "python -m benchmarks.link",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/bench"), help="folder of link.json, link.md, link.png")
    parser.add_argument("--boards", default=",".join(BOARDS), help="which, separated by commas")
    parser.add_argument("--trips", type=int, default=3000, help="round trips of each")
    parser.add_argument("--frames", type=int, default=20_000, help="frames sent without a pause to each")
    options = parser.parse_args()
    result = measure(options.boards.split(","), options.trips, options.frames)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "link.json").write_text(json.dumps(result, indent=2) + "\n")
    (options.out / "link.md").write_text(table(result))
    (options.out / "link.png").write_bytes(draw(result))
    print(table(result) + f"written to {options.out}")


if __name__ == "__main__":
    main()
