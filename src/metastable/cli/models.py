"""The input as typed models: every key, what it means, its default and its limits.

Each description here is what ``metastable init`` writes beside the key, so that they are written once.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, model_validator
from pydantic_core import PydanticCustomError

from metastable.cli.quantities import Measure, Quantity

Time = Annotated[Quantity, Measure("time", above="0 ps")]
Coordinate = Annotated[Quantity, Measure("number", "length", "angle")]
Width = Annotated[Quantity, Measure("number", "length", "angle")]
ForceConstant = Annotated[
    Quantity, Measure("energy", "force constant of a length", "force constant of an angle", least="0 kJ/mol")
]
GROUPS = ("all", "heavy", "backbone", "alpha")
_ATOMS = "all, heavy, backbone, alpha, a selection such as 'water and name O', or a list of atoms"


def _atom(value: Any) -> int | str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    if isinstance(value, str) and ":" in value:
        return value
    message = f"{value!r} is no atom: write its number, the first of the file being 1, or a name such as 'ALA2:CA'"
    raise PydanticCustomError("atom", "{message}", {"message": message})


def _group(value: Any) -> str | list[int | str]:
    if isinstance(value, list) and value:
        return [_atom(v) for v in value]
    if isinstance(value, str) and value.strip():
        return value.strip()
    message = f"{value!r} is no group: write {_ATOMS}"
    raise PydanticCustomError("group", "{message}", {"message": message})


Atom = Annotated[int | str, PlainValidator(_atom)]
Group = Annotated[str | list[int | str], PlainValidator(_group)]


class Section(BaseModel):
    """A table of the input: nothing but its keys may stand in it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)


class Implicit(Section):
    """Implicit solvent; without this table the molecule is in vacuum, unless a force field file says otherwise."""

    model: Literal["HCT", "OBC1", "OBC2", "GBn", "GBn2"] = Field(description="generalised Born model")
    solvent: float = Field(78.5, ge=1, description="relative permittivity of the solvent")
    solute: float = Field(1.0, ge=1, description="relative permittivity of the molecule")
    surface: bool = Field(True, description="the surface term of non-polar solvation")


class BoxInput(Section):
    """A periodic box; its vectors are those of the structure file, or of the water around the molecule."""

    cutoff: Annotated[Quantity, Measure("length", above="0 nm")] = Field(
        Quantity(0.9, "0.9 nm", "length"), description="of Lennard-Jones and of what PME does not do on its mesh"
    )
    electrostatics: Literal["pme", "ewald", "reaction-field"] = Field("pme", description="pme, ewald or reaction-field")
    tolerance: float = Field(5e-4, gt=0, lt=0.5, description="of the forces of pme and ewald")
    switch: Annotated[Quantity, Measure("length", above="0 nm")] | None = Field(
        None, description="where Lennard-Jones begins to be switched off, below the cutoff"
    )
    tail: bool = Field(True, description="the mean energy of Lennard-Jones beyond the cutoff")
    size: list[Annotated[Quantity, Measure("length", above="0 nm")]] | None = Field(
        None, min_length=3, max_length=3, description="three lengths in place of the box of the structure file"
    )
    skin: Annotated[Quantity, Measure("length", least="0 nm", most="0.5 nm")] = Field(
        Quantity(0.1, "0.1 nm", "length"), description="of the lists of near atoms: a matter of speed alone"
    )


class SolvateInput(Section):
    """Water around the molecule, and ions; the force field must know them (add 'amber14/tip3p.xml')."""

    model: Literal["tip3p", "spce", "tip4pew", "tip5p", "swm4ndp"] = Field(
        "tip3p", description="how the water is laid out: tip3p for all of three sites"
    )
    padding: Annotated[Quantity, Measure("length", above="0 nm")] = Field(
        Quantity(1.0, "1 nm", "length"), description="of water between the molecule and its images"
    )
    salt: Annotated[Quantity, Measure("concentration", least="0 mol/l", most="5 mol/l")] = Field(
        Quantity(0.0, "0 mol/l", "concentration"), description="beside the ions that neutralise"
    )
    shape: Literal["cube", "dodecahedron", "octahedron"] = Field("cube", description="cube, dodecahedron, octahedron")


