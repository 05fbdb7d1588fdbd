"""A session over a stimulator in the board's place. Bench mode: an emulator says which pulses it gave."""

from __future__ import annotations

import sys
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

from envs.errors import UserError
from envs.registration import base_env
from firmware_bridge.bench import Bench
from firmware_bridge.electrode import Electrode
from firmware_bridge.plan import Parts, SessionPlan, prepare
from firmware_bridge.recorder import SESSION_FILE, Recorder
from firmware_bridge.session import SUMMARY, StopAtEnd, _session_row, closed_loop, finish, has_lfp
from firmware_bridge.signals import interruptible
from firmware_bridge.stimulators.client import StimulatorClient
from firmware_bridge.stimulators.driver import HostTimed
from firmware_bridge.stimulators.emulator import find_emulator
from firmware_bridge.stimulators.interface import WARNING
from firmware_bridge.stimulators.pacing import PromptLink
from firmware_bridge.stimulators.pulsepal import WIDTH_US, PulsePal
from firmware_bridge.stimulators.stimjim import StimJim
from firmware_bridge.streams import LslStreams
from sea_dbs.files import prepare_output_dir, write_json

KINDS = ("stimjim", "pulsepal")


def run_stimulator_session(plan: SessionPlan, stimulator: str, width_us: int | None = None) -> dict[str, Any]:
    """Run a session into ``plan.out`` over ``stimjim:PORT`` or ``pulsepal:PORT`` and return the summary.

    The device keeps real time, so the session does. ``width_us`` replaces the width of each phase (the policy's own,
    else 60 µs; on a Pulse Pal 100 µs, the only one it can give), at the same charge a phase: the amplitude follows.

    Raises:
        UserError: bad input, no emulator at that port, a pulse that the device cannot give, or what ended the session.
    """
    kind, _, port = stimulator.partition(":")
    if kind not in KINDS or not port:
        raise UserError(f"--stimulator is '{stimulator}': it must be stimjim:PORT or pulsepal:PORT")
    if plan.port is not None or plan.electrode is not None:
        raise UserError("--stimulator replaces --port and --electrode: give one or the other")
    if plan.board is not None or plan.decide_on != "host" or plan.source != "plant":
        raise UserError(
            "--stimulator stands in a board's place, the host decides, on the plant: no --board, no --source"
        )
    electrode = find_emulator(kind, port)
    plan = replace(plan, realtime=True)
    parts = _parts(plan, kind, width_us)
    with ExitStack() as stack:
        bench = stack.enter_context(Bench(electrode, stepped=False))
        client = StimulatorClient(_driver(kind, port, parts))
        stack.enter_context(client)
        return _run(plan, parts, client, bench, kind, stack)


def _parts(plan: SessionPlan, kind: str, width_us: int | None) -> Parts:
    parts = prepare(plan)
    if width_us is None and kind == "pulsepal" and plan.policy is None:
        width_us = WIDTH_US  # no policy says otherwise
    if width_us is None or width_us == parts.width_us:
        return parts
    if width_us < 1:
        raise UserError(f"--width-us is {width_us}: at least 1")
    return replace(parts, width_us=width_us, amplitude_uA=round(parts.amplitude_uA * parts.width_us / width_us))


def _driver(kind: str, port: str, parts: Parts) -> HostTimed:
    link = PromptLink(port)
    try:
        if kind == "stimjim":
            return StimJim(link, bench=True)
        if parts.width_us != WIDTH_US:
            raise UserError(
                f"a Pulse Pal cannot give phases of {parts.width_us} µs: of 60 to 120 µs only {WIDTH_US} µs "
                f"lies on its grid of 50 µs; pass --width-us {WIDTH_US} if the policy's pulse may be replaced"
            )
        return PulsePal(link, bench=True, isolator_uA=parts.amplitude_uA)
    except BaseException:
        link.close()
        raise


def _run(
    plan: SessionPlan, parts: Parts, client: StimulatorClient, bench: Bench, kind: str, stack: ExitStack
) -> dict[str, Any]:
    ack = client.hello(parts.model_hash)
    prepare_output_dir(plan.out, overwrite=plan.overwrite, inputs=plan.inputs)
    row = _session_row(plan, parts, ack, f"emulated {client.driver.capabilities.device}")
    row["mode"] = WARNING
    recorder = stack.enter_context(Recorder(plan.out / SESSION_FILE, row))
    if plan.lsl:
        recorder.listeners.append(
            stack.enter_context(LslStreams(row, base_env(parts.env).config.stride_ms, lfp=has_lfp(parts)))
        )
    recorder.chain(parts.chain, ack.firmware_build, f"{client.identity}: no image of ours", plan.policy)
    electrode = Electrode(
        client,
        bench,
        recorder,
        slot_us=parts.slot_us,
        amplitude_uA=parts.amplitude_uA,
        width_us=parts.width_us,
        latency_us=parts.latency_us,
        slots=base_env(parts.env).config.slots,
        permit=parts.permit,
    )
    recorder.event(bench.now_us, "handshake", client.identity)
    if not plan.quiet:
        sys.stderr.write(red(f"{WARNING}\n"))
    try:
        with interruptible(), StopAtEnd(electrode, recorder):
            closed_loop(parts, electrode, recorder, replace(plan, prelude=False))  # these devices have no ramp
    except (UserError, KeyboardInterrupt):
        with suppress(UserError):  # what ended the session is the sentence that counts
            recorder.flush()
            _finish(plan, client, kind)
        raise
    return _finish(plan, client, kind)


def _finish(plan: SessionPlan, client: StimulatorClient, kind: str) -> dict[str, Any]:
    """The board session's files, and in the summary what the host, alone, has to answer for."""
    summary = finish(plan.out)
    capabilities = client.driver.capabilities
    summary["stimulator"] = {
        "kind": kind,
        "device": capabilities.device,
        "identity": client.identity,
        "device_envelope": capabilities.device_envelope,
        "warning": WARNING,
        "amplitude_set_by": "the driver" if capabilities.sets_amplitude else "hand, on the isolator that it triggers",
        **client.driver.counters._asdict(),
    }
    write_json(plan.out / SUMMARY, summary)
    return summary


def red(text: str) -> str:
    """For a terminal; plain where stderr is none."""
    return f"\x1b[1;31m{text}\x1b[0m" if sys.stderr.isatty() else text
