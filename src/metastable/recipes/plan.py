"""The numbers of a run: what a recipe is told besides the molecule, the CVs and the bias."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from metastable.core.units import kelvin

BAROSTATS = ("c-rescale", "monte-carlo")
INTEGRATORS = ("langevin", "baoab", "overdamped", "csvr", "nose-hoover", "verlet")


@dataclass(frozen=True)
class Plan:
    """How to sample, how long, and what to write down. Precision is that of jax where the recipe is called.

    kT: kJ/mol. dt: ps. walkers: how many.
    integrator: one of INTEGRATORS. friction: 1/ps, of langevin, baoab and overdamped. relaxation: ps, the time of the
    csvr and nose-hoover thermostats.
    pressure: kJ/mol/nm^3, None for a box that stays. barostat: one of BAROSTATS; coupling: which ways the box goes;
    pressure_time: ps, of c-rescale. constant_volume: ps, first, before the pressure acts.
    skin: nm, of the lists of near pairs.
    blocks, steps: the run is so many blocks of so many steps; a kill costs at most one block.
    every: steps between two records. pace: steps between two updates of the bias.
    frames: records between two frames of the trajectory, into which the first ``trajectory_walkers`` walkers go.
    recenter: put each walker's center at the origin before each block: over long times it diffuses away, and single
    precision would be lost to the distance. Not for CVs or fields that know of an origin.
    seed: of all random numbers. minimize: the energy of the start, first.
    bins, ranges: of the landscape, one a CV; a range of None is that of the data, or the period.
    discard: what part of the run, from its start, the estimates leave out: the bias then still grows fast, and the
    walkers still remember that they began in one place.
    observables: by name, of :mod:`metastable.recipes.observables`: none of them goes with a bias.
    title, facts: for the report.
    """

    kT: float
    dt: float = 0.002
    friction: float = 1.0
    relaxation: float = 0.1
    integrator: str = "langevin"
    pressure: float | None = None
    barostat: str = "c-rescale"
    coupling: str = "isotropic"
    pressure_time: float = 1.0
    constant_volume: float = 0.0
    skin: float = 0.1
    walkers: int = 1
    blocks: int = 100
    steps: int = 5000
    every: int = 100
    pace: int = 100
    frames: int = 10
    trajectory_walkers: int = 1
    recenter: bool = False
    seed: int = 0
    minimize: bool = True
    bins: tuple[int, ...] = ()
    ranges: tuple[tuple[float, float] | None, ...] = ()
    discard: float = 0.2
    observables: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    title: str = ""
    facts: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self):
        for name in ("walkers", "blocks", "steps", "every", "pace", "frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"Plan: {name} = {getattr(self, name)} must be at least 1")
        if self.integrator not in INTEGRATORS:
            raise ValueError(f"Plan: integrator = '{self.integrator}' must be one of {', '.join(INTEGRATORS)}")
        if self.barostat not in BAROSTATS:
            raise ValueError(f"Plan: barostat = '{self.barostat}' must be one of {', '.join(BAROSTATS)}")
        if self.steps % self.every:
            raise ValueError(f"Plan: every = {self.every} must divide steps = {self.steps}")
        if not 0 <= self.discard < 1:
            raise ValueError(f"Plan: discard = {self.discard} must be from 0 to below 1")
        for name in ("kT", "dt", "relaxation", "pressure_time"):
            if not getattr(self, name) > 0:
                raise ValueError(f"Plan: {name} = {getattr(self, name)} must be above 0")
        left_out = self.discard * self.time
        if not 0 <= self.constant_volume <= left_out + 1e-9:
            message = f"must be from 0 to the {left_out} ps that the estimates leave out"
            raise ValueError(f"Plan: constant_volume = {self.constant_volume} ps {message}")

    @property
    def temperature(self) -> float:
        """K."""
        return self.kT / kelvin

    @property
    def records(self) -> int:
        """How many times the CVs will be recorded."""
        return self.blocks * self.steps // self.every

    @property
    def time(self) -> float:
        """ps, of each walker."""
        return self.blocks * self.steps * self.dt
