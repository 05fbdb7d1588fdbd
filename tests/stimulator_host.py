"""A host that stimulates and renews until it is killed: python stimulator_host.py KIND PORT."""

from __future__ import annotations

import sys
import time

from tests.stimulator_tools import PULSE, driving

if __name__ == "__main__":
    kind, port = sys.argv[1:]
    with driving(kind, port) as driver:
        driver.order(1, 0, 20_000, [1] * 256, *PULSE[kind], 300)
        while True:
            time.sleep(0.05)
            driver.renew(1)
