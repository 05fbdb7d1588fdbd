"""Vector code for a nucleus, derived from its readable definition by algebra before exp.

All rates of a cell depend on one voltage, so powers of one exponential serve many: with z = e^{V/120}, e^{V/40} is z³
and e^{V/5} is z²⁴. And a gate's (x∞ - x)/τ is brought to one fraction, so that it costs one division. These are
identities, not approximations. `derive` does both to what `envs.plant.batch_symbols` traced, and writes Python source.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

from envs.plant.batch_symbols import Node, linear

STEEP_PER_MV = 1.0  # 1/mV; a steeper exponential is clamped where the sigmoid on it is saturated to the last bit
STEEP_LIMIT = 40.0  # 1 + e^-40 = 1 in float64
LINOID_SERIES = 0.02  # |x/slope| below which linoid is taken from its series: the next term is 2e-15 relative
SAFE_MV = (-150.0, 100.0)  # mV; float32 takes rates no further out, where products of exponentials would overflow
LN2 = math.log(2.0)
EXP_COST, MAX_POWER = 16, 24  # multiplications that an exponential costs; power of a base (error grows with it)

Atom = tuple[Any, ...]


class Fractional:
    """coef · Π atom^exponent; negative exponents are the denominator."""

    def __init__(self, coef: float, factors: dict[Atom, int] | None = None) -> None:
        self.coef = coef
        self.factors = {a: n for a, n in (factors or {}).items() if n != 0}

    @property
    def key(self) -> tuple[Any, ...]:
        return (self.coef, tuple(sorted(self.factors.items(), key=repr)))

    def __mul__(self, other: Fractional) -> Fractional:
        factors = dict(self.factors)
        for atom, n in other.factors.items():
            factors[atom] = factors.get(atom, 0) + n
        return Fractional(self.coef * other.coef, factors)

    def inverse(self) -> Fractional:
        return Fractional(1.0 / self.coef, {a: -n for a, n in self.factors.items()})

    def __add__(self, other: Fractional) -> Fractional:
        common: dict[Atom, int] = {}
        for f in (self, other):
            for atom, n in f.factors.items():
                common[atom] = min(common.get(atom, 0), n, 0)
        denominator = Fractional(1.0, common)
        terms: dict[tuple[Any, ...], Fractional] = {}
        for f in (self, other):
            for term in _terms(f * denominator.inverse()):
                key = term.key[1]
                terms[key] = Fractional(term.coef + (terms[key].coef if key in terms else 0.0), term.factors)
        kept = [t for t in terms.values() if t.coef != 0.0]
        if not kept:
            return Fractional(0.0)
        if len(kept) == 1:
            return kept[0] * denominator
        scale = 1.0 if any(not t.factors for t in kept) else kept[0].coef
        atom = ("sum", tuple(Fractional(t.coef / scale, t.factors).key for t in kept))
        return Fractional(scale, {atom: 1}) * denominator


def _terms(f: Fractional) -> Iterable[Fractional]:
    """A plain sum as its terms, anything else as one term."""
    if len(f.factors) == 1:
        ((atom, n),) = f.factors.items()
        if atom[0] == "sum" and n == 1:
            return [Fractional(f.coef * coef, dict(factors)) for coef, factors in atom[1]]
    return [f]


def power_chain(powers: Iterable[int]) -> list[tuple[int, int, int]]:
    """Multiplications (n, i, j), z^n = z^i z^j, that give all powers from z; few, found greedily."""
    known, chain = {1}, []

    def search(target: int, have: set[int], depth: int) -> list[tuple[int, int, int]] | None:
        for i in sorted(have, reverse=True):
            if target - i in have:
                return [(target, i, target - i)]
        if depth == 0:
            return None
        candidates = sorted({i + j for i in have for j in have if i + j < target} - have, reverse=True)
        for n in candidates:
            rest = search(target, have | {n}, depth - 1)
            if rest is not None:
                i = max(i for i in have if n - i in have)
                return [(n, i, n - i), *rest]
        return None

    for target in sorted(set(powers) - {1}):
        for depth in range(8):
            found = search(target, known, depth) if target not in known else []
            if found is not None:
                chain += found
                known |= {n for n, _, _ in found}
                break
    return chain


def choose_bases(slopes: Iterable[Fraction], max_power: int = MAX_POWER) -> dict[Fraction, tuple[Fraction, int]]:
    """slope -> (base slope, power): the grouping into families that saves most, one family after another."""
    left = {abs(s) for s in slopes}
    chosen: dict[Fraction, tuple[Fraction, int]] = {}
    while left:
        candidates = left | {_gcd(a, b) for a in left for b in left}
        best, best_saving = None, -1
        for base in sorted(candidates):
            powers = {int(s / base): s for s in left if (s / base).denominator == 1 and s / base <= max_power}
            saving = EXP_COST * (len(powers) - 1) - len(power_chain(powers))
            if saving > best_saving:
                best, best_saving, members = base, saving, powers
        assert best is not None
        chosen.update({s: (best, n) for n, s in members.items()})
        left -= set(members.values())
    return chosen


def _gcd(a: Fraction, b: Fraction) -> Fraction:
    return Fraction(math.gcd(a.numerator * b.denominator, b.numerator * a.denominator), a.denominator * b.denominator)


def _exponentials(node: Node, found: list[tuple[Fraction, Fraction]], seen: set[Node]) -> None:
    if node in seen:
        return
    seen.add(node)
    if node.kind == "exp":
        form = linear(node.args[0])
        assert form is not None, "only exponentials of the voltage are known"
        found.append(form)
    elif node.kind == "linoid":
        form = linear(node.args[0])
        assert form is not None
        slope = Fraction(repr(node.args[1].value))
        found.append((-form[0] / slope, -form[1] / slope))
    for arg in node.args:
        _exponentials(arg, found, seen)


class Writer:
    """Writes the statements that compute some nodes."""

    def __init__(self, roots: Sequence[Node]) -> None:
        found: list[tuple[Fraction, Fraction]] = []
        seen: set[Node] = set()
        for root in roots:
            _exponentials(root, found, seen)
        gentle = [a for a, _ in found if abs(a) < STEEP_PER_MV]
        self._bases = choose_bases(gentle)
        votes: dict[Fraction, int] = {}
        for a in gentle:
            base = self._bases[abs(a)][0]
            votes[base] = votes.get(base, 0) + (1 if a > 0 else -1)
        self._sign = {base: 1 if vote >= 0 else -1 for base, vote in votes.items()}
        self._powers: dict[Fraction, set[int]] = {base: set() for base in votes}
        self.lines: list[str] = []
        self._names: dict[Any, str] = {}

    # -- algebra -------------------------------------------------------------------------------------------------------

    def fraction(self, node: Node) -> Fractional:
        """A node as one fraction."""
        if node.kind == "number":
            return Fractional(node.value)
        form = linear(node)
        if form is not None and node.kind != "var":
            return Fractional(1.0, {("node", node): 1})
        if node.kind == "+":
            return self.fraction(node.args[0]) + self.fraction(node.args[1])
        if node.kind == "-":
            return self.fraction(node.args[0]) + Fractional(-1.0) * self.fraction(node.args[1])
        if node.kind == "*":
            return self.fraction(node.args[0]) * self.fraction(node.args[1])
        if node.kind == "/":
            return self.fraction(node.args[0]) * self.fraction(node.args[1]).inverse()
        if node.kind == "exp":
            return self._exponential(node)
        return Fractional(1.0, {("node", node): 1})

    def _exponential(self, node: Node) -> Fractional:
        form = linear(node.args[0])
        assert form is not None
        a, b = form
        if abs(a) >= STEEP_PER_MV:
            return Fractional(1.0, {("steep", a, b): 1})
        base, n = self._bases[abs(a)]
        sign = self._sign[base] * (1 if a > 0 else -1)
        return Fractional(math.exp(b), {("z", base): sign * n})

    # -- writing -------------------------------------------------------------------------------------------------------

    def _let(self, key: Any, text: str) -> str:
        if key not in self._names:
            name = f"t{len(self._names)}"
            self.lines.append(f"{name} = {text}")
            self._names[key] = name
        return self._names[key]

    def value(self, node: Node) -> str:
        """Name of the value of a node, computed as it is written; quotients as one fraction."""
        if node.kind == "number":
            return repr(node.value)
        if node.kind == "var":
            return node.name
        if node in self._names:
            return self._names[node]
        form = linear(node)
        if form is not None:
            text = f"V + {float(form[1])!r}" if form[0] == 1 else f"{float(form[0])!r} * V + {float(form[1])!r}"
            return self._let(node, text)
        if node.kind in ("/", "exp"):
            return self._let(node, self._quotient(self.fraction(node)))
        if node.kind == "log":
            return self._let(node, f"log({self.value(node.args[0])})")
        if node.kind == "linoid":
            return self._linoid(node)
        left, right = (self.value(arg) for arg in node.args)
        return self._let(node, f"{left} {node.kind} {right}")

    def _quotient(self, f: Fractional) -> str:
        scalars = [name for name in ("dt",) if f.factors.get(("node", Node("var", name=name))) == 1]
        factors = {a: n for a, n in f.factors.items() if a[0] != "node" or a[1].name not in scalars}
        above = self._product({a: n for a, n in factors.items() if n > 0})
        below = self._product({a: -n for a, n in factors.items() if n < 0})
        scale = " * ".join([*scalars, *([repr(f.coef)] if f.coef != 1.0 else [])])
        if not below:
            return " * ".join(part for part in (f"({scale})" if scale else "", above) if part) or "1.0"
        if not scalars:
            above = " * ".join(part for part in (scale, above) if part)
            return f"({above or '1.0'}) / ({below})"
        return f"({scale}) * (({above or '1.0'}) / ({below}))"

    def _product(self, factors: dict[Atom, int]) -> str:
        return " * ".join(self._atom(atom, n) for atom, n in factors.items())

    def _atom(self, atom: Atom, n: int) -> str:
        if atom[0] == "z":
            self._powers[atom[1]].add(n)
            return self._power_name(atom[1], n)
        if atom[0] == "node":
            name = self.value(atom[1])
        elif atom[0] == "steep":
            name = self._let(atom, _steep_text(atom[1], atom[2]))
        else:
            name = self._let(atom, self._sum(atom))
        return " * ".join([name] * n)

    def _sum(self, atom: Atom) -> str:
        terms = []
        for coef, factors in atom[1]:
            product = self._quotient(Fractional(1.0, dict(factors))) if factors else ""
            terms.append(" * ".join(p for p in ("" if coef == 1.0 and product else repr(coef), product) if p))
        return " + ".join(terms)

    def _linoid(self, node: Node) -> str:
        """x/(1 - e^{-x/s}), by its series around 0."""
        form, slope = linear(node.args[0]), node.args[1].value
        assert form is not None
        mirror = Node("linoid", (_mirror(node.args[0]), node.args[1]))
        for other in self._names:
            if isinstance(other, Node) and other.kind == "linoid" and _same_linoid(other, mirror):
                return self._let(node, f"{self._names[other]} + ({float(form[0])!r} * V + {float(form[1])!r})")
        x = self._let(("lin", form), f"{float(form[0])!r} * V + {float(form[1])!r}")
        exponential = Node("exp", (Node("/", (_mirror(node.args[0]), node.args[1])),))
        one_minus = self.fraction(Node("-", (Node("number", value=1.0), exponential)))
        quotient = self._quotient(Fractional(1.0, {("node", Node("var", name=x)): 1}) * one_minus.inverse())
        u = self._let(("u", node), f"{x} * {1.0 / slope!r}")
        uu = self._let(("uu", node), f"{u} * {u}")
        series = f"{slope!r} + {x} * 0.5 + {uu} * ({slope / 12.0!r} + {uu} * {-slope / 720.0!r})"
        return self._let(node, f"select({uu} < {LINOID_SERIES**2!r}, {series}, {quotient})")

    def _power_name(self, base: Fraction, n: int) -> str:
        order = list(self._powers).index(base)
        return f"z{order}" if n == 1 else f"z{order}_{n}"

    def prologue(self) -> list[str]:
        """The exponentials and their powers; valid once everything was written."""
        lines = [f"W = clamp_single(V, {SAFE_MV[0]!r}, {SAFE_MV[1]!r})"]
        for base, powers in self._powers.items():
            slope = self._sign[base] * base
            lines.append(f"{self._power_name(base, 1)} = exp2(W * {float(slope) / LN2!r})  # e^(V*{slope})")
            for n, i, j in power_chain(powers):
                names = (self._power_name(base, m) for m in (n, i, j))
                lines.append("{} = {} * {}".format(*names))
        return lines


def _mirror(x: Node) -> Node:
    return Node("*", (Node("number", value=-1.0), x))


def _same_linoid(a: Node, b: Node) -> bool:
    return linear(a.args[0]) == linear(b.args[0]) and a.args[1] == b.args[1]


def _steep_text(a: Fraction, b: Fraction) -> str:
    limit = STEEP_LIMIT / LN2
    return f"exp2(clamp(V * {float(a) / LN2!r} + {float(b) / LN2!r}, {-limit!r}, {limit!r}))"


def derive(name: str, arguments: Sequence[str], results: Sequence[Node]) -> str:
    """Python source of a function of vectors that returns the results."""
    writer = Writer(results)
    values = [writer.value(result) for result in results]
    body = [*writer.prologue(), *writer.lines, f"return {', '.join(values)}"]
    return "\n".join([f"def {name}({', '.join(arguments)}):", *(f"    {line}" for line in body)]) + "\n"
