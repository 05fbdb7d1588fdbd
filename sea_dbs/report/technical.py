"""The chapters on the file, its speed and its origin: parity, latency, hashes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.npz import read_npz
from sea_dbs.files import read_json
from sea_dbs.report import chain, latency_figure
from sea_dbs.report.find import Found, Part
from sea_dbs.report.page import Block, Figure, Missing, Section, Table, Text
from sea_dbs.report.sections import named, picture_name
from sea_dbs.report.session_data import SessionData

PRECISION_NAMES = {"torch": "torch", "fp32": "ONNX FP32", "fp16": "ONNX FP16", "int8": "ONNX INT8"}
Sessions = list[tuple[Part, SessionData]]

GLOSSARY = (
    ("P_beta", "power of GPi spiking at 13-35 Hz, mean over ten cells (spikes²/s²); high in parkinsonism"),
    ("slot", "a time at which one pulse may be given; a decision covers one slot or fifty"),
    ("slots stimulated (duty)", "share of slots with a pulse: 100 % is a regular train at the slot rate"),
    ("charge, % of 130 Hz", "charge of the first phases, compared with continuous 130 Hz at the same pulse"),
    ("constant stimulation", "more than 95 % of the slots stimulated, whatever is observed"),
    ("open-loop", "does not use its observation: it loses nothing when that is silenced, shuffled or another plant's"),
    (
        "margin",
        "distance between the logits for and against a pulse; only where it is tiny can rounding change a decision",
    ),
    ("lockstep", "plant and board share one stepped clock, which stands while the host decides"),
)


def export_section(found: Found) -> Section:
    """Parity of the exported files with the trained network."""
    blocks: list[Block] = []
    for i, part in enumerate(found.exports):
        blocks += named(len(found.exports) > 1, part)
        if not (part.path / "parity.json").is_file():
            blocks.append(Missing(f"The export {part.name} holds no parity.json: its comparison was not finished."))
            continue
        parity = read_json(part.path / "parity.json")
        blocks.append(_parity_table(parity))
        if (part.path / "parity.png").is_file():
            blocks.append(
                Figure(
                    picture_name("parity", i),
                    (part.path / "parity.png").read_bytes(),
                    "change of the decision margin by precision, and sizes of the files",
                    "Left: each dot is one decision; rounding can flip it only inside the red area. Right: sizes of "
                    "the files.",
                )
            )
    if not found.exports:
        blocks.append(Missing("No export was found.", "sea-dbs export RUN_DIR --out DIR"))
    lead = "The trained network becomes a file that a board can run. Does the file still decide as the network did?"
    return Section("export", "From network to file", lead, blocks)


def _parity_table(parity: dict[str, Any]) -> Table:
    columns = ("network", "precision", "parameters", "size", "decisions alike", "largest logit difference",
               "smallest margin")  # fmt: skip
    rows = [
        (
            row["policy"] + (" (untrained)" if row["weights"].startswith("untrained") else ""),
            PRECISION_NAMES.get(row["precision"], row["precision"]),
            f"{row['parameters']:,}",
            _size(row["file_bytes"]),
            _alike(row),
            f"{row['max_logit_difference']:.1g}",
            f"{row['smallest_margin']:.1g}",
        )
        for row in parity["rows"]
    ]
    seen = parity["observations"]
    caption = (
        f"Compared with torch over {seen['count']:,} observations of the simulated network under "
        f"{len(seen['under'])} ways of "
        f"stimulating it ({', '.join(seen['under'])}). “paper” is the published network with its large output layer, "
        "here "
        "with untrained weights: it compares size and speed only."
    )
    marks = ["" if row["weights"].startswith("untrained") else "policy" for row in parity["rows"]]
    return Table(columns, rows, caption, marks, numeric=range(2, len(columns)))


def _alike(row: dict[str, Any]) -> str:
    alike = f"{row['decisions'] - row['changed']:,} of {row['decisions']:,}"
    return alike if not row["changed"] else f"{alike}; changed at margins ≤ {row['largest_changed_margin']:.2g}"


def _size(count: int) -> str:
    return f"{count / 1000:,.1f} kB" if count < 1 << 20 else f"{count / (1 << 20):.1f} MiB"


# -- latency -------------------------------------------------------------------------------------------------------


def latency_section(found: Found, sessions: Sessions) -> Section:
    """Histograms of what was timed, and a table for each session."""
    blocks: list[Block] = []
    decision_us: dict[str, NDArray[np.floating]] = {}
    for part in found.exports:
        decision_us |= _export_latencies(part, many=len(found.exports) > 1)
    if sessions:
        host = np.concatenate([data.host_decision_us() for _, data in sessions])
        if len(host):
            decision_us["whole decision in the session"] = host
    paced = [data.sample_to_pulse_us() for _, data in sessions if data.session["clock"] != "lockstep"]
    if decision_us:
        blocks.append(
            Figure(
                picture_name("latency", 0),
                latency_figure.draw(decision_us, np.concatenate([*paced, np.zeros(0)])),
                "histogram of decision latency",
                "The network alone (batch 1, one thread), and the whole decision in the session, checks included. "
                "ONNX Runtime "
                "computes FP16 files in FP32 on most computers: these times say nothing about a board.",
            )
        )
    else:
        blocks.append(Missing("No latency was measured: there is neither an export nor a session."))
    if sessions:
        blocks.append(_latency_table(sessions))
    if any(data.session["clock"] == "lockstep" for _, data in sessions):
        blocks.append(
            Text(
                "In lockstep the clock of plant and board stands while host or board decides, so newest sample to "
                "pulse is 0 by construction. A session with --realtime measures it."
            )
        )
    return Section("latency", "How fast", "", blocks)


def _export_latencies(part: Part, *, many: bool) -> dict[str, NDArray[np.floating]]:
    path = part.path / "latency.npz"
    if not path.is_file():
        return {}
    keys = {f"{part.facts['actor']['name']}_{name}_us": words for name, words in PRECISION_NAMES.items()}
    compared = () if part.facts.get("origin") == "file" else ("torch",)
    present = [key for key in keys if key.split("_")[-2] in (*compared, *part.facts["precisions"])]
    data = read_npz(path, tuple(present))
    return {keys[key] + (f", {part.name}" if many else ""): data[key] for key in present}


def _latency_table(sessions: Sessions) -> Table:
    rows = []
    for part, data in sessions:
        who = "host" if data.decide_on == "host" else f"board {data.session['board']}"
        split = data.latency_split_us()
        words = {
            "observing": "· newest sample to the host's frame",
            "link": "· link: frame sent to whole on the board",
            "deciding": f"· deciding, by the {who}",
            "waiting": "· waiting for slot 0",
        }
        ack = [(row["host_ack"] - row["host_sent"]) * 1e6 for row in data.decisions]
        rows += [
            (part.name, "newest sample to pulse, device time", *_quantiles(data.sample_to_pulse_us())),
            *((part.name, words[name], *_quantiles(us)) for name, us in split.items()),
            (
                part.name,
                "decision on the host" if who == "host" else "observation to int8, on the host",
                *_quantiles(data.host_decision_us()),
            ),
            (part.name, "order to acknowledgement, host time", *_quantiles(np.array(ack))),
        ]
    columns = ("session", "from … to", "p50", "p99", "largest", "jitter (p99 - p1)", "n")
    return Table(columns, rows, "Milliseconds.", numeric=range(2, 7))


def _quantiles(us: NDArray[np.floating]) -> tuple[str, ...]:
    if not len(us):
        return ("none", "none", "none", "none", "0")
    p1, p50, p99 = np.percentile(us / 1000.0, (1, 50, 99))
    return (f"{p50:.2f}", f"{p99:.2f}", f"{us.max() / 1000.0:.2f}", f"{p99 - p1:.2f}", f"{len(us):,}")


# -- origin --------------------------------------------------------------------------------------------------------


def origin_section(found: Found, sessions: Sessions) -> Section:
    """What was run, and the chain of hashes."""
    blocks: list[Block] = []
    found_links = chain.links(found)
    if found_links:
        broken = [link for link in found_links if link.mark == chain.BAD]
        checked = sum(link.mark == chain.GOOD for link in found_links)
        if broken:
            names = "; ".join(f"{link.what} ({link.where}): {link.verdict}" for link in broken)
            blocks.append(Text(f"The chain is broken: {names}.", "bad"))
        elif checked:
            blocks.append(
                Text(f"The chain holds: {checked} of {len(found_links)} links were checked and none differs.", "good")
            )
        rows = [(link.what, link.where, link.sha256[:16], link.verdict) for link in found_links]
        caption = "First 16 digits of each SHA-256. config → weights → ONNX → session."
        blocks.append(Table(("link", "folder", "SHA-256", "check"), rows, caption, [link.mark for link in found_links]))
    blocks.append(Table(("part", "folder", "what"), _parts(found, sessions)))
    return Section("origin", "What was run, with which hashes", "", blocks)


def _parts(found: Found, sessions: Sessions) -> list[tuple[str, str, str]]:
    rows = []
    for part in found.runs:
        f, m = part.facts, part.facts["machine"]
        what = f"seed {f['seed']}, {f['env_steps']:,} environment steps in {f['wall_s']:.0f} s"
        where = f"sea-dbs {m['sea_dbs']}, {m['cpu']}, {_libraries(m)}"
        rows.append(("training run", part.name, f"{what}, {f['parameters']:,} parameters; {where}"))
    for part in found.evaluations:
        seeds = part.facts["held_out_seeds"]
        plan = part.facts["plan"]
        rows.append(("evaluation", part.name, f"plants {seeds[0]} to {seeds[-1]}, {plan['steps']} decisions each"))
    for part in found.exports:
        f = part.facts
        what = f"{', '.join(sorted(f['precisions']))}, opset {f['opset']}, preset {f['preset']}"
        rows.append(("export", part.name, f"{what}; sea-dbs {f['sea_dbs_version']}"))
    for part, data in sessions:
        s = data.session
        commit = f", commit {s['git_commit'][:12]}" if s["git_commit"] else ""
        what = f"seed {s['seed']}, preset {s['preset']}, started {s['host_started']}"
        rows.append(("session", part.name, f"{what}; sea-dbs {s['sea_dbs_version']}{commit}"))
    for part in found.simulations:
        f = part.facts
        rows.append(
            (
                "simulation",
                part.name,
                f"{f['condition']}, {f['stim_hz']:g} Hz, {f['t_ms'] / 1000:g} s, seed {f['seed']}",
            )
        )
    return rows


def _libraries(machine: dict[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())


def glossary_section() -> Section:
    """Words."""
    return Section("words", "Words", "", [Table(("word", "meaning"), GLOSSARY)])


def parity_of(part: Part) -> dict[str, Any]:
    """parity.json of an export.

    Raises:
        UserError: it is not there or is damaged.
    """
    parity = read_json(part.path / "parity.json")
    if not isinstance(parity, dict) or not parity.get("rows"):
        raise UserError(f"{part.name}/parity.json is damaged: it holds no rows")
    return parity
