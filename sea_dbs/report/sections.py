"""The chapters on what the policy does: evaluation, session, network, learning."""

from __future__ import annotations

from typing import Any

import yaml

from envs.errors import UserError
from envs.untrusted import load_yaml
from sea_dbs import evaluation_figures
from sea_dbs.report import learning_figure, plant_figure, release, session_figure, shadow
from sea_dbs.report.find import Found, Part
from sea_dbs.report.headline import between, level, percent, row_of, world_of
from sea_dbs.report.page import Block, Figure, Missing, Section, Table, Text
from sea_dbs.report.session_data import SessionData
from sea_dbs.runlog import read_metrics
from sea_dbs.simulate import load as load_simulation

MOST_SIMULATIONS = 4  # side by side
MOST_EVENTS = 30  # of a session, in the table


def named(many: bool, part: Part) -> list[Block]:
    """The folder's name above its part, where there are several."""
    return [Text(f"Folder {part.name}")] if many else []


def picture_name(kind: str, number: int) -> str:
    """File name of a picture beside the page."""
    return f"report-{kind}.png" if number == 0 else f"report-{kind}-{number + 1}.png"


# -- evaluation ----------------------------------------------------------------------------------------------------


def evaluation_section(found: Found) -> Section:
    """Every controller on the same plants."""
    blocks: list[Block] = []
    for i, part in enumerate(found.evaluations):
        blocks += named(len(found.evaluations) > 1, part)
        blocks.append(_evaluation_table(part.facts))
        blocks.append(
            Figure(
                picture_name("evaluation", i),
                evaluation_figures.comparison(part.facts),
                "beta power and charge of each controller",
                "Left: beta power after settling, a dot and its 95 % interval for each controller; further left is "
                "better. "
                "The dotted line is the untreated level. Right: the charge that it took, compared with continuous "
                "130 Hz.",
            )
        )
        blocks.append(
            Figure(
                picture_name("evaluation-series", i),
                evaluation_figures.series(part.facts),
                "beta power and share of slots over the decisions",
                "The same controllers decision by decision, mean over the plants.",
            )
        )
    if not found.evaluations:
        blocks.append(Missing("No evaluation was found.", "sea-dbs evaluate RUN_DIR --out DIR"))
    lead = (
        "Each controller treats the same simulated networks, which training never met. Beta power counts after the "
        "first "
        "seconds, when the observation holds nothing of the time before. A policy is worth something only if it beats "
        "random and regular pulses at the same dose."
    )
    return Section("evaluation", "Does it help?", lead, blocks)


def _evaluation_table(facts: dict[str, Any]) -> Table:
    columns = ("controller", "what it is", "P_beta", "% of untreated", "slots stimulated", "pulses an episode",
               "charge, % of 130 Hz", "reward a decision")  # fmt: skip
    rows = [
        (
            row["detail"],
            row["label"] or ("adaptive" if row["controller"] in ("policy", "on-off") else ""),
            f"{row['P_beta_iqm']:.0f}{_interval(row['P_beta_ci95'])}",
            f"{level(row['percent_of_untreated'])}{_interval(row['percent_of_untreated_ci95'])}",
            percent(row["duty"]),
            f"{row['pulses']:,.0f}",
            f"{row['charge_percent_of_130Hz']:.0f}",
            f"{row['reward_iqm']:+.3f}",
        )
        for row in facts["rows"]
    ]
    steps, seeds = facts["plan"]["steps"], len(facts["held_out_seeds"])
    caption = (
        f"Interquartile means over {seeds} held-out plants{world_of(facts)}, {steps} decisions each, with 95 % "
        "bootstrap intervals where there are several plants. "
        "“Silenced”: the policy sees a constant in place of its observation. The best periodic train has at most the "
        "policy's pulses, random stimulation its duty."
    )
    marks = ["policy" if row["controller"] == "policy" else "" for row in facts["rows"]]
    return Table(columns, rows, caption, marks, numeric=range(2, len(columns)))