class MoleculeInput(Section):
    """What is simulated."""

    structure: str = Field(min_length=1, description="PDB, mmCIF, inpcrd or gro file")
    forcefield: list[str] | None = Field(
        None, min_length=1, description="force field XML files, of OpenMM or your own (or else: parameters)"
    )
    parameters: list[str] | None = Field(
        None, min_length=1, description="prmtop, or psf and its parameter files, or top (in place of forcefield)"
    )
    constraints: Literal["none", "hydrogen-bonds", "all-bonds"] = Field(
        "hydrogen-bonds", description="bonds of fixed length: none, hydrogen-bonds or all-bonds"
    )
    hydrogen_mass: Annotated[Quantity, Measure("mass", least="1 Da", most="4 Da")] | None = Field(
        None, description="mass moved from heavy atoms to their hydrogens: 3 Da allows 4 fs"
    )
    fix: bool = Field(False, description="add missing atoms and hydrogens with pdbfixer")
    implicit: Implicit | None = Field(None, description="implicit solvent, e.g. {model = 'GBn2'}")
    box: BoxInput | None = Field(None, description="a periodic box, e.g. {cutoff = '0.9 nm'}")
    solvate: SolvateInput | None = Field(None, description="water in that box, e.g. {padding = '1 nm'}")

    @model_validator(mode="after")
    def _one_source(self):
        if (self.forcefield is None) == (self.parameters is None):
            raise ValueError("give either forcefield or parameters" + (", not both" if self.forcefield else ""))
        return self


class DynamicsInput(Section):
    """How it moves."""

    integrator: Literal["langevin", "baoab", "overdamped", "csvr", "nose-hoover", "verlet"] = Field(
        "langevin", description="langevin (leapfrog middle scheme), baoab, overdamped, csvr, nose-hoover or verlet"
    )
    temperature: Annotated[Quantity, Measure("temperature", above="0 K", most="1e5 K")] = Field(description="")
    timestep: Annotated[Quantity, Measure("time", above="0 fs", most="20 fs")] = Field(
        description="2 fs wants constraints, 4 fs hydrogen_mass = '3 Da' as well"
    )
    friction: Annotated[Quantity, Measure("rate", above="0 1/ps", most="1e5 1/ps")] = Field(
        Quantity(1.0, "1 1/ps", "rate"), description="of langevin, baoab and overdamped"
    )
    relaxation: Time = Field(Quantity(0.1, "0.1 ps", "time"), description="time of csvr and nose-hoover")
    pressure: Annotated[Quantity, Measure("pressure")] | None = Field(
        None, description="of a periodic box, e.g. '1 bar'; without it the box stays as it is"
    )
    barostat: Literal["c-rescale", "monte-carlo"] = Field("c-rescale", description="c-rescale or monte-carlo")
    coupling: Literal["isotropic", "semi-isotropic", "anisotropic", "triclinic"] = Field(
        "isotropic", description="which ways the box goes: isotropic, semi-isotropic, anisotropic or triclinic"
    )
    pressure_time: Time = Field(Quantity(1.0, "1 ps", "time"), description="time of c-rescale")
    constant_volume: Annotated[Quantity, Measure("time", least="0 ps")] = Field(
        Quantity(0.0, "0 ps", "time"), description="so long at first, before the pressure acts"
    )
    duration: Time = Field(description="of each walker")
    walkers: int = Field(1, ge=1, le=1_000_000, description="copies that run side by side")
    precision: Literal["single", "double"] = Field("single", description="single or double")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="of all random numbers: the same seed, the same run")
    minimize: bool = Field(True, description="minimise the energy of the structure first")


class _CVInput(Section):
    range: list[Coordinate] | None = Field(
        None, min_length=2, max_length=2, description="from, to: needed by a grid, unless the CV is periodic"
    )
    bins: int = Field(60, ge=4, le=2000, description="of the free energy along this CV")


class TorsionInput(_CVInput):
    """The torsion of four atoms."""

    type: Literal["torsion"]
    atoms: list[Atom] = Field(min_length=4, max_length=4, description="four atoms")


