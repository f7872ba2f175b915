"""The forces of an ``openmm.System`` as potentials. What is not understood is an error, never left out."""

from typing import Any

import numpy as np

from metastable.core.contracts import Potential
from metastable.core.errors import InputError, Problem
from metastable.io.expressions import first_match, match
from metastable.io.sites import site_problems
from metastable.io.solvent import custom_born, native_born
from metastable.io.tables import Unsupported, number, table_values
from metastable.potentials.analytic import Index
from metastable.potentials.bonded import (
    HarmonicAngles,
    HarmonicBonds,
    HarmonicTorsions,
    PeriodicTorsions,
    RyckaertBellemansTorsions,
    TorsionMaps,
)
from metastable.potentials.ewald import choose_alpha, choose_grid, choose_kmax
from metastable.potentials.nonbonded import Combined, Exceptions, Geometric, Nonbonded, Tabulated
from metastable.potentials.periodic import MeshEwald, Periodic, PlainEwald, ReactionField

_DRIVERS = ("AndersenThermostat", "MonteCarloBarostat", "MonteCarloAnisotropicBarostat", "MonteCarloMembraneBarostat",
            "MonteCarloFlexibleBarostat")  # fmt: skip
_IMPROPERS = {
    "exact": "k*(theta-theta0)^2",
    "wrapped": "k*min(dtheta,2*pi-dtheta)^2;dtheta=abs(theta-theta0);pi={pi}",
    "wrapped-number": "k*min(dtheta,2*{pi}-dtheta)^2;dtheta=abs(theta-theta0)",
    "wrapped-half": "0.5*k*(thetap-theta0)^2;"
    "thetap=step(-(theta-theta0+pi))*2*pi+theta+step(theta-theta0-pi)*(-2*pi);pi={pi}",
}
_LENNARD_JONES = {
    "squared": "(a/r6)^2-b/r6;r6=r^6;a=acoef(type1,type2);b=bcoef(type1,type2)",
    "plain": "acoef(type1,type2)/r^12-bcoef(type1,type2)/r^6",
    "geometric": "A1*A2/r^12-C1*C2/r^6",
}
_LENNARD_JONES_14 = {"sigma": "{four}*epsilon*((sigma/r)^12-(sigma/r)^6)", "coefficients": "-C/r^6+A/r^12"}


def terms(system: Any) -> dict[str, Potential]:
    """Every force of an ``openmm.System`` as a named potential.

    A CMMotionRemover is passed over, because it is a rule for the dynamics and no energy. The non-bonded
    forces (NonbondedForce, tabulated Lennard-Jones, its 1-4 pairs) become one term.

    Virtual sites have no part in it: the potentials take them where they are.

    Raises InputError that names every force that is not understood, and every virtual site that has no parents or is
    of an unknown kind.
    """
    found: dict[str, Potential] = {}
    problems: list[Problem] = []
    nonbonded: dict[str, Any] = {}
    for force in system.getForces():
        kind, name = type(force).__name__, force.getName()
        label = kind if name == kind else f"{kind} '{name}'"
        try:
            _refuse(force, kind)
            role = _nonbonded_role(force, kind)
            if role in nonbonded:
                raise Unsupported(f"is a second {role} force: one is supported")
            if role is not None:
                nonbonded[role] = force
            elif kind != "CMMotionRemover":
                base, term = _convert(force, kind)
                found[_unused(base, found)] = term
        except Unsupported as error:
            problems.append(Problem(label, str(error)))
    if nonbonded and not problems:
        try:
            found["nonbonded"] = _nonbonded(box_vectors(system), **nonbonded)
        except Unsupported as error:
            problems.append(Problem("NonbondedForce", str(error)))
    problems += site_problems(system)
    if problems:
        raise InputError(*problems)
    if not found:
        raise InputError("the system has no forces: there is nothing to simulate")
    return found


