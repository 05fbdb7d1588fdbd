"""A session: plant, controller and board in a closed loop, every decision recorded with its reason.

The one rollout loop (`sea_dbs.rollout`) runs it; the board is its controller and its source of pulses. However it ends,
STOP is sent. Bench mode: only a simulated electrode can be driven. Research use only.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from envs.errors import UserError
from envs.registration import base_env
from firmware_bridge.bench import Bench
from firmware_bridge.board import find_board
from firmware_bridge.boards import Board, start_board
from firmware_bridge.client import BoardClient
from firmware_bridge.codes import Feature
from firmware_bridge.deciding import DecidingBoard
from firmware_bridge.electrode import LEASE_MS, Electrode, shake_hands
from firmware_bridge.integer_policy import IntegerPolicy
from firmware_bridge.links import SerialLink
from firmware_bridge.messages import HelloAck
from firmware_bridge.named_images import check_own, which_image
from firmware_bridge.plan import Parts, SessionPlan, emulated, prepare
from firmware_bridge.policy import BoardPolicy
from firmware_bridge.recorder import SESSION_FILE, Outcome, Recorder, blob
from firmware_bridge.security.keys import read_key
from firmware_bridge.shadow import Shadowed
from firmware_bridge.signals import deaf, interruptible
from firmware_bridge.sources import NO_PLANT, source_of
from firmware_bridge.streams import LslStreams
from firmware_bridge.summary import summarise
from sea_dbs.files import atomic_write_bytes, prepare_output_dir, write_json
from sea_dbs.manifest import machine
from sea_dbs.progress import progress
from sea_dbs.report.session_data import read_session
from sea_dbs.report.session_figure import draw
from sea_dbs.rollout import begin, rollout

SUMMARY = "summary.json"
PICTURE = "session.png"


def run_session(plan: SessionPlan) -> dict[str, Any]:
    """Run a session into ``plan.out`` (session.sqlite, summary.json, session.png) and return the summary.

    Raises:
        UserError: bad input, or what ended the session; STOP was sent, and what was recorded stays readable.
    """
    if emulated(plan):
        plan = replace(plan, realtime=True)
    return run_parts(plan, prepare(plan))


def run_parts(plan: SessionPlan, parts: Parts) -> dict[str, Any]:
    """`run_session` with parts that the caller has prepared: another environment or controller.

    Raises:
        UserError: as `run_session`.
    """
    with ExitStack() as stack:
        stack.callback(parts.env.close)
        port, electrode_path, kind = _board(plan, parts, stack)
        bench = stack.enter_context(Bench(electrode_path, stepped=not plan.realtime))
        if not plan.realtime and not bench.stepped:
            raise UserError(f"the board at {port} keeps real time and cannot be stepped: pass --realtime")
        client = stack.enter_context(
            BoardClient(SerialLink(port), key=None if plan.key is None else read_key(plan.key))
        )
        permit = parts.permit
        ack = shake_hands(client, bench, permit.model_hash, shadow=permit.shadow)
        if plan.decide_on == "board" and not ack.features & Feature.DECIDES:
            raise UserError(
                f"the board at {port} holds no policy and cannot decide: start it with "
                f"'sea-dbs board KIND --policy {plan.policy}'"
            )
        image = which_image(plan.policy, parts.chain, kind, port, ack.firmware_build)
        prepare_output_dir(plan.out, overwrite=plan.overwrite, inputs=plan.inputs)
        path = plan.out / SESSION_FILE
        row = _session_row(plan, parts, ack, kind)
        recorder = stack.enter_context(Recorder(path, row))
        if plan.lsl:
            recorder.listeners.append(
                stack.enter_context(LslStreams(row, base_env(parts.env).config.stride_ms, lfp=has_lfp(parts)))
            )
        recorder.chain(parts.chain, ack.firmware_build, image, plan.policy)
        electrode = Electrode(
            client,
            bench,
            recorder,
            slot_us=parts.slot_us,
            amplitude_uA=parts.amplitude_uA,
            width_us=parts.width_us,
            latency_us=parts.latency_us,
            slots=base_env(parts.env).config.slots,
            permit=permit,
        )
        recorder.event(bench.now_us, "handshake", f"firmware {ack.firmware_build.hex()[:12]}")
        try:
            with interruptible(), StopAtEnd(electrode, recorder):
                closed_loop(parts, electrode, recorder, plan)
        except (UserError, KeyboardInterrupt):
            with suppress(UserError):  # what ended the session is the sentence that counts
                recorder.flush()
                finish(plan.out)
            raise
    return finish(plan.out)


def closed_loop(parts: Parts, electrode: Electrode, recorder: Recorder, plan: SessionPlan) -> None:
    """Reset the plant, arm the board, and run the decisions.

    Raises:
        UserError: from plant, controller, board or recorder; the caller stops the board.
    """
    base = base_env(parts.env)
    board = _controller(parts, electrode, recorder, plan)
    if plan.realtime:  # compile and load what a step needs, before a clock runs
        parts.env.reset(seed=plan.seed)
        parts.env.step(np.zeros(base.config.slots, np.int8))
    start = begin([parts.env], [plan.seed])
    board.init_state(1)
    base.pulse_source = electrode
    electrode.arm()
    if plan.prelude:
        electrode.prelude()
        if source_of(parts.env) is not None:  # a stream went on meanwhile
            start = begin([parts.env], [plan.seed])
    offset_us = electrode.synchronise()
    if (source := source_of(parts.env)) is not None:  # its clock is at 0 where its newest sample was taken
        recorder.event(offset_us, "source", f"{source.source.name}; {NO_PLANT}")
        offset_us = electrode.clock.offset_us = offset_us - source.age_us()
    if plan.lsl and has_lfp(parts):
        base.lfp_listener = lambda plant_us, values: recorder.lfp(plant_us + offset_us, values)
    elif plan.lsl and not plan.quiet:
        sys.stderr.write(f"no LSL outlet 'lfp': the source {plan.source} gives no LFP\n")
    recorder.set_session(offset_us=offset_us, P_beta_first=start.infos[0]["P_beta"])
    if not plan.quiet:
        sys.stderr.write(f"{parts.permit.mode}\n")
        if plan.policy is not None and plan.controller is not None:
            sys.stderr.write(f"{plan.controller} decides: of the policy {plan.policy} only plant and pulse are used\n")
    with progress("session", plan.steps, quiet=plan.quiet) as bar:
        for step in rollout([parts.env], board, plan.steps, start=start):
            info = step.infos[0]
            outcome = Outcome(
                P_beta=info["P_beta"],
                P_beta_last=info["P_beta_last"],
                reward=float(step.reward[0]),
                pulses=info["pulses"],
                charge_nC_cm2=info["charge_nC_cm2"],
            )
            recorder.outcome(step.step - 1, outcome)
            bar.update(1, _state_line(info, electrode))
    recorder.set_session(final_observation=blob(step.next_observation[0]))


def has_lfp(parts: Parts) -> bool:
    """Whether the source is a plant that gives the LFP; a file or a stream has none, nor has the kernel reference."""
    return source_of(parts.env) is None and base_env(parts.env).config.kernel == "fast"


def _controller(parts: Parts, electrode: Electrode, recorder: Recorder, plan: SessionPlan) -> BoardPolicy:
    """Who decides: the host, or the board."""
    config = base_env(parts.env).config
    if parts.shadow is not None:
        return Shadowed(
            parts.controller,
            parts.shadow,
            electrode,
            recorder,
            slots=config.slots,
            n_obs=config.n_seen,
            own=config.own_duties,
            new_samples=config.new_samples,
            on_board=plan.decide_on == "board",
            checked=parts.board_format == "int8",
        )
    if plan.decide_on == "host":
        return BoardPolicy(
            parts.controller,
            electrode,
            recorder,
            slots=config.slots,
            n_obs=config.n_seen,
            own=config.own_duties,
            new_samples=config.new_samples,
        )
    assert isinstance(parts.controller, IntegerPolicy)
    return DecidingBoard(
        parts.controller,
        electrode,
        recorder,
        slots=config.slots,
        n_obs=config.n_obs,
        new_samples=config.new_samples,
        checked=parts.board_format == "int8",
        released=parts.permit.release is not None,
    )


def _state_line(info: dict[str, Any], electrode: Electrode) -> str:
    """What stands beside the progress bar after a decision."""
    pulses = f"{info['pulses']} ({electrode.pulse_count})"
    line = f"P_beta {info['P_beta']:.0f}  pulses {pulses}  {electrode.state.name}"
    return f"{line}  deadline misses {electrode.orders.deadline_misses}" if electrode.orders.deadline_misses else line


class StopAtEnd:
    """Sends STOP when its block ends, however it ends, and writes down why."""

    def __init__(self, electrode: Electrode, recorder: Recorder) -> None:
        self.electrode, self.recorder = electrode, recorder

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with deaf():
            if error is None:
                self.electrode.stop()
                self._ended("finished")
                return
            why = str(error) or ("interrupted" if isinstance(error, KeyboardInterrupt) else type(error).__name__)
            try:
                self.electrode.client.stop()
            except UserError as failed:
                with suppress(UserError):
                    self._ended(f"{why}; STOP was not acknowledged")
                gone = "went away" in str(failed) and "went away" in why  # said once: the reason is the same
                more = "" if gone else f" either ({failed})"
                raise UserError(f"{why}; STOP was not acknowledged{more}") from error
            with suppress(UserError):  # a full disk or a lost electrode channel: the board is stopped all the same
                self.electrode.settle()
            with suppress(UserError):
                self._ended(why)

    def _ended(self, outcome: str) -> None:
        self.recorder.end(outcome, datetime.now(UTC).isoformat(timespec="milliseconds"))


def finish(out: Path) -> dict[str, Any]:
    """Write summary.json and the picture from what is recorded; the summary.

    Raises:
        UserError: the recording cannot be read, or the files cannot be written.
    """
    path = out / SESSION_FILE
    summary = summarise(path)
    write_json(out / SUMMARY, summary)
    try:
        picture = draw(read_session(path))
    except UserError as error:
        if "extra" not in str(error):
            raise
        sys.stderr.write(f"no picture: {error}\n")
        return summary
    atomic_write_bytes(out / PICTURE, picture)
    return summary


def _board(plan: SessionPlan, parts: Parts, stack: ExitStack) -> tuple[str, str, str]:
    """Port, electrode channel, kind."""
    if plan.port is None:
        if plan.electrode is not None:
            raise UserError("--electrode belongs to --port: a session that starts its own board knows its electrode")
        return _start(plan, parts, stack)
    if plan.electrode is not None:
        return plan.port, plan.electrode, "serial board"
    found = find_board(plan.port)
    return plan.port, found.electrode, f"{found.kind} board"


def _start(plan: SessionPlan, parts: Parts, stack: ExitStack) -> tuple[str, str, str]:
    """A board of the session's own."""
    kind = plan.board or "host"
    board: Board
    if parts.board_format is not None:
        board = start_board(
            kind, policy_dir=plan.policy, format=parts.board_format, realtime=plan.realtime, key_file=plan.key
        )
    elif kind == "host":
        board = start_board(kind, model_hash=parts.model_hash, realtime=plan.realtime, key_file=plan.key)
    else:
        board = start_board(kind, key_file=plan.key)
    stack.enter_context(board)
    check_own(board.image, parts.chain)
    return board.port, board.electrode, "host board of this session" if kind == "host" else kind


