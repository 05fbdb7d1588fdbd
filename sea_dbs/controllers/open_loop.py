"""Controllers that do not read the observation: trains, chance, fixed patterns, another plant's decisions."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from envs.errors import UserError
from sea_dbs.controllers.base import Action, Observation, check_observation
from sea_dbs.pulse_trains import masks, min_slots


class _OpenLoop(ABC):
    """Shared by the controllers that do not read the observation."""

    def __init__(self, name: str, slots: int) -> None:
        self.name = name
        self.slots = slots
        self.n = 1

    def init_state(self, n: int = 1) -> None:
        self.n = n

    def act(self, observation: Observation) -> Action:
        check_observation(observation, n=self.n)
        return self._next()

    @abstractmethod
    def _next(self) -> Action:
        """The next decision of each environment."""


class Never(_OpenLoop):
    """No pulse, ever."""

    def __init__(self, slots: int) -> None:
        super().__init__("never", slots)

    def _next(self) -> Action:
        return np.zeros((self.n, self.slots), np.int8)


class Always(_OpenLoop):
    """A pulse in every slot."""

    def __init__(self, slots: int) -> None:
        super().__init__("always", slots)

    def _next(self) -> Action:
        return np.ones((self.n, self.slots), np.int8)


class Periodic(_OpenLoop):
    """A regular train of ``hz``, its phase kept in real time across decisions.

    A pulse is due at (m + phase)/hz seconds, m = 0, 1, ...; it falls into the first slot that starts at that time or
    later. Times are exact fractions, so that hours of stimulation drift by nothing.

    Args:
        slots: slots of a decision.
        slot_us: length of a slot in µs; a fraction where the slot is no whole number of µs (1/130 s).
        hz: pulses a second, from 0 to one a slot.
        phase: shift of the train in periods, from 0 to below 1.

    Raises:
        UserError: a rate above one pulse a slot, or a phase out of range.
    """

    def __init__(self, slots: int, slot_us: int | Fraction, hz: float, phase: float = 0.0) -> None:
        self.slot_s = Fraction(slot_us) / 1_000_000
        self.hz = Fraction(hz).limit_denominator(1_000_000) if math.isfinite(hz) else Fraction(-1)
        self.phase = Fraction(phase).limit_denominator(1_000_000) if math.isfinite(phase) else Fraction(-1)
        if not 0 <= self.hz * self.slot_s <= 1:
            raise UserError(f"a periodic train of {hz} Hz was asked for: from 0 to {float(1 / self.slot_s):g} Hz fit")
        if not 0 <= self.phase < 1:
            raise UserError(f"a periodic train with phase {phase} was asked for: from 0 to below 1 are allowed")
        super().__init__(f"periodic {float(self.hz):.4g} Hz", slots)
        self.slot = 0  # index of the next decision's first slot since init_state

    def init_state(self, n: int = 1) -> None:
        super().init_state(n)
        self.slot = 0

    def _due(self, slot: int) -> int:
        """Pulses due until the start of a slot, that time included."""
        return math.floor(slot * self.slot_s * self.hz - self.phase) + 1

    def _next(self) -> Action:
        counts = [max(0, self._due(slot)) for slot in range(self.slot - 1, self.slot + self.slots)]
        self.slot += self.slots
        return np.tile(np.diff(counts).astype(np.int8), (self.n, 1))


class RandomDuty(_OpenLoop):
    """Each slot stimulated with chance ``duty``, independently.

    Raises:
        UserError: a duty outside 0 to 1.
    """

    def __init__(self, slots: int, duty: float, seed: int = 0) -> None:
        if not 0.0 <= duty <= 1.0:
            raise UserError(f"random stimulation at duty {duty} was asked for: from 0 to 1 are allowed")
        super().__init__(f"random {duty:.3g}", slots)
        self.duty = duty
        self.seed = seed
        self.generator = np.random.default_rng(seed)

    def init_state(self, n: int = 1) -> None:
        super().init_state(n)
        self.generator = np.random.default_rng(self.seed)

    def _next(self) -> Action:
        return (self.generator.random((self.n, self.slots)) < self.duty).astype(np.int8)


class RandomTrains(_OpenLoop):
    """One of the trains of `sea_dbs.pulse_trains` for each decision of each environment, all with the same chance.

    Raises:
        UserError: a decision too short for them.
    """

    def __init__(self, slots: int, seed: int = 0) -> None:
        super().__init__("random trains", slots)
        self.masks = masks(slots).astype(np.int8)
        self.seed = seed
        self.init_state()

    def init_state(self, n: int = 1) -> None:
        super().init_state(n)
        # A plant of this seed draws from the seed alone: not the same numbers.
        self.generator = np.random.default_rng([self.seed, min_slots()])

    def _next(self) -> Action:
        return self.masks[self.generator.integers(len(self.masks), size=self.n)]


class Pattern(_OpenLoop):
    """A mask of slots, repeated in real time across decisions.

    Args:
        slots: slots of a decision.
        slot_us: length of a slot in µs.
        mask: the pattern's slots, each 0 or 1; it need not have the length of a decision.
        slot_hz: the slot rate that the pattern was made for, or a whole fraction of the present one; None: any.

    Raises:
        UserError: an empty mask, values other than 0 and 1, or a pattern made for another slot rate.
    """

    def __init__(
        self, slots: int, slot_us: int | Fraction, mask: str | Sequence[int], slot_hz: float | None = None
    ) -> None:
        bits = "".join(str(bit) for bit in mask)
        if not bits or set(bits) - {"0", "1"}:
            raise UserError(f"the pattern '{bits[:60]}' is no mask: one slot or more, each 0 or 1, is expected")
        own_hz = 1e6 / float(slot_us)
        finer = 1 if slot_hz is None else max(1, round(own_hz / slot_hz))  # slots in one of the pattern's
        if slot_hz is not None and abs(finer * slot_hz - own_hz) > 1e-3 * own_hz:  # sessions round a slot to whole µs
            raise UserError(f"the pattern was made for slots of {slot_hz:g} Hz, these are slots of {own_hz:g} Hz")
        self.mask = np.zeros(finer * len(bits), np.int8)
        self.mask[::finer] = [bit == "1" for bit in bits]
        tag = hashlib.sha256(bits.encode()).hexdigest()[:6]
        super().__init__(f"pattern {self.mask.mean() * own_hz:.4g} Hz ({len(self.mask)} slots, {tag})", slots)
        self.slot = 0

    def init_state(self, n: int = 1) -> None:
        super().init_state(n)
        self.slot = 0

    def _next(self) -> Action:
        chosen = self.mask[np.arange(self.slot, self.slot + self.slots) % len(self.mask)]
        self.slot += self.slots
        return np.tile(chosen, (self.n, 1))


class Replayed(_OpenLoop):
    """What a closed-loop controller decided on other plants, replayed: the same trains, deaf to this plant.

    Environment k gets sequence k + 1 (the last gets the first), so that where environments and sequences are the same
    plants, none gets its own.

    Args:
        slots: slots of a decision.
        sequences: a list a plant of its decisions, each a mask such as "0110"; after its last it begins again.
        source: names whose decisions they are.

    Raises:
        UserError: fewer than two sequences, an empty one, or a decision that is no mask of ``slots``.
    """

    def __init__(self, slots: int, sequences: Sequence[Sequence[str]], source: str = "policy") -> None:
        if len(sequences) < 2:
            raise UserError(f"{len(sequences)} action sequences were given to replay: two or more plants are needed")
        for sequence in sequences:
            wrong = [one for one in sequence if len(one) != slots or set(one) - {"0", "1"}]
            if wrong or not sequence:
                raise UserError(f"a decision to replay is '{''.join(wrong[:1])[:60]}': a mask of {slots} slots is due")
        super().__init__(f"replayed {source}", slots)
        self.sequences = [np.array([list(one) for one in sequence], np.int8) for sequence in sequences]
        self.step = 0

    def init_state(self, n: int = 1) -> None:
        super().init_state(n)
        self.step = 0

    def _next(self) -> Action:
        chosen = [self.sequences[(k + 1) % len(self.sequences)] for k in range(self.n)]
        self.step += 1
        return np.stack([one[(self.step - 1) % len(one)] for one in chosen])