def _refuse(force: Any, kind: str) -> None:
    if kind in _DRIVERS:
        raise Unsupported("changes temperature or volume by itself: remove it, and choose a thermostat here")
    method = getattr(force, "getNonbondedMethod", None)
    if method is None:
        if kind != "CMMotionRemover" and force.usesPeriodicBoundaryConditions():
            raise Unsupported("takes bonds to the nearest images: molecules are kept whole here, build it without")
    elif kind in ("GBSAOBCForce", "CustomGBForce") and method() != force.NoCutoff:
        raise Unsupported("has a cutoff: implicit solvent is for molecules in no box, built with NoCutoff")
    elif kind in ("NonbondedForce", "CustomNonbondedForce") and method() == force.CutoffNonPeriodic:
        raise Unsupported("has a cutoff and no box: build the system with NoCutoff, or with a periodic method")
    elif kind == "NonbondedForce" and method() == force.LJPME:
        raise Unsupported("has Ewald sums of Lennard-Jones: build the system with PME")
    for option in ("GlobalParameters", "ParticleParameterOffsets", "ExceptionParameterOffsets", "InteractionGroups"):
        count = getattr(force, f"getNum{option}", None)
        if count is not None and count():
            raise Unsupported(f"has {count()} {option}, which are not supported")


def _unused(base: str, taken: dict) -> str:
    return next(n for n in (base, *(f"{base}_{i}" for i in range(2, 1000))) if n not in taken)


def _convert(force: Any, kind: str) -> tuple[str, Potential]:
    """(name, potential) of a force that stands for itself."""
    if kind not in _CONVERSIONS:
        raise Unsupported(f"is not supported. Supported forces: {', '.join(sorted(_SUPPORTED))}")
    name, convert = _CONVERSIONS[kind]
    return name, convert(force)


def _rows(force: Any, what: str, atoms: int) -> tuple[Index, np.ndarray]:
    """Atoms and the parameters, in OpenMM's units, of all the bonds, angles or torsions of a force."""
    count = getattr(force, f"getNum{what}s")()
    rows = [[number(x) for x in _flat(getattr(force, f"get{what}Parameters")(i))] for i in range(count)]
    width = len(rows[0]) if rows else atoms
    table = np.array(rows, float).reshape(count, width)
    return Index(table[:, :atoms], atoms), table[:, atoms:]


def _flat(row: Any) -> list[Any]:
    return [y for x in row for y in (x if isinstance(x, tuple) else (x,))]


def _bonds(force):
    index, rows = _rows(force, "Bond", 2)
    return HarmonicBonds(index, *_columns(rows, 2))


def _angles(force):
    index, rows = _rows(force, "Angle", 3)
    return HarmonicAngles(index, *_columns(rows, 2))


def _periodic(force):
    index, rows = _rows(force, "Torsion", 4)
    periodicity, phases, barriers = _columns(rows, 3)
    return PeriodicTorsions(index, Index(periodicity), barriers, phases)


def _ryckaert_bellemans(force):
    index, rows = _rows(force, "Torsion", 4)
    return RyckaertBellemansTorsions(index, rows.reshape(-1, 6))


def _columns(rows: np.ndarray, count: int) -> list[np.ndarray]:
    return [np.ascontiguousarray(c) for c in rows.reshape(-1, count).T]


def _custom_torsions(force):
    form = first_match(_IMPROPERS, force.getEnergyFunction())
    names = [force.getPerTorsionParameterName(i) for i in range(force.getNumPerTorsionParameters())]
    if form is None or sorted(names) != ["k", "theta0"]:
        raise Unsupported(f"has the energy '{force.getEnergyFunction()}', which is not one of: {_listed(_IMPROPERS)}")
    index, rows = _rows(force, "Torsion", 4)
    columns = dict(zip(names, _columns(rows, 2), strict=True))
    half = 0.5 if form[0] == "wrapped-half" else 1.0
    return HarmonicTorsions(index, columns["theta0"], half * columns["k"], periodic=form[0] != "exact")


