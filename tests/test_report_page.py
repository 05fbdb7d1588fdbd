"""Report: one page from real results; it depends on nothing, escapes names, and says what is missing or changed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from learn_toy import ToyEnv, toy_vector

from envs.errors import UserError
from export.run import export_run
from firmware_bridge.plan import SessionPlan
from firmware_bridge.session import run_session
from sea_dbs.config import load_config
from sea_dbs.evaluate import evaluate
from sea_dbs.evaluation_plan import Plan
from sea_dbs.report import chain, headline
from sea_dbs.report.build import PAGE, build_report
from sea_dbs.report.find import find
from sea_dbs.report.session_data import read_session
from sea_dbs.simulate import save, simulate
from sea_dbs.train import train

NOTICE = "Research use only, not for human use"
EVIL = "<img src=x onerror=alert(1)> & 'co'"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All kinds of results: a run, its evaluation and export, a session on a real board process, two simulations."""
    folder = tmp_path_factory.mktemp("report") / "results"
    config = load_config("paper", ["episodes=4", "n_envs=2", "episode_steps=8", "warmup_steps=8"])
    train(config, folder / "run", quiet=True, env_factory=toy_vector)
    plan = Plan(controllers=("never", "always", "periodic", "random", "policy"), seeds=3, search_seeds=1)
    evaluate(folder / "run", folder / "evaluation", plan, quiet=True, env_factory=ToyEnv)
    export_run(folder / "run", folder / "export", seconds=2.0, quiet=True, env_factory=ToyEnv)
    run_session(SessionPlan(out=folder / "session", policy=folder / "export", steps=2, quiet=True))
    for condition, hz in (("healthy", 0.0), ("pd", 130.0)):
        *_, (_, result) = simulate(condition, hz, 0.3, seed=0)
        assert result is not None
        save(result, folder / "plant" / f"{condition}-{hz:g}")
    return folder


@pytest.fixture
def copy(results: Path, tmp_path: Path) -> Path:
    """The results in a folder that a test may damage."""
    shutil.copytree(results, tmp_path / "copy")
    return tmp_path / "copy"


