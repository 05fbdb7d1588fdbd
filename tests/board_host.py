"""A host that a test can kill: ``python tests/board_host.py PORT [ELECTRODE]`` stimulates until it dies.

With ELECTRODE it steps the board's clock, else the clock runs freely. It prints a line at each renewal.
"""

from __future__ import annotations

import sys
import time

from firmware_bridge.bench import Bench
from firmware_bridge.client import BoardClient
from firmware_bridge.links import SerialLink
from firmware_bridge.messages import Ack


def main(port: str, electrode: str | None = None) -> None:
    bench = Bench(electrode) if electrode else None
    client = BoardClient(SerialLink(port))
    client.hello()
    client.arm()
    decision, start = 0, 0
    while True:
        decision += 1
        reply = client.set_stim(decision, start, 20_000, [1] * 50, 3000, 60)
        assert isinstance(reply, Ack), reply
        for k in range(10):
            if bench:
                bench.advance(reply.start_us + (k + 1) * 100_000)
            else:
                time.sleep(0.1)
            if isinstance(client.renew(decision), Ack):
                sys.stdout.write("renewed\n")
                sys.stdout.flush()
        start = reply.start_us + 50 * 20_000


if __name__ == "__main__":
    main(*sys.argv[1:])
