"""Builds and writes the NWB file of a session; docs/recording.md says where everything is."""

from __future__ import annotations

import io
from typing import Any, BinaryIO

import h5py
import numpy as np
from hdmf.common import DynamicTable, VectorData
from pynwb import NWBHDF5IO, NWBFile, TimeSeries
from pynwb.epoch import TimeIntervals
from pynwb.event import EventsTable, TimestampVectorData

from firmware_bridge.archive.device import add_stimulator, observed, subject
from firmware_bridge.archive.source import Row, Source
from firmware_bridge.archive.tables import columns, meaning, table, unpacked

P_BETA_UNIT = "spikes^2/s^2"
AXIS = "Seconds on the plant's clock (simulated), shifted so that none is negative."
DRAWN = ("session", "decisions", "pulses", "events")  # tables with a form of their own; all others go as they are
GRID_MAX = 1 << 26  # windows of P_beta: two weeks of one each 20 ms
UNSHARED = {"chain": ("place",)}  # folders of the machine that ran the session


def build(source: Source) -> NWBFile:
    """The whole file in memory.

    Raises:
        KeyError, TypeError, ValueError: a row is not what its table says.
    """
    session = source.data.session
    kind = "SIMULATED subject" if source.foreign is None else "subject that is NOT KNOWN, in open loop"
    ended = session["outcome"] or "no end was recorded: its host died, or it was archived while it ran"
    nwbfile = NWBFile(
        session_description=f"Closed-loop deep brain stimulation of a {kind} ({session['mode']}).",
        identifier=source.digest,
        session_start_time=source.started(),
        timestamps_reference_time=source.zero_time(),
        session_id=f"{session['preset']}-{session['seed']}-{source.digest[:8]}",
        experiment_description=f"Controller '{session['controller']}' on {session['board']}, {session['clock']}: "
        f"{len(source.data.done)} of {session['steps']} decisions. Ended: {ended}.",
        keywords=["deep brain stimulation", "adaptive", "closed loop", "simulation", "basal ganglia"],
        related_publications=["doi:10.1007/s10827-016-0593-9"],
        notes=f"{observed(source)} {AXIS} Device time (µs) = {source.offset_us} + plant time (µs); the plant's 0, the "
        f"end of its reset, is {source.simulated_s:.6f} s here. sea-dbs {session['sea_dbs_version']}. "
        "Research use only.",
        stimulus_notes="Pulses as seen on the electrode channel, in intervals/pulses; what was ordered and why, in "
        "intervals/decisions.",
        subject=subject(source),
    )
    add_stimulator(nwbfile, source)
    _add_beta(nwbfile, source)
    _add_decisions(nwbfile, source)
    _add_pulses(nwbfile, source)
    _add_events(nwbfile, source)
    _add_provenance(nwbfile, source)
    return nwbfile


def save(nwbfile: NWBFile, stream: BinaryIO) -> None:
    """Write the file to a stream."""
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file, NWBHDF5IO(file=file, mode="w") as out:
        out.write(nwbfile)
    stream.write(memory.getbuffer())


def _add_beta(nwbfile: NWBFile, source: Source) -> None:
    """P_beta of every observed window, on a regular grid; a window that nobody observed is NaN."""
    if not source.data.decisions:
        return
    times, values = source.data.beta_trace()
    if not len(times):
        return
    stride_s = source.data.beta_step_s
    place = np.rint((times - times[0]) / stride_s).astype(np.int64)
    if place[-1] > GRID_MAX:
        raise ValueError(f"its decisions span {times[-1] - times[0]:g} s")
    grid = np.full(int(place[-1]) + 1, np.nan)
    grid[place] = values
    nwbfile.add_acquisition(
        TimeSeries(
            name="P_beta",
            description="Beta-band power (13-35 Hz) of the GPi spike trains in sliding windows, as the controller "
            "observed it; a sample stands at its window's end."
            if source.data.observes_beta
            else "Beta-band power (13-35 Hz) of the GPi spike trains in the newest window at the end of each decision; "
            "the controller observed something else.",
            data=grid,
            unit=P_BETA_UNIT,
            starting_time=float(times[0]) + source.simulated_s,
            rate=1.0 / stride_s,
        )
    )