def _maps(force):
    tables = []
    for i in range(force.getNumMaps()):
        size, energy = force.getMapParameters(i)
        tables.append(np.array([number(x) for x in energy]).reshape(size, size).T)  # OpenMM's runs along phi first
    if len({len(t) for t in tables}) > 1:
        raise Unsupported("has maps of different sizes: give them in forces of their own")
    rows = np.array([force.getTorsionParameters(i) for i in range(force.getNumTorsions())], int).reshape(-1, 9)
    return TorsionMaps(Index(rows[:, 1:5], 4), Index(rows[:, 5:], 4), Index(rows[:, 0]), np.array(tables))


_CONVERSIONS = {
    "HarmonicBondForce": ("bonds", _bonds),
    "HarmonicAngleForce": ("angles", _angles),
    "PeriodicTorsionForce": ("torsions", _periodic),
    "RBTorsionForce": ("ryckaert_bellemans", _ryckaert_bellemans),
    "CustomTorsionForce": ("impropers", _custom_torsions),
    "CMAPTorsionForce": ("cmap", _maps),
    "GBSAOBCForce": ("solvent", native_born),
    "CustomGBForce": ("solvent", custom_born),
}
_SUPPORTED = (*_CONVERSIONS, "NonbondedForce", "CustomNonbondedForce", "CustomBondForce")


def _listed(templates: dict) -> str:
    return " | ".join(templates.values())


# ---- the non-bonded forces, which together are one term


def _nonbonded_role(force: Any, kind: str) -> str | None:
    """Which part of the non-bonded interactions a force is, or None."""
    if kind == "NonbondedForce":
        return "electrostatics"
    if kind == "CustomNonbondedForce":
        if first_match(_LENNARD_JONES, force.getEnergyFunction()) is None:
            raise Unsupported(f"has the energy '{force.getEnergyFunction()}', which is not one of: "
                              f"{_listed(_LENNARD_JONES)}")  # fmt: skip
        return "lennard_jones"
    if kind == "CustomBondForce":
        if first_match(_LENNARD_JONES_14, force.getEnergyFunction()) is None:
            raise Unsupported(f"has the energy '{force.getEnergyFunction()}', which is not one of: "
                              f"{_listed(_LENNARD_JONES_14)}")  # fmt: skip
        return "pairs_14"
    return None


def _nonbonded(
    box: np.ndarray, electrostatics: Any = None, lennard_jones: Any = None, pairs_14: Any = None
) -> Nonbonded | Periodic:
    if electrostatics is None:
        raise Unsupported("is missing: Lennard-Jones by a custom force is supported only beside a NonbondedForce")
    atoms = np.array([[number(x) for x in electrostatics.getParticleParameters(i)]
                      for i in range(electrostatics.getNumParticles())])  # fmt: skip
    rows = np.array([[number(x) for x in electrostatics.getExceptionParameters(i)]
                     for i in range(electrostatics.getNumExceptions())], float).reshape(-1, 5)  # fmt: skip
    pairs, charges, sigma, epsilon = rows[:, :2].astype(int), *(np.array(c) for c in rows[:, 2:].T)
    place = {frozenset(p): n for n, p in enumerate(pairs.tolist())}
    if lennard_jones is None:
        form = Combined(np.array(atoms[:, 1]), np.array(atoms[:, 2]))
    else:
        if np.any(atoms[:, 2]):
            raise Unsupported("and a CustomNonbondedForce both have Lennard-Jones between all atoms")
        excluded = {frozenset(lennard_jones.getExclusionParticles(i)) for i in range(lennard_jones.getNumExclusions())}
        if excluded != set(place):
            raise Unsupported("and the CustomNonbondedForce beside it exclude different pairs")
        form = _table(lennard_jones)
    if pairs_14 is not None:
        for pair, s, e in _pairs_14(pairs_14):
            n = place.get(pair)
            if n is None or epsilon[n] != 0:
                raise Unsupported(f"and the 1-4 force beside it do not agree on the pair {sorted(pair)}")
            sigma[n], epsilon[n] = s, e
    exceptions = Exceptions(Index(pairs, 2), charges, sigma, epsilon)
    if electrostatics.getNonbondedMethod() == electrostatics.NoCutoff:
        if lennard_jones is not None and lennard_jones.getNonbondedMethod() != lennard_jones.NoCutoff:
            raise Unsupported("has no cutoff, and the CustomNonbondedForce beside it has one")
        return Nonbonded(np.array(atoms[:, 0]), form, exceptions)
    return _periodic_sum(np.array(atoms[:, 0]), form, exceptions, electrostatics, lennard_jones, box)