class AngleInput(_CVInput):
    """The angle of three atoms, the second at the corner."""

    type: Literal["angle"]
    atoms: list[Atom] = Field(min_length=3, max_length=3, description="three atoms")


class DistanceInput(_CVInput):
    """The distance of two atoms."""

    type: Literal["distance"]
    atoms: list[Atom] = Field(min_length=2, max_length=2, description="two atoms")


class GyrationInput(_CVInput):
    """The radius of gyration."""

    type: Literal["gyration"]
    atoms: Group = Field("heavy", description=_ATOMS)


class RMSDInput(_CVInput):
    """The deviation from the starting structure, after the best superposition."""

    type: Literal["rmsd"]
    atoms: Group = Field("heavy", description=_ATOMS)


class CoordinationInput(_CVInput):
    """How many pairs between two groups are in contact, counted smoothly: (1 - (r/r0)^6) / (1 - (r/r0)^12)."""

    type: Literal["coordination"]
    first: Group = Field(description=_ATOMS)
    second: Group = Field(description="others, of none of the first")
    r0: Annotated[Quantity, Measure("length", above="0 nm")] = Field(description="distance of half a contact")


class VolumeInput(_CVInput):
    """The volume of the periodic box."""

    type: Literal["volume"]


CVInput = VolumeInput | TorsionInput | AngleInput | DistanceInput | GyrationInput | RMSDInput | CoordinationInput


class MetadynamicsInput(Section):
    """Well-tempered metadynamics: all walkers feed one bias."""

    type: Literal["metadynamics"]
    cvs: list[str] | None = Field(None, min_length=1, max_length=3, description="which CVs; all where not given")
    height: Annotated[Quantity, Measure("energy", above="0 kJ/mol")] = Field(
        description="of the first hill of each walker"
    )
    width: dict[str, Width] = Field(description="of the hills, one a CV")
    bias_factor: float = Field(gt=1, le=1e6, allow_inf_nan=False, description="(T + delta T) / T")
    pace: Time = Field(description="time between two hills of a walker")
    grid: dict[str, int] | None = Field(None, description="points of the grid, one number a CV; chosen from width")


class OPESInput(Section):
    """OPES: all walkers feed one estimate of the density, from which the bias follows."""

    type: Literal["opes"]
    cvs: list[str] | None = Field(None, min_length=1, max_length=3, description="which CVs; all where not given")
    width: dict[str, Width] = Field(description="of the first kernels, one a CV: that of the minima, or a little less")
    barrier: Annotated[Quantity, Measure("energy", above="0 kJ/mol")] = Field(
        description="the highest free energy to be crossed, rather too high than too low"
    )
    bias_factor: float | None = Field(
        None, gt=1, le=1e6, allow_inf_nan=False, description="(T + delta T) / T; barrier / kT where not given"
    )
    explore: bool = Field(False, description="cross sooner to where nobody has been, and reweight less sharply")
    pace: Time = Field(description="time between two kernels of a walker")
    grid: dict[str, int] | None = Field(None, description="points of the grid, one number a CV; chosen from width")


class HarmonicInput(Section):
    """A restraint: force_constant / 2 * (cv - center)^2."""

    type: Literal["harmonic"]
    cv: str = Field(description="its CV")
    center: Coordinate = Field(description="where it pulls to")
    force_constant: ForceConstant = Field(description="with the square of the CV's unit")


class WallInput(Section):
    """A half-sided restraint: force_constant * (cv - at)^2 beyond the wall."""

    type: Literal["upper-wall", "lower-wall"]
    cv: str = Field(description="its CV")
    at: Coordinate = Field(description="where the wall stands")
    force_constant: ForceConstant = Field(description="with the square of the CV's unit")


class MovingInput(Section):
    """A restraint that moves evenly from start to end over the run."""

    type: Literal["moving"]
    cv: str = Field(description="its CV")
    start: Coordinate = Field(description="where it starts")
    end: Coordinate = Field(description="where it ends")
    force_constant: ForceConstant = Field(description="with the square of the CV's unit")


LearningInput = MetadynamicsInput | OPESInput
BiasInput = MetadynamicsInput | OPESInput | HarmonicInput | WallInput | MovingInput