def _interval(ci: list[float] | None) -> str:
    return "" if ci is None or ci[0] == ci[1] else f" ({between(ci)})"


# -- session -------------------------------------------------------------------------------------------------------


def session_section(found: Found, sessions: list[tuple[Part, SessionData]]) -> Section:
    """The closed loop over the board."""
    blocks: list[Block] = []
    for i, (part, data) in enumerate(sessions):
        blocks += named(len(sessions) > 1, part)
        if not data.device_envelope:
            blocks.append(Text(data.session["mode"], "bad"))
        blocks.append(
            Figure(
                picture_name("session", i),
                session_figure.draw(data),
                "beta power, share of slots and pulses over the session",
                "Top: beta power as the controller saw it. Middle: the share of slots in which it asked for a pulse, "
                "and in "
                "which one came. Bottom: every pulse on the board's electrode; these pulses, and no others, reach the "
                "simulated network.",
            )
        )
        blocks.append(_session_facts(part, data))
        if (table := _events(data)) is not None:
            blocks.append(table)
    if not sessions:
        blocks.append(Missing("No session on a board was found.", "sea-dbs session --policy EXPORT_DIR --out DIR"))
    lead = (
        "The policy decides, a board delivers over a serial link, and the network answers to what the electrode gave."
    )
    return Section("session", "Closed loop over a board", lead, blocks)


def _checked(data: SessionData) -> str:
    """How many of the board's decisions had the logits of the host's reference."""
    differ = [row["logits_differ"] for row in data.decisions if row.get("logits_differ") is not None]
    if not differ:
        return ""
    return f"; logits equal the integer reference bit by bit in {differ.count(0)} of {len(differ)} decisions"


def _right(data: SessionData) -> list[tuple[str, str]]:
    """By what right it drove, where that is more than bench mode: the release, and what was decided in shadow."""
    rows = []
    if (signed := release.held(data)) is not None:
        rows.append(("release", signed.text))
    if (found := shadow.facts(data)) is not None:
        rows.append(("shadow", shadow.sentence(found)))
    return rows


def _session_facts(part: Part, data: SessionData) -> Table:
    s, summary = data.session, part.facts
    reasons: dict[str, int] = {}
    for row in data.decisions:
        reasons[row["reason"]] = reasons.get(row["reason"], 0) + 1
    rows = [
        ("mode", s["mode"]),
        *_right(data),
        ("controller", s["controller"]),
        ("board, clock", f"{s['board']}, {s['clock']}"),
        ("decided on", data.decide_on + _checked(data)),
        ("decisions", f"{len(data.done)} of {s['steps']}, {s['slots']} slots of {s['slot_us'] / 1000:g} ms each"),
        ("outcome", s["outcome"] or "the host died before the session ended"),
        ("pulse", f"{s['amplitude_uA'] / 1000:g} mA × {s['width_us']} µs a phase, lease {s['lease_ms']} ms"),
        ("slots stimulated", f"{percent(data.duty())}, {len(data.pulses):,} pulses on the electrode"),
        ("what the board made of the orders", "; ".join(f"{reason}: {n}" for reason, n in sorted(reasons.items()))),
    ]
    if (safety := summary.get("safety")) is not None:
        charge = safety["largest_charge_uC_per_phase"]
        rows.append(
            ("charge", f"at most {charge:g} µC a phase, residual at most {safety['largest_residual_pC']} pC a pulse")
        )
        rows.append(
            ("share of continuous 130 Hz", f"{summary['charge_percent_of_continuous_130_Hz']:.0f} % of its charge")
        )
        rows.append(("envelope violations", f"{safety['violations']} ({safety['checked_against']})"))
    return Table(("session", ""), rows)