def _periodic_sum(charges, form, exceptions, electrostatics, lennard_jones, box) -> Periodic:
    """The non-bonded energy in a box, with the cutoffs and the Ewald sum that OpenMM would use."""
    force = electrostatics
    cutoff = number(force.getCutoffDistance())
    method, tolerance = force.getNonbondedMethod(), force.getEwaldErrorTolerance()
    if method == force.CutoffPeriodic:
        coulomb: Any = ReactionField(force.getReactionFieldDielectric())
    else:
        alpha, *grid = (number(x) for x in force.getPMEParameters())
        if method == force.Ewald:
            alpha = choose_alpha(cutoff, tolerance)
            coulomb = PlainEwald(alpha, choose_kmax(box, alpha, tolerance))
        else:
            alpha = alpha or choose_alpha(cutoff, tolerance)
            x, y, z = (int(n) for n in grid) if all(grid) else choose_grid(box, alpha, tolerance)
            coulomb = MeshEwald(alpha, (x, y, z))
    switched, tail = force.getUseSwitchingFunction(), force.getUseDispersionCorrection()
    distance = number(force.getSwitchingDistance()) if switched else None
    if lennard_jones is not None:
        if lennard_jones.getNonbondedMethod() != lennard_jones.CutoffPeriodic or (
            number(lennard_jones.getCutoffDistance()) != cutoff
        ):
            raise Unsupported("and the CustomNonbondedForce beside it have different cutoffs")
        tail = lennard_jones.getUseLongRangeCorrection()
        distance = number(lennard_jones.getSwitchingDistance()) if lennard_jones.getUseSwitchingFunction() else None
    return Periodic(charges, form, exceptions, coulomb, cutoff, switch=distance, tail=bool(tail))


def box_vectors(system: Any) -> np.ndarray:
    """The default box of an ``openmm.System``, nm, one vector a row."""
    return np.array([[number(x) for x in v] for v in system.getDefaultPeriodicBoxVectors()])


def _table(force: Any) -> Tabulated | Geometric:
    """Lennard-Jones over types, or from one number an atom."""
    form, _ = first_match(_LENNARD_JONES, force.getEnergyFunction()) or ("", {})
    names = [force.getPerParticleParameterName(i) for i in range(force.getNumPerParticleParameters())]
    rows = np.array([force.getParticleParameters(i) for i in range(force.getNumParticles())], float)
    columns = dict(zip(names, rows.T, strict=True))
    if form == "geometric":
        return Geometric(np.array(columns["A"]), np.array(columns["C"]))
    tables = {force.getTabulatedFunctionName(i): force.getTabulatedFunction(i)
              for i in range(force.getNumTabulatedFunctions())}  # fmt: skip
    a, b = (table_values(tables[name]) for name in ("acoef", "bcoef"))
    return Tabulated(Index(columns["type"]), a**2 if form == "squared" else a, b)


def _pairs_14(force: Any):
    """(pair, sigma, epsilon) of each 1-4 pair that has Lennard-Jones."""
    numbers = match(_LENNARD_JONES_14["sigma"], force.getEnergyFunction())
    names = [force.getPerBondParameterName(i) for i in range(force.getNumPerBondParameters())]
    index, rows = _rows(force, "Bond", 2)
    for pair, row in zip(np.asarray(index).tolist(), rows, strict=True):
        values = dict(zip(names, row, strict=True))
        if numbers is not None:
            yield frozenset(pair), values["sigma"], values["epsilon"] * numbers["four"] / 4
            continue
        a, c = values["A"], values["C"]
        if (a == 0) != (c == 0) or a < 0:
            raise Unsupported(f"has a 1-4 pair {pair} with A = {a}, C = {c}: neither Lennard-Jones nor nothing")
        if a:
            yield frozenset(pair), (a / c) ** (1 / 6), c * c / (4 * a)
