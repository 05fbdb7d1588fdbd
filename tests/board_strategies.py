"""Random messages and random byte streams for the board's property tests."""

from __future__ import annotations

from hypothesis import strategies as st

from firmware_bridge.codec import encode
from firmware_bridge.layout import TYPES, Wire


def _values(wire: Wire) -> st.SearchStrategy[int | bytes]:
    if wire.is_tail:
        return st.binary(max_size=wire.size)
    if wire.format.endswith("s"):
        return st.binary(min_size=wire.size, max_size=wire.size)
    bits = 8 * wire.size
    return (
        st.integers(0, 2**bits - 1)
        if wire.type.startswith("u")
        else st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    )


MESSAGES = st.sampled_from(sorted(TYPES)).flatmap(
    lambda type_id: st.tuples(*[_values(wire) for wire in TYPES[type_id].fields.values()]).map(
        lambda values: TYPES[type_id].cls(*values)
    )
)
U32 = st.integers(0, 2**32 - 1)


STREAMS = st.lists(
    st.one_of(
        MESSAGES.map(lambda message: encode(message, sequence=7, session=9)),
        st.binary(max_size=40),
        st.binary(min_size=250, max_size=600),
        MESSAGES.map(lambda message: encode(message, sequence=7, session=9)[3:]),
    ),
    max_size=6,
).map(b"".join)
