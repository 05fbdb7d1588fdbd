"""``python -m firmware_bridge.stimulators.emulate stimjim|pulsepal``: an emulated stimulator on a pty.

Prints its port, then its electrode channel, and serves until Ctrl-C.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from envs.errors import UserError
from firmware_bridge.signals import interruptible
from firmware_bridge.stimulators.emulated_pulsepal import EmulatedPulsePal
from firmware_bridge.stimulators.emulated_stimjim import EmulatedStimJim
from firmware_bridge.stimulators.emulator import MISBEHAVIOURS, Device, Emulator, registered


def main(argv: Sequence[str] | None = None) -> int:
    """The process; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m firmware_bridge.stimulators.emulate", description=__doc__)
    parser.add_argument("kind", choices=("stimjim", "pulsepal"))
    parser.add_argument("--electrode-log", type=Path, metavar="FILE", help="one JSON line for each pulse given")
    parser.add_argument("--isolator-uA", type=int, default=1800, help="current set by hand on the Pulse Pal's isolator")
    parser.add_argument("--misbehave", choices=MISBEHAVIOURS, help="go wrong in this way")
    parser.add_argument("--after", type=int, default=0, metavar="N", help="but only after N commands")
    parser.add_argument("--with-parent", action="store_true", help="end when standard input is closed")
    args = parser.parse_args(argv)
    parent = sys.stdin.fileno() if args.with_parent else None
    device: Device = EmulatedStimJim() if args.kind == "stimjim" else EmulatedPulsePal(args.isolator_uA)
    try:
        emulator = Emulator(device, args.kind, args.electrode_log, args.misbehave, args.after, parent)
        with suppress(KeyboardInterrupt), interruptible(), registered(emulator):
            sys.stdout.write(f"{emulator.port}\nelectrode {emulator.electrode}\n")
            sys.stdout.flush()
            emulator.run()
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
    sys.exit(main())