class Reader(HTMLParser):
    """Text, tags and the addresses that a browser would fetch."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(page: Path) -> Reader:
    return Reader(page.read_text(encoding="utf-8"))


# -- the whole page ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(results: Path) -> Path:
    return build_report(results)


def test_the_page_needs_nothing_from_outside(page: Path) -> None:
    reader = read(page)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(reader.tags)
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in reader.addresses)
    html = page.read_text(encoding="utf-8")
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", html).replace("http-equiv", "")


def test_the_page_holds_every_part_and_its_pictures(page: Path) -> None:
    reader = read(page)
    assert NOTICE in reader.text
    assert not re.search(r"was found\.|cannot be shown|could not be read", reader.text)
    names = {path.name for path in page.parent.glob("report-*.png")}
    wanted = {"plant", "learning", "evaluation", "evaluation-series", "session", "parity", "latency"}
    assert names == {f"report-{name}.png" for name in wanted}
    assert all((page.parent / name).read_bytes().startswith(PNG) for name in names)
    assert reader.tags.count("img") == len(wanted)
    anchors = {address[1:] for address in reader.addresses if address.startswith("#")}
    html = page.read_text(encoding="utf-8")
    assert anchors
    assert all(f'id="{anchor}"' in html for anchor in anchors)


def test_the_headline_says_what_the_data_say(page: Path, results: Path) -> None:
    text = read(page).text
    row = next(
        r
        for r in json.loads((results / "evaluation" / "evaluation.json").read_text())["rows"]
        if r["controller"] == "policy"
    )
    assert f"{headline.level(row['percent_of_untreated'])} % of untreated" in text
    if row["label"]:
        assert f"What it learnt is {row['label']}" in text
    else:
        assert "It uses what it senses" in text
    data = read_session(results / "session" / "session.sqlite")
    assert f"{len(data.pulses):,} pulses came on the electrode" in text
    assert "none left the safety envelope" in text
    assert "never" in text
    assert "random" in text


def test_the_chain_of_hashes_holds(page: Path, results: Path) -> None:
    text = read(page).text
    assert "The chain holds" in text
    export = json.loads((results / "export" / "manifest.json").read_text())
    for digest in export["hashes"].values():
        assert digest[:16] in text
    assert "model the board was armed for" in text


def test_reporting_again_gives_the_same_page(page: Path, results: Path) -> None:
    before = page.read_bytes()
    assert build_report(results).read_bytes() == before


# -- labels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "words"),
    [("constant stimulation", "whatever it senses"), ("open-loop", "open-loop"), ("", "It uses what it senses")],
)
def test_each_label_is_said_in_words(results: Path, label: str, words: str) -> None:
    evaluation = json.loads((results / "evaluation" / "evaluation.json").read_text())
    policy = next(row for row in evaluation["rows"] if row["controller"] == "policy")
    policy |= {"label": label, "below_untreated": False, "percent_of_untreated": 71.4, "duty": 0.996}
    texts, tiles = headline.of_evaluation(evaluation)
    said = " ".join(text.text for text in texts)
    assert words in said
    assert "not surely below untreated" in said
    assert "lowered GPi beta power to 71 % of untreated" in said
    assert "99.6 % of the slots" in said  # never rounded up to all of them
    assert any(label in tile.what for tile in tiles)
    policy["percent_of_untreated"] = 104.0
    assert "raised" in headline.of_evaluation(evaluation)[0][0].text


# -- names, missing and damaged parts ------------------------------------------------------------------------------


def test_names_are_escaped(results: Path, tmp_path: Path) -> None:
    folder = tmp_path / EVIL
    shutil.copytree(results / "plant", folder / "plant <b>")
    shutil.copytree(results / "session", folder / "<i>session")
    reader = read(build_report(folder))
    assert EVIL in reader.text
    assert "plant <b>" in reader.text
    assert not {"b", "i"} & (set(reader.tags) - {"b"})
    assert all(address.startswith(("data:image/png", "#")) for address in reader.addresses)


def test_what_is_missing_is_said_with_the_command_that_makes_it(results: Path, tmp_path: Path) -> None:
    shutil.copytree(results / "run", tmp_path / "only" / "run")
    text = read(build_report(tmp_path / "only", simulate_missing=False)).text
    for command in ("sea-dbs evaluate", "sea-dbs session", "sea-dbs simulate", "sea-dbs export"):
        assert command in text
    assert "The folder holds no evaluation, session or export yet" in text
    assert not (tmp_path / "only" / "plant").exists()


def test_a_session_whose_host_was_killed_is_reported(results: Path, tmp_path: Path) -> None:
    shutil.copytree(results / "session", tmp_path / "killed")
    (tmp_path / "killed" / "summary.json").unlink()
    text = read(build_report(tmp_path / "killed", simulate_missing=False)).text
    assert "pulses came on the electrode" in text
    assert "Every pulse was checked" not in text  # nobody checked them


def test_a_changed_file_breaks_the_chain(results: Path, tmp_path: Path) -> None:
    for part in ("run", "export"):
        shutil.copytree(results / part, tmp_path / part)
    path = tmp_path / "export" / "policy_fp16.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    links = chain.links(find(tmp_path))
    assert [link.what for link in links if link.mark == chain.BAD] == ["ONNX FP16"]
    assert {link.what for link in links if link.mark == chain.GOOD} >= {"config", "weights", "ONNX FP32"}
    text = read(build_report(tmp_path, simulate_missing=False)).text
    assert "The chain is broken: ONNX FP16 (export): policy_fp16.onnx was changed" in text


DAMAGE = {
    "no JSON": {
        "evaluation/evaluation.json": (b'{"rows": [', r"Not read: .*evaluation\.json"),
        "session/session.sqlite": (b"SQLite format 3\0" + bytes(200), r"Not read: session: .*session\.sqlite"),
        "export/parity.json": (b"{}", r"part cannot be shown: .*KeyError"),
        "run/metrics.jsonl": (b'{"step": 1', r"part cannot be shown: cannot read .*metrics\.jsonl"),
        "plant/healthy-0/simulation.npz": (b"PK", r"part cannot be shown: .*simulation\.npz"),
    },
    "other content": {
        "evaluation/evaluation.json": (
            b'{"rows": [{"controller": "policy"}]}',
            r"evaluation could not be read in full",
        ),
        "session/session.sqlite": (b"", r"Not read: session: .*session\.sqlite"),
        "export/latency.npz": (b"PK", r"part cannot be shown: .*latency\.npz"),
        "run/manifest.json": (b"[]", r"Not read: .*manifest\.json is damaged"),
    },
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_parts_are_named_and_the_rest_is_shown(copy: Path, kind: str) -> None:
    for side in ("-wal", "-shm"):
        (copy / f"session/session.sqlite{side}").unlink(missing_ok=True)
    for file, (content, _) in DAMAGE[kind].items():
        (copy / file).write_bytes(content)
    text = read(build_report(copy)).text
    assert NOTICE in text
    for _, sentence in DAMAGE[kind].values():
        assert re.search(sentence, text), sentence


def test_the_command_answers_in_one_sentence(results: Path, tmp_path: Path) -> None:
    def sea_dbs(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from sea_dbs.cli import main; main()", *map(str, arguments)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    done = sea_dbs("report", tmp_path / "nowhere")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("sea-dbs: ")
    shutil.copytree(results / "export", tmp_path / "some" / "export")
    done = sea_dbs("report", tmp_path / "some")
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "some" / PAGE) in done.stdout
    assert "made for this report" in read(tmp_path / "some" / PAGE).text  # the folder held no simulation


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        build_report(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_sessions_trace_meets_its_recorded_outcomes(results: Path) -> None:
    data = read_session(results / "session" / "session.sqlite")
    times, beta = data.beta_trace()
    assert len(times) == 1000 + 2 * 1000  # the first observation, then a window each ms of two decisions
    assert (np.diff(times) > 0).all()
    assert beta[:1000].mean() == pytest.approx(data.session["P_beta_first"], rel=1e-6)
    for i, row in enumerate(data.done, start=1):
        assert times[1000 * (i + 1) - 1] == pytest.approx(1.0 * i)
        assert beta[1000 * (i + 1) - 1] == pytest.approx(row["P_beta_last"], rel=1e-6)
        assert beta[1000 * i : 1000 * (i + 1)].mean() == pytest.approx(row["P_beta"], rel=1e-6)
    assert not data.sample_to_pulse_us().any()  # in lockstep the clock stands while the host decides
    assert len(data.sample_to_pulse_us()) == len({pulse["decision_id"] for pulse in data.pulses})
    assert data.duty() == pytest.approx(len(data.pulses) / 100)
