"""The stimulator in the words of ndx-dbs 0.1.0: device, electrode, setting, and the simulated subject."""

from __future__ import annotations

from ndx_dbs import DBSDevice, DBSElectrodes, DBSGroup, DBSMeta, DBSSubject
from pynwb import NWBFile
from pynwb.file import Subject

from firmware_bridge.archive.source import Source
from firmware_bridge.limits import LIMITS

SIMULATED = (
    "SIMULATED: no living subject. A network model of the basal ganglia of the 6-OHDA lesioned rat (Kumaravelu et al., "
    "2016, doi:10.1007/s10827-016-0593-9). A simulation has no age and no sex; the file format asks for both."
)


def observed(source: Source) -> str:
    """Who was observed and stimulated: nobody, by all that a recording can say."""
    if source.foreign is None:
        return SIMULATED
    return (
        "NOT KNOWN to this recording, and not stimulated by it: the electrode was simulated, the observations were "
        f"read from {source.foreign}. Species, sex and age are placeholders that the file format asks for."
    )


def subject(source: Source) -> Subject:
    """Who was stimulated: nobody; the plant's seed says which simulation."""
    return Subject(
        subject_id=f"simulated-seed-{source.data.session['seed']}" if source.foreign is None else "not-known",
        species="Rattus norvegicus",
        sex="U",
        age="P0D/",
        age__reference="birth",
        description=observed(source),
    )


def add_stimulator(nwbfile: NWBFile, source: Source) -> None:
    """The DBS device, its electrode, and what was set. What each pulse was stands in the pulses' table."""
    session = source.data.session
    hashes = source.data.hashes
    plant = nwbfile.create_device(
        name="plant",
        description=f"Simulated basal ganglia, preset {session['preset']}, seed {session['seed']}; P_beta is observed."
        if source.foreign is None
        else f"No plant was driven: {source.foreign}",
    )
    lockstep = session["clock"] == "lockstep"
    device = DBSDevice(
        name="stimulator",
        description=f"{session['board']}; firmware {hashes.get('firmware', 'not known')}; {session['mode']}",
        model=nwbfile.create_device_model(
            name="sea-dbs board",
            manufacturer="sea-dbs",
            description="The stimulator core of sea-dbs; limits, lease and charge balance are enforced on it.",
        ),
        synchronization="lockstep: plant and board advance together, their clocks differ by a constant"
        if lockstep
        else "real time: the plant follows the board's clock; the table clock compares it with the host's",
        electrodes_group=_electrode(),
        endpoint_recording_device=plant,
    )
    nwbfile.add_device(device)
    meta = DBSMeta(name="DBS_meta", **_setting(source))
    dbs_subject = DBSSubject(
        name="DBS_subject",
        model="simulated 6-OHDA lesioned rat (Kumaravelu et al., 2016)" if source.foreign is None else "not known",
        controls="none",
        comment=observed(source),
    )
    nwbfile.add_lab_meta_data(meta)
    nwbfile.add_lab_meta_data(dbs_subject)
    nwbfile.add_lab_meta_data(
        DBSGroup(
            name="DBS",
            DBS_phase="closed loop",
            comment="One row a decision in intervals/decisions, one row a pulse in intervals/pulses.",
            DBS_device=device,
            DBS_meta=meta,
            DBS_subject=dbs_subject,
        )
    )


def _electrode() -> DBSElectrodes:
    table = DBSElectrodes(description="The simulated electrode that the stimulator drives, against its case.")
    area = LIMITS["ELECTRODE_AREA"].value * 1e-6
    table.add_row(
        el_id="electrode",
        polarity="neg",
        impedance="not measured",
        length="not modelled",
        tip=f"{area:g} cm2",
        material="not modelled",
        location="subthalamic nucleus (simulated)",
        comment="First phase cathodic; the area is that of the compiled charge limits.",
    )
    return table


def _setting(source: Source) -> dict[str, str]:
    session, pulses = source.data.session, source.data.pulses
    seconds = len(source.data.done) * source.data.decision_s
    mean = f"; on average {len(pulses) / seconds:.1f} Hz" if seconds else ""
    largest = max((abs(row["residual_pC"]) for row in pulses), default=0)
    return {
        "stim_state": "ON" if pulses else "OFF",
        "stim_type": "monopolar, adaptive: each decision is a mask of slots",
        "stim_area": "subthalamic nucleus (simulated)",
        "stim_coordinates": "none: a network model has no place",
        "pulse_shape": "rectangular, biphasic, cathodic first",
        "pulse_width": f"{session['width_us']} us a phase",
        "pulse_frequency": f"0 to {1e6 / session['slot_us']:g} Hz, by the mask{mean}",
        "pulse_intensity": f"{session['amplitude_uA'] / 1000:g} mA",
        "charge_balance": f"both phases carry the same charge; largest residual {largest} pC",
    }