def _add_decisions(nwbfile: NWBFile, source: Source) -> None:
    rows, session = source.data.decisions, source.data.session
    if not rows:
        return
    starts = [source.seconds(row["start_us"]) for row in rows]
    stops = [source.seconds(row["start_us"] + row["slot_period_us"] * session["slots"]) for row in rows]
    nwbfile.add_time_intervals(
        table(
            TimeIntervals,
            "decisions",
            "One row a decision: what was observed, what was decided, what the board made of it and why, and what came "
            "of it. From its slot 0 to the end of its last slot.",
            rows,
            source.comments["decisions"],
            first=_interval(starts, stops),
            shapes={"observation": (session["n_obs"],), "logits": (session["slots"], 2)},
        )
    )


def _add_pulses(nwbfile: NWBFile, source: Source) -> None:
    rows = source.data.pulses
    if not rows:
        return
    starts = [source.seconds(row["device_us"]) for row in rows]
    stops = [source.seconds(row["device_us"] + row["width_us"] + row["second_width_us"]) for row in rows]
    nwbfile.add_time_intervals(
        table(
            TimeIntervals,
            "pulses",
            "Every pulse that came on the electrode channel, whatever was ordered: start and end of its two phases, "
            "amplitude and width of each, and the charge that was left.",
            rows,
            source.comments["pulses"],
            first=_interval(starts, stops),
        )
    )


def _interval(starts: list[float], stops: list[float]) -> list[VectorData]:
    return [
        VectorData(name="start_time", description="Start (s).", data=starts),
        VectorData(name="stop_time", description="End (s).", data=stops),
    ]


def _add_events(nwbfile: NWBFile, source: Source) -> None:
    rows = sorted(source.data.events, key=lambda row: row["device_us"])
    if not rows:
        return
    when = [source.seconds(row["device_us"]) for row in rows]
    stamp = TimestampVectorData(name="timestamp", description="When (s).", data=when)
    nwbfile.add_events_table(
        table(
            EventsTable,
            "session_events",
            "Handshakes, states of the board with their causes, faults, refusals, clamps, renewals, late orders, STOP.",
            rows,
            source.comments["events"],
            first=[stamp],
        )
    )


def _add_provenance(nwbfile: NWBFile, source: Source) -> None:
    """What ran, every hash, the chain, and any table that has no form of its own."""
    module = nwbfile.create_processing_module(
        name="provenance", description="What ran: the session's row, every hash, the chain of hashes, the clocks."
    )
    session, comments = source.data.session, source.comments["session"]
    facts = [
        {"item": item, "value": value, "meaning": meaning(name, comments)}
        for name, whole in session.items()
        if whole is not None and not isinstance(whole, bytes)
        for item, value in unpacked(name, whole)
    ]
    _as_it_is(module, "session", "The recording's table session, one row an item.", facts, {})
    hashes: list[Row] = [{"of": name, "sha256": str(value)} for name, value in sorted(source.data.hashes.items())]
    hashes.append({"of": "recording", "sha256": source.digest})
    _as_it_is(module, "hashes", "SHA-256 of what ran, and of all rows of the recording.", hashes, {})
    for name, rows in source.tables.items():
        if name not in DRAWN and rows:
            said = f"The recording's table {name}, as it is."
            _as_it_is(module, name, said, rows, source.comments[name], skip=UNSHARED.get(name, ()))


def _as_it_is(module: Any, name: str, said: str, rows: list[Row], comments: dict[str, str], **options: Any) -> None:
    cols = columns(rows, comments, **options)
    if cols:
        names = [column.name for column in cols]
        module.add(DynamicTable(name=name, description=said, columns=cols, colnames=names))