class RDFInput(Section):
    """The radial distribution function g(r) of the second atoms around the first, and the neighbours within r."""

    type: Literal["rdf"]
    first: Group = Field(description=_ATOMS)
    second: Group | None = Field(None, description="others around these; the same where not given")
    limit: Annotated[Quantity, Measure("length", above="0 nm")] | None = Field(
        None, description="largest distance; half of the shortest side of the box where not given"
    )
    bins: int = Field(200, ge=10, le=2000, description="of g(r)")
    intramolecular: bool = Field(False, description="whether pairs within a molecule count, too")


class DiffusionInput(Section):
    """Diffusion by the mean squared displacement: of centres of molecules, where whole molecules are chosen."""

    type: Literal["diffusion"]
    atoms: Group = Field(description=_ATOMS)
    window: list[Time] | None = Field(
        None, min_length=2, max_length=2, description="from, to: where the displacement is straight"
    )

    @model_validator(mode="after")
    def _in_order(self):
        if self.window is not None and not self.window[0] < self.window[1]:
            raise ValueError(f"window: '{self.window[0].text}' must be before '{self.window[1].text}'")
        return self


class VelocityInput(Section):
    """The velocity autocorrelation, its spectrum, and diffusion by Green and Kubo: wants records every few fs."""

    type: Literal["velocity-autocorrelation"]
    atoms: Group = Field(description=_ATOMS)
    limit: Time = Field(Quantity(2.0, "2 ps", "time"), description="the longest time; 2 ps resolve 17 cm^-1")


class HeatCapacityInput(Section):
    """The heat capacity of a mole of molecules: isobaric where there is a pressure, else isochoric."""

    type: Literal["heat-capacity"]


class CompressibilityInput(Section):
    """The isothermal compressibility; needs a pressure."""

    type: Literal["compressibility"]


class ExpansionInput(Section):
    """The thermal expansion; needs a pressure."""

    type: Literal["thermal-expansion"]


class DielectricInput(Section):
    """The dielectric constant of a liquid of neutral molecules; needs pme or ewald."""

    type: Literal["dielectric"]


ObservableInput = (
    RDFInput | DiffusionInput | VelocityInput | HeatCapacityInput | CompressibilityInput | ExpansionInput
    | DielectricInput
)  # fmt: skip


class OutputInput(Section):
    """What is written down."""

    every: Time = Field(Quantity(0.2, "0.2 ps", "time"), description="time between two records of CVs and energies")
    trajectory: Time = Field(Quantity(2.0, "2 ps", "time"), description="time between two frames of the trajectory")
    trajectory_walkers: int = Field(1, ge=0, description="the first so many walkers go into the trajectory")
    block: Time | None = Field(None, description="time between two checkpoints: what a kill can cost")
    discard: float = Field(
        0.2, ge=0, le=0.9, description="the part of the run, from its start, that estimates leave out"
    )


CV_TYPES: dict[str, type[Any]] = {
    "torsion": TorsionInput, "angle": AngleInput, "distance": DistanceInput, "gyration": GyrationInput,
    "rmsd": RMSDInput, "coordination": CoordinationInput, "volume": VolumeInput,
}  # fmt: skip
BIAS_TYPES: dict[str, type[Any]] = {
    "metadynamics": MetadynamicsInput, "opes": OPESInput, "harmonic": HarmonicInput, "upper-wall": WallInput,
    "lower-wall": WallInput, "moving": MovingInput,
}  # fmt: skip
OBSERVABLE_TYPES: dict[str, type[Any]] = {
    "rdf": RDFInput, "diffusion": DiffusionInput, "velocity-autocorrelation": VelocityInput,
    "heat-capacity": HeatCapacityInput, "compressibility": CompressibilityInput,
    "thermal-expansion": ExpansionInput, "dielectric": DielectricInput,
}  # fmt: skip
CV_UNITS = {
    "torsion": "rad", "angle": "rad", "distance": "nm", "gyration": "nm", "rmsd": "nm", "coordination": "",
    "volume": "nm3",
}  # fmt: skip
LEARNING = ("metadynamics", "opes")
RECIPES = (*LEARNING, "dynamics")
