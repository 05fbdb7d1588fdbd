"""The equations of docs/plant.md, read from the page and computed, against the code: neither changes alone."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.plant import batch_layout as lay
from envs.plant import cortex, pallidum, reference, stn, synapses, thalamus
from envs.plant.common import POPULATIONS
from envs.plant.inputs import SMC_AMPLITUDE, SMC_CV, SMC_RATE_HZ, SMC_WIDTH_MS
from envs.plant.state import SD_V0_MV, ctx_d1_base, disease_parameters, draw_network, initial_state
from envs.stimulation import PULSE_AMPLITUDE, PULSE_WIDTH_MS

PAGE = (Path(__file__).parent.parent / "docs" / "plant.md").read_text(encoding="utf-8")
TOKEN = re.compile(r"\d+\.?\d*(?:e-\d+)?|[A-Za-zα-ω_]\w*|\*\*|[-+*/()=]")
VOLTAGES = (-91.3, -72.9, -63.1, -54.7, -40.2, -30.9, -21.3, 0.11, 0.19, 5.6, 31.2)  # mV, none of them a 0/0 of a rate


def _python(formula: str) -> str:
    """A formula of the page as an expression: its products are written by juxtaposition."""
    for old, new in (("∞", "_inf"), ("e⁻¹", "exp(-1)"), ("²", "**2 "), ("³", "**3 "), ("⁴", "**4 "), ("/2F", "/(2 F)")):
        formula = formula.replace(old, new)
    formula = re.sub(r"e\^\{([^}]*)\}", r"exp(\1)", formula)
    formula = re.sub(r"e\^([a-z])", r"exp(\1)", formula).replace("[", "(").replace("]", ")")
    out: list[str] = []
    for token in TOKEN.findall(formula):
        product = out and (out[-1] == ")" or out[-1][-1].isalnum()) and out[-1] not in ("σ", "exp", "tanh")
        if product and (token == "(" or token[0].isalnum()):
            out.append("*")
        out.append(token)
    return " ".join(out)


def _section(start: str, end: str) -> str:
    return PAGE[PAGE.index(start) : PAGE.index(end, PAGE.index(start))]


def _equations(section: str) -> dict[str, str]:
    """Every ``name = formula`` of the indented lines and of the table of gates."""
    found = {}
    for line in section.splitlines():
        if line.startswith("    "):
            for equation in re.split(r"\s{2,}", line.strip()):
                name, formula = equation.split(" = ", 1)
                found[name.replace("∞", "_inf")] = _python(formula)
        elif match := re.match(r"\| (\w+) \| (.*?) \| (.*?) \|$", line):
            gate, steady, tau = match.groups()
            if gate != "gate":
                found[f"{gate}_inf"], found[f"τ_{gate}"] = _python(steady), _python(tau)
    return found


def _exp(x: float) -> float:
    return math.exp(x) if x < 700.0 else math.inf


class _Values(dict[str, Any]):
    """Names of a formula; those that the page defines are computed when they are asked for."""

    def __init__(self, equations: dict[str, str], **known: Any) -> None:
        super().__init__(known, exp=_exp, σ=lambda x: 1.0 / (1.0 + _exp(x)), F=96485.0)
        self.equations = equations

    def __missing__(self, name: str) -> Any:
        self[name] = value = eval(self.equations[name], {"__builtins__": {}}, self)  # our own page
        return value

    def currents(self) -> float:
        return float(sum(self[name] for name in self.equations if name.startswith("I_")))


def _close(ours: Any, page: Any) -> None:
    np.testing.assert_allclose(ours, page, rtol=1e-9, atol=1e-12)


GATES = np.linspace(0.13, 0.87, 11)  # any values between 0 and 1


@pytest.mark.parametrize("V", VOLTAGES)
def test_thalamus(V: float) -> None:
    page = _Values(_equations(_section("**Thalamus**", "**STN**")), V=V, h=GATES[0], r=GATES[1])
    gates = np.repeat(GATES[:2, None], 10, axis=1)
    _close(reference._thalamus(0, V, gates, 0.0, 1.0) - V, -page.currents())
    _close(gates[:, 0] - GATES[:2], [(page[f"{x}_inf"] - page[x]) / page[f"τ_{x}"] for x in "hr"])
    _close(thalamus.p_inf(V), page["p_inf"])


@pytest.mark.parametrize("V", VOLTAGES)
def test_stn(V: float) -> None:
    names = ("n", "m", "h", "a", "b", "c", "d1", "d2", "p", "q", "r")  # order of `envs.plant.stn`
    section = _section("**STN**", "**GPe and GPi**")
    assert "E_Ca = RT/2F ln(2000/Ca) at 298 K" in section
    known = dict(zip(names, GATES, strict=True))
    known["E_Ca"] = 8.314 * 298.0 / (2.0 * 96485.0) * 1000.0 * math.log(2000.0 / 0.007)
    page = _Values(_equations(section), V=V, Ca=0.007, **known)
    gates, calcium = np.repeat(GATES[:, None], 10, axis=1), np.full(10, 0.007)
    _close(reference._stn(0, V, gates, calcium, 0.0, 1.0) - V, -page.currents())
    _close(gates[:, 0] - GATES, [(page[f"{x}_inf"] - page[x]) / page[f"τ_{x}"] for x in names])
    _close(calcium[0] - 0.007, page["dCa/dt"])
    assert len(names) == stn.N_GATES


@pytest.mark.parametrize("V", VOLTAGES)
def test_pallidum(V: float) -> None:
    section = _section("**GPe and GPi**", "**Striatum")
    drive = float(re.findall(r"both get (\d+) µA", section)[0])
    page = _Values(_equations(section), V=V, Ca=0.3, **dict(zip("nhr", GATES, strict=False)))
    gates, calcium = np.repeat(GATES[: pallidum.N_GATES, None], 10, axis=1), np.full(10, 0.3)
    _close(reference._pallidum(0, V, gates, calcium, 0.0, 1.0) - V, drive - page.currents())
    _close(gates[:, 0] - GATES[:3], [page[f"d{x}/dt"] for x in "nhr"])
    _close(calcium[0] - 0.3, page["dCa/dt"])


@pytest.mark.parametrize("V", VOLTAGES)
def test_striatum(V: float) -> None:
    page = _Values(
        _equations(_section("**Striatum", "**Cortex**")), V=V, g_M=1.7, **dict(zip("mhnp", GATES, strict=False))
    )
    gates = np.repeat(GATES[:4, None], 10, axis=1)
    _close(reference._striatum(0, V, gates, 1.7, 0.0, 1.0) - V, -page.currents())
    rates = [page[f"α_{x}"] * (1.0 - page[x]) - page[f"β_{x}"] * page[x] for x in "mhnp"]
    _close(gates[:, 0] - GATES[:4], rates)


def test_cortex() -> None:
    section = " ".join(_section("**Cortex**", "## The synapses").split())
    dv, a, b = re.findall(r"v' = (.*) \+ I, u' = (a) \((.*) v - u\)", section)[0]
    assert a == "a"
    kinds = [tuple(map(float, kind)) for kind in re.findall(r"\(a = ([\d.]+), d = (\d+)\)", section)]
    assert kinds == [(cortex.A_EXC, cortex.D_EXC), (cortex.A_INH, cortex.D_INH)]
    assert "at v ≥ 30 sets v = -65 and u = u + d instead" in section
    for rate, d in kinds:
        for v in (-71.0, 12.0, 29.999, 30.0, 41.0):
            u = np.full(10, -7.0)
            new = reference._cortex(0, v, u, rate, d, 2.5, 0.02)
            page = _Values({"v'": _python(dv)}, v=v, u=-7.0)
            expected = (v + 0.02 * (page["v'"] + 2.5), -7.0 + 0.02 * rate * (float(b) * v + 7.0))
            _close((new, u[0]), (-65.0, -7.0 + d) if v >= 30.0 else expected)


# -- synapses -----------------------------------------------------------------------------------------------------


class _Ones:
    """A generator whose every uniform draw is 1."""

    def random(self, n: int) -> np.ndarray:
        return np.ones(n)

    def standard_normal(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.zeros(shape)

    def permutation(self, n: int) -> np.ndarray:
        return np.arange(n)

    def choice(self, n: int, size: int, replace: bool) -> np.ndarray:
        assert not replace
        return np.arange(size)


ROWS = [
    match.groups()
    for match in re.finditer(
        r"^\| (\w+) → (\w+)(?: (AMPA|NMDA))? \| (alpha|biexp) \((.*?)\) \| (.*?) \| (.*?) \|$", PAGE, re.M
    )
]


def test_every_event_synapse_is_on_the_page() -> None:
    ports = [port for connection in lay.CONNECTIONS if not connection.end for port in connection.ports]
    assert len(ROWS) == len(ports) == 14


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(filter(None, row[:3])))
def test_event_synapse(row: tuple[str, ...]) -> None:
    """Kernel, delay, sources and current of each row of the table."""
    source, target, receptor, kind, constants, heard, current = row
    weight = "_".join(filter(None, (source, target, (receptor or "").lower())))
    places = [(c, port) for c in lay.CONNECTIONS for port in c.ports if port.weight == weight and not c.end]
    ((connection, port),) = places
    kernel = synapses.KERNELS[port.kernel]
    assert POPULATIONS[connection.source] == source == kernel.source
    peak, delay, *taus = (part.strip() for part in constants.split(";"))
    assert (kernel.g, kernel.delay_ms) == (float(peak), float(delay))
    decay, rise = taus[0].split("/") if taus else ("5", "0")
    assert (kernel.tau_decay_ms, kernel.tau_rise_ms) == (float(decay), float(rise))
    assert (kind == "alpha") == (kernel.tau_rise_ms == 0.0)

    cells = heard.split(";")[0]
    ours = None if port.offsets is None else {-offset for offset in port.offsets}
    assert ours == (None if cells == "all" else {int(k[1:] or "0") for k in cells.split(", ")})
    strength = re.findall(r"^(.*?) (?:\(V\+85\)|V) Σ?S$", current)[0]
    reversal = "+85" in current
    assert ("inh" in port.rows[0] or port.rows[0].startswith("gpi_th")) == reversal
    for pd in (0.0, 0.4, 1.0):
        network = draw_network(_Ones(), pd)  # type: ignore[arg-type]
        page = eval(_python(strength), {"__builtins__": {}}, {"U": 1.0, "pd": pd})
        largest = lay.weights(network)[weight]
        _close(largest.max(), page)
        numbers = {"two": 2, "five": 5}
        cells_with = [n for word, n in numbers.items() if f"in {word}" in heard] or [10]
        assert np.count_nonzero(largest) == cells_with[0]


def test_kernels_have_the_shapes_of_the_page() -> None:
    line = next(line for line in PAGE.splitlines() if line.startswith("    alpha:"))
    alpha = re.findall(r"K = (.*?), τ = 5 ms", line)[0]
    for kernel in synapses.KERNELS:
        table = synapses.kernel_table(kernel, 0.01)
        x = np.arange(len(table)) * 0.01 - kernel.delay_ms
        _close(table[x < -1e-9], 0.0)
        assert table.max() == pytest.approx(kernel.g, rel=1e-3)  # its samples lie beside the peak
        for at in np.flatnonzero(x > 0.0)[[10, 400, 3000]]:
            if kernel.tau_rise_ms == 0.0:
                page = _Values({"K": _python(alpha)}, g=kernel.g, x=float(x[at]), τ=kernel.tau_decay_ms)["K"]
                _close(table[at], page)
            else:
                assert "K ∝ e^{-x/τd} - e^{-x/τr}, with peak g" in line
                x_all = np.append(np.arange(0.0, 20.0, 1e-5), x[at])
                shape = np.exp(-x_all / kernel.tau_decay_ms) - np.exp(-x_all / kernel.tau_rise_ms)
                _close(table[at], kernel.g * shape[-1] / shape.max())


def test_continuous_synapses() -> None:
    """One update of 0.02 ms: both kinds of the table, and the kick of an upward crossing."""
    opening, tau = re.findall(r"continuous: S' = (.*)\(1-S\) - S/(\d+) ", PAGE)[0]
    a, b, kick = re.findall(r"Z' = -\((2/5)\) Z - S/(\d+): .* Z jumps by (.*?) where v crosses -10 mV", PAGE)[0]
    dt = 0.02
    for V, new in ((-40.0, -39.0), (-10.5, -9.5), (-9.0, 20.0), (12.0, -30.0)):
        old, gaba, ctx = np.full((8, 10), V), np.full((2, 10), 0.3), np.full((4, 10), 0.2)
        reference._continuous_synapses(old, np.full((8, 10), new), gaba, ctx, dt)
        page = _Values({"opening": _python(opening), "kick": _python(kick)}, V=V, tanh=math.tanh, e=math.e)
        _close(gaba, 0.3 + dt * (page["opening"] * 0.7 - 0.3 / float(tau)))
        S = 0.2 + dt * 0.2
        Z = 0.2 - dt * (eval(a) * 0.2 + S / float(b)) + (page["kick"] if V < -10.0 < new else 0.0)
        _close(ctx, np.array([S, Z, S, Z])[:, None] * np.ones(10))
    for row, ours in (
        ("(0.1/4), (0.1/3) (V+80)", (synapses.G_D2_D2, synapses.G_D1_D1)),
        ("0.1 V ΣS, 0.2 (V+85)", (synapses.G_CE_CI, synapses.G_CI_CE)),
    ):
        assert row in PAGE
        _close(ours, [eval(number) for number in re.findall(r"\(0.1/\d\)|0\.\d", row)])
    assert (synapses.E_GABA_STR, synapses.E_GABA, synapses.E_EXC) == (-80.0, -85.0, 0.0)


def test_start_disease_and_input() -> None:
    """The numbers of the last paragraphs."""
    network = draw_network(_Ones())  # type: ignore[arg-type]
    state = initial_state(network)
    number = r"(-?\d+\.?\d*)"
    start = re.findall(
        rf"V = {number} \+ 5z \(striatum {number} \+ 5z; z standard normal\), cortex v = {number}, u = {number}", PAGE
    )[0]
    V, striatum, v, u = map(float, start)
    _close(state.V[:, 0], [V] * 4 + [striatum] * 2 + [v] * 2)
    _close(state.u, u)
    calcium = re.findall(rf"Ca {number} \(STN\) and {number} \(GPe, GPi\); synapses at 0", PAGE)[0]
    _close([state.stn_ca[0], state.gpe_ca[0]], [float(value) for value in calcium])
    assert SD_V0_MV == 5.0
    text = " ".join(PAGE.split())
    low, high = re.findall(
        rf"g_M of the striatum {number} → {number}, ce → d1 0.07 → 0.026, gpe → gpe 0.25 → 1 times", text
    )[0]
    _close([disease_parameters(pd)["g_m"] for pd in (0.0, 1.0)], [float(low), float(high)])
    _close([disease_parameters(pd)["g_gpe_gpe_factor"] for pd in (0.0, 1.0)], [0.25, 1.0])
    _close([ctx_d1_base(pd) for pd in (0.0, 1.0)], [0.07, 0.026])
    pulse = re.findall(rf"{number} µA/cm² for {number} ms; each interval .* of mean {number} Hz, cv {number}\.", text)[
        0
    ]
    _close((SMC_AMPLITUDE, SMC_WIDTH_MS, SMC_RATE_HZ, SMC_CV), [float(value) for value in pulse])
    stimulus = re.findall(rf"{number} µA/cm² for {number} ms into all STN cells", text)[0]
    _close((PULSE_AMPLITUDE, PULSE_WIDTH_MS), [float(value) for value in stimulus])
