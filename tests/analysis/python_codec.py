"""The Python codec under atheris, libFuzzer for Python: ``python -m tests.analysis.python_codec RUNS SEED``.

Whatever bytes come, the decoder raises nothing, in pieces it says what it says of the whole, what it accepts encodes to
the same bytes, and the C decoder accepts the same. On a system for which atheris has no wheel, the properties in
tests/test_board_codec.py and tests/test_board_agreement.py (hypothesis) stand alone, and `fuzz` says so.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
import subprocess
import sys
import zlib
from pathlib import Path

from firmware_bridge.codec import Decoder, Frame, cobs_encode, encode
from firmware_bridge.layout import BODY_MAX, TYPES
from firmware_bridge.messages import SCHEMA_SEED
from tests.board_tools import harness


def close(body: bytes) -> bytes:
    """A body with a right CRC, stuffed."""
    row = TYPES.get(body[1]) if len(body) > 1 else None
    seed = 0 if row is not None and row.frozen else SCHEMA_SEED
    return cobs_encode(body + zlib.crc32(body, seed).to_bytes(4, "little"))


def check(data: bytes) -> None:
    """One input: an even first byte, then the wire's bytes; an odd one, then a body that gets its CRC."""
    stream = data[1:] + b"\0" if data[:1] < b"\1" or not data[0] & 1 else close(data[1 : BODY_MAX - 3]) + b"\0"
    events = Decoder().feed(stream)
    pieces = Decoder()
    assert [event for i in range(0, len(stream), 7) for event in pieces.feed(stream[i : i + 7])] == events
    frames = [event for event in events if isinstance(event, Frame)]
    for frame in frames:
        if frame.message is not None and frame.proof is None and frame.version == 1:
            again = encode(frame.message, sequence=frame.sequence, session=frame.session, time_us=frame.time_us)
            assert again in b"\0" + stream, "encode(decode(x)) is not x"
    said = ctypes.create_string_buffer(len(stream) + 1)
    count = harness().harness_decode(stream, len(stream), said)
    unsigned = sum(frame.proof is None for frame in frames)
    assert list(said.raw[:count]).count(1) == unsigned, "C and Python accept different frames"


def fuzz(runs: int, seed: int) -> tuple[str, list[str]]:
    """Run it in a process of its own; a line for people, and findings."""
    if importlib.util.find_spec("atheris") is None:
        return "atheris has no wheel for this system, not run", []
    harness()  # compiled before it is timed
    command = [sys.executable, "-m", "tests.analysis.python_codec", f"-runs={runs}", f"-seed={seed}", "-max_len=300"]
    done = subprocess.run(
        [*command, "-artifact_prefix=out/fuzz/codec-"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    executed = re.findall(r"Done (\d+) (?:runs )?in (\d+) second", done.stderr) or re.findall(
        r"#(\d+)\t()", done.stderr
    )
    line = f"{executed[-1][0] if executed else 0} executions by atheris"
    if done.returncode == 0:
        return f"{line}, no finding", []
    return line, [f"the Python codec, see out/fuzz/codec-*: {done.stderr.strip().splitlines()[-1]}"]


def main() -> None:
    """The fuzzer's own process."""
    import atheris

    for function in (Decoder.feed, Decoder._take, cobs_encode):
        atheris.instrument_func(function)
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
