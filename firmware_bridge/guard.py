"""Keeps a process only as long as whoever started it lives: ``python -I -S guard.py COMMAND...``.

Standard input is a pipe whose other end the starter holds. When that closes (it ends, or is killed) the child is ended;
when this guard itself is killed, the kernel kills the child (Linux). So no emulator is ever left behind. It imports
nothing of ours: it must start quickly and know nothing that can break.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PATIENCE_S = 2.0  # for an orderly end


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main(command: list[str]) -> int:
    """Run the command until it ends or standard input closes; its exit code."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # only to be woken
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent)
    while child.poll() is None:
        readable = select.select([0, read_end], [], [])[0]
        if 0 in readable and not os.read(0, 4096):
            child.terminate()
            try:
                child.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                child.kill()
        if read_end in readable:
            os.read(read_end, 4096)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
