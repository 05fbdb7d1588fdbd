"""The gates of a release check, its counts, and its verdict: on outcomes written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from envs.errors import UserError
from export import manifest
from export.chain import Chain
from firmware_bridge.limits import LIMITS_HASH
from firmware_bridge.release import gates
from firmware_bridge.release.plant import CONDITIONS, SEED
from firmware_bridge.release.switches import Switch, toggles
from firmware_bridge.release.verdict import FORMAT, released, sign
from firmware_bridge.security.auth import release_tag
from firmware_bridge.security.keys import DeviceKey
from sea_dbs.files import read_json, sha256_json, write_json
from sea_dbs.seeds import BLOCK, HELD_OUT, SEARCH, TRAINING
from tests.session_tools import make_export

KEY, OTHER = DeviceKey(bytes(range(32))), DeviceKey(bytes(32))
UNTREATED = {(i, name): 440.0 for i in range(5) for name in ("untreated", "untreated-drift")}


def outcome(index: int, condition: str, **changes: Any) -> dict[str, Any]:
    seen = condition == "artefact"
    return {
        "index": index,
        "condition": condition,
        "seconds": 60.0,
        "slots": 3000,
        "P_beta": 300.0,
        "duty": 0.6,
        "toggles": 10,
        "artefact_toggles": 0 if seen else None,
        "artefact_slots": 0 if seen else None,
        "violations": 0,
        "fallbacks": {},
        "refused": 0,
        "logits_differ": 0,
        "ended": None,
        **changes,
    }


def failed(*changed: tuple[int, str, dict[str, Any]]) -> list[str]:
    runs = {(i, condition): outcome(i, condition) for condition in CONDITIONS for i in range(5)}
    for index, condition, changes in changed:
        runs[index, condition].update(changes)
    return [gate.name for gate in gates.judge(list(runs.values()), UNTREATED) if not gate.passed]


def test_what_is_as_it_should_be_passes() -> None:
    assert failed() == []
    assert failed((0, "nominal", {"P_beta": 440.0})) == [], "as untreated is not above"
    assert failed((0, "nominal", {"P_beta": 440.1})) == [], "1 of 20 runs is 5 %"


@pytest.mark.parametrize(
    ("condition", "changes", "gate"),
    [
        ("drift", {"violations": 1}, "envelope"),
        ("nominal", {"toggles": 31}, "limit cycle"),
        ("delay", {"fallbacks": {"LIMIT_CYCLE": 1}}, "limit cycle"),
        ("artefact", {"artefact_toggles": 1}, "artefact"),
        ("artefact", {"artefact_slots": 800}, "artefact"),
        ("nominal", {"ended": "the board went away"}, "whole"),
        ("nominal", {"logits_differ": 1}, "whole"),
    ],
)
def test_each_gate_catches_what_it_is_for(condition: str, changes: dict[str, Any], gate: str) -> None:
    assert failed((2, condition, changes)) == [gate]


def test_beta_above_untreated_in_more_than_a_twentieth_fails() -> None:
    assert failed((0, "nominal", {"P_beta": 441.0}), (1, "drift", {"P_beta": 441.0})) == ["beta"]
    assert failed((0, "nominal", {"P_beta": None, "ended": "x"}), (1, "drift", {"P_beta": 441.0})) == ["whole", "beta"]


def test_little_is_never_enough_for_a_release() -> None:
    assert gates.shortfall(20, 60.0) is None
    for patients, seconds in ((19, 60.0), (20, 59.9)):
        assert "not enough for a release: 20 × 60 s are" in str(gates.shortfall(patients, seconds))
    for seed in (0, HELD_OUT, SEARCH, SEED - 1, SEED + BLOCK - 19, TRAINING):
        assert "held out" in str(gates.shortfall(20, 60.0, seed)), "patients that something else draws too"
    assert gates.shortfall(20, 60.0, SEED + BLOCK - 20) is None
    assert gates.kind([outcome(0, "nominal", duty=0.96)]) == "constant stimulation"
    assert gates.kind([outcome(0, "nominal", duty=0.0)]) == "no stimulation"
    assert gates.kind([outcome(0, "nominal", duty=0.01)]) == "adaptive"


def test_toggles_are_counted_as_the_board_counts_them() -> None:
    assert toggles([0, 20_000, 219_999], 20_000) == 0
    assert toggles([0, 20_000, 220_000, 240_000, 500_000], 20_000) == 4
    assert toggles([0, 250_000], 150_000) == 0, "a pause is at least two slots"


def test_a_switch_that_only_the_artefact_made_is_found() -> None:
    switch = Switch(20_000)
    on, off = [1] * 50, [0] * 50
    assert switch.feed(off) == (0, 0)
    assert switch.driven(on, off) == 1, "switched on by what a pulse left in the recording"
    assert switch.driven(on, on) == switch.driven(off, on) == 0, (
        "a switch that would come anyway; one that did not come"
    )
    assert switch.feed(on) == (1, 0)
    assert switch.driven(off, on) == 1, "switched off by it"
    assert switch.driven([1, 0] * 25, on) == 0, "other slots, but no switch"
    assert switch.feed([1] * 5 + [0] * 20 + [1] * 25) == (1, 1)


# -- the verdict -------------------------------------------------------------------------------------------------------


def verdict_on(folder: Path, **changes: Any) -> dict[str, Any]:
    """What a check that was passed would say."""
    return {
        "format": FORMAT,
        "model_hash": Chain.of_folder(folder).model_hash.hex(),
        "limits_hash": LIMITS_HASH.hex(),
        "cohort": {"patients": 20, "seed": 1, "sha256": "0" * 64},
        "conditions": {"nominal": "", "artefact": "", "drift": "", "delay": ""},
        "seconds": 60.0,
        "kind": "adaptive",
        "released": True,
        "date": "2026-01-01T00:00:00+00:00",
        **changes,
    }


@pytest.fixture
def export(tmp_path: Path) -> Path:
    return make_export(tmp_path / "export")


def test_a_signed_verdict_holds_and_breaks_no_link(export: Path) -> None:
    before = Chain.of_folder(export)
    entry = sign(export, verdict_on(export), KEY)
    assert Chain.of_folder(export).model_hash == before.model_hash, "the release is no part of the chain"
    held = released(export, before, KEY)
    assert held.verdict == verdict_on(export)
    assert held.tag == release_tag(KEY, before.model_hash, held.verdict_hash)
    assert (held.verdict_hash.hex(), held.key) == (sha256_json(verdict_on(export)), KEY.fingerprint)
    assert manifest.load(export).release == entry
    sign(export, verdict_on(export, date="2026-02-02T00:00:00+00:00"), KEY)
    assert released(export, before, KEY).verdict["date"].startswith("2026-02-02"), "a later release replaces it"
    assert KEY.secret.hex() not in (export / "manifest.json").read_text()


def test_a_release_does_not_hide_a_change_of_the_manifest(export: Path) -> None:
    sign(export, verdict_on(export), KEY)
    values = read_json(export / "manifest.json")
    values["width_us"] = 90.0
    write_json(export / "manifest.json", values)
    with pytest.raises(UserError, match=r"broken at the link 'onnx': manifest.json was changed"):
        Chain.of_folder(export)


def altered(export: Path, **changes: Any) -> None:
    values = read_json(export / "manifest.json")
    values["release"] |= changes
    write_json(export / "manifest.json", values)


def test_what_does_not_hold_is_said(export: Path) -> None:
    chain = Chain.of_folder(export)
    with pytest.raises(UserError, match=r"no release verdict.*run 'sea-dbs release .* --shadow on-off"):
        released(export, chain, KEY)
    sign(export, verdict_on(export), KEY)
    for key, said in ((OTHER, f"the key {KEY.fingerprint} signed it, this board's is {OTHER.fingerprint}"),):
        with pytest.raises(UserError, match=said):
            released(export, chain, key)
    with pytest.raises(UserError, match="one of its int8 policy, not of fp16"):
        released(export, chain, KEY, "fp16")
    good = read_json(export / "manifest.json")["release"]
    other = {**good["verdict"], "seconds": 6.0}
    for changes, said in (
        ({"verdict": other}, "the verdict was changed"),
        ({"verdict": other, "verdict_sha256": sha256_json(other)}, "its tag is not one of the key"),
        ({"tag": "00" * 32}, "its tag is not one of the key"),
        ({"key": OTHER.fingerprint}, f"the key {OTHER.fingerprint} signed it"),
    ):
        altered(export, **good)
        altered(export, **changes)
        with pytest.raises(UserError, match=said):
            released(export, chain, KEY)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"limits_hash": "11" * 32}, "checked under other limits"),
        ({"format": "sea-dbs-release-0"}, "no release of the format"),
    ],
)
def test_a_verdict_of_another_build_does_not_hold(export: Path, changes: dict[str, Any], said: str) -> None:
    sign(export, verdict_on(export, **changes), KEY)
    with pytest.raises(UserError, match=said):
        released(export, Chain.of_folder(export), KEY)


def test_only_a_release_is_signed_and_only_on_what_was_checked(export: Path) -> None:
    for changes, said in (({"released": False}, "it is no release"), ({"model_hash": "22" * 32}, "was changed while")):
        with pytest.raises(UserError, match=said):
            sign(export, verdict_on(export, **changes), KEY)
    assert "release" not in json.loads((export / "manifest.json").read_text())