def _events(data: SessionData) -> Table | None:
    told = [row for row in data.events if row["kind"] != "renew"]
    if not told:
        return None
    offset = data.session["offset_us"] or 0
    rows = [(f"{(row['device_us'] - offset) * 1e-6:.3f}", row["kind"], row["text"]) for row in told[:MOST_EVENTS]]
    left = f" (the first {MOST_EVENTS} of {len(told)})" if len(told) > MOST_EVENTS else ""
    caption = f"What happened on the link{left}; times in s on the plant's clock. Lease renewals are left out."
    marks = ["bad" if row["kind"] in session_figure.MARKED else "" for row in told[:MOST_EVENTS]]
    return Table(("s", "event", "what"), rows, caption, marks, numeric=(0,))


# -- network and learning ------------------------------------------------------------------------------------------


def plant_section(found: Found, made_here: bool) -> Section:
    """Raster and spectra of healthy, parkinsonian and stimulated."""
    blocks: list[Block] = []
    simulations = [load_simulation(part.path, part.facts) for part in found.simulations]
    simulations.sort(key=lambda s: (s.condition == "pd", s.stim_hz))
    if simulations:
        shown = simulations[:MOST_SIMULATIONS]
        values = ", ".join(f"{plant_figure.title(s)} {s.P_beta:.0f}" for s in simulations)
        blocks.append(
            Figure(
                picture_name("plant", 0),
                plant_figure.draw(shown),
                "spikes of eight populations, GPi spectra and beta power by condition",
                "Top: one second of spikes, a line for each of ten cells a nucleus. Bottom: spectrum of the GPi "
                "spikes, and "
                f"beta power over the run. P_beta: {values}.",
            )
        )
        if made_here:
            blocks.append(Text("These simulations were made for this report (seed 0), since the folder held none."))
    else:
        blocks.append(Missing("No simulation was found.", "sea-dbs simulate --condition pd --out DIR"))
    lead = (
        "The plant is a spiking model of cortex, basal ganglia and thalamus of a parkinsonian rat; stimulation goes "
        "to the "
        "STN. Parkinsonism raises the power of GPi spiking at 13-35 Hz (beta), which stimulation is to lower."
    )
    return Section("network", "The simulated network", lead, blocks)


def learning_section(found: Found) -> Section:
    """The learning curve of each run."""
    blocks: list[Block] = []
    untreated = None
    for evaluation in found.evaluations:
        never = row_of(evaluation.facts, "never")
        untreated = never["P_beta_iqm"] if never is not None else untreated
    for i, part in enumerate(found.runs):
        blocks += named(len(found.runs) > 1, part)
        metrics = read_metrics(part.path)
        if not metrics:
            blocks.append(Missing(f"The run {part.name} has learnt nothing yet: its metrics are empty."))
            continue
        config = _config(part)
        threshold = config.get("beta_threshold")
        picture = learning_figure.draw(
            metrics,
            warmup_steps=int(config.get("warmup_steps", 0)),
            threshold=None if threshold is None else 1000.0 * threshold,
            untreated=untreated,
        )
        blocks.append(
            Figure(
                picture_name("learning", i),
                picture,
                "beta power, reward and share of slots against environment steps",
                "Dots are single decisions, the line is a mean. Learning works if beta falls and the reward rises; a "
                "duty that "
                "climbs to 100 % says that the policy merely stimulates all the time.",
            )
        )
        if not part.facts.get("finished"):
            told = f"{metrics[-1]['step']:,} of {part.facts['total_steps']:,}"
            blocks.append(Text(f"The training of {part.name} was not finished: {told} environment steps.", "warn"))
    if not found.runs:
        blocks.append(Missing("No training run was found.", "sea-dbs train --config paper --out RUN_DIR"))
    return Section("learning", "How it learnt", "Each step is one decision of one simulated network.", blocks)


def _config(part: Part) -> dict[str, Any]:
    try:
        config = load_yaml((part.path / "config.yaml").read_bytes())
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"the config of the run {part.name} cannot be read: {error}") from error
    return config if isinstance(config, dict) else {}