def _session_row(plan: SessionPlan, parts: Parts, ack: HelloAck, kind: str) -> dict[str, Any]:
    config = base_env(parts.env).config
    hashes = {
        **parts.hashes,
        "board_model": ack.model_hash.hex(),
        "schema": ack.schema_hash.hex(),
        "limits": ack.limits_hash.hex(),
        "firmware": ack.firmware_build.hex(),
    }
    return {
        "mode": parts.permit.mode,
        "shadow": None if parts.shadow is None else parts.shadow.name,
        "release": None if (held := parts.permit.as_json()) is None else json.dumps(held, sort_keys=True),
        "host_started": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "seed": plan.seed,
        "preset": config.preset,
        "controller": parts.controller.name,
        "clock": "realtime" if plan.realtime else "lockstep",
        "steps": plan.steps,
        "n_obs": config.n_seen,
        "slots": config.slots,
        "slot_us": parts.slot_us,
        "amplitude_uA": parts.amplitude_uA,
        "width_us": parts.width_us,
        "lease_ms": LEASE_MS,
        "latency_us": parts.latency_us,
        "board": kind,
        "decide_on": "host" if plan.decide_on == "host" else f"board ({parts.board_format})",
        "env_config": json.dumps(config.model_dump(mode="json"), sort_keys=True),
        "hashes": json.dumps(hashes, sort_keys=True),
        "sea_dbs_version": version("sea-dbs"),
        "git_commit": git_commit(),
        "host_machine": json.dumps(machine(), sort_keys=True),
    }


def git_commit() -> str | None:
    """The commit of the checkout that this code runs from, with '+' when files differ; None: not a checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        call = ["git", "-C", str(root)]
        head = subprocess.run([*call, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        dirty = subprocess.run([*call, "diff", "--quiet", "HEAD"], capture_output=True, check=False).returncode
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if dirty else "")
