"""The owner of a board that a test can kill: ``python tests/board_parent.py LOG`` prints the board's pid and port."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from firmware_bridge.bench import Bench
from firmware_bridge.board import HostBoard
from firmware_bridge.client import BoardClient
from firmware_bridge.links import SerialLink


def main(log: str) -> None:
    with HostBoard(electrode_log=Path(log)) as board:
        bench = Bench(board.electrode)
        client = BoardClient(SerialLink(board.port))
        client.hello()
        client.arm()
        client.set_stim(1, 0, 20_000, [1] * 50, 3000, 60)
        bench.advance(100_000)
        sys.stdout.write(f"{board.process.pid}\n")
        sys.stdout.flush()
        time.sleep(60)


if __name__ == "__main__":
    main(sys.argv[1])
