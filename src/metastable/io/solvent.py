"""Implicit solvent: OpenMM's GBSAOBCForce, and the CustomGBForces that ``openmm.app`` builds, as potentials."""

import math
from typing import Any

import numpy as np

from metastable.io.expressions import first_match, match
from metastable.io.tables import Unsupported, number, table_values
from metastable.potentials.analytic import Index
from metastable.potentials.implicit import GeneralizedBorn, Neck, Rescaling

_OVERLAP = (
    "select(step(r+sr2-or1),0.5*(1/L-1/U+0.25*(r-sr2^2/r)*(1/(U^2)-1/(L^2))+0.5*log(L/U)/r),0);"
    "U=r+sr2;L=max(or1,D);D=abs(r-sr2)"
)
_NECK = (
    "Ivdw+neckScale*Ineck;Ineck=step(radius1+radius2+neckCut-r)*getm0(radindex1,radindex2)/"
    "(1+100*(r-getd0(radindex1,radindex2))^2+0.3*1000000*(r-getd0(radindex1,radindex2))^6);"
    f"Ivdw={_OVERLAP};radius1=or1+offset;radius2=or2+offset;neckScale={{scale}};neckCut={{cut}};offset={{offset}}"
)
_RADIUS = ";psi=I*or;radius=or+offset;offset={offset}"
_BORN = {
    "HCT": "1/(1/or-I)",
    "OBC1": "1/(1/or-tanh({alpha}*psi+{gamma}*psi^3)/radius)" + _RADIUS,
    "OBC2": "1/(1/or-tanh(psi-{beta}*psi^2+{gamma}*psi^3)/radius)" + _RADIUS,
    "GBn": "1/(1/or-tanh({alpha}*psi-{beta}*psi^2+{gamma}*psi^3)/radius)" + _RADIUS,
    "GBn2": "1/(1/or-tanh(alpha*psi-beta*psi^2+gamma*psi^3)/radius)" + _RADIUS,
}
_CONSTANTS = ";solventDielectric={solvent};soluteDielectric={solute};kappa={kappa};offset={offset}"
_ENERGIES = {
    "self": "-0.5*{coulomb}*(1/soluteDielectric-1/solventDielectric)*charge^2/B" + _CONSTANTS,
    "self, salt": "-0.5*{coulomb}*(1/soluteDielectric-exp(-kappa*B)/solventDielectric)*charge^2/B" + _CONSTANTS,
    "surface": "{tension}*(radius+{probe})^2*(radius/B)^6;radius=or+offset" + _CONSTANTS,
    "pair": "-{coulomb}*(1/soluteDielectric-1/solventDielectric)*charge1*charge2/f;"
    "f=sqrt(r^2+B1*B2*exp(-r^2/(4*B1*B2)))" + _CONSTANTS,
    "pair, salt": "-{coulomb}*(1/soluteDielectric-exp(-kappa*f)/solventDielectric)*charge1*charge2/f;"
    "f=sqrt(r^2+B1*B2*exp(-r^2/(4*B1*B2)))" + _CONSTANTS,
}
_PARAMETERS = {
    "GBn": ["charge", "or", "sr", "radindex"],
    "GBn2": ["charge", "or", "sr", "alpha", "beta", "gamma", "radindex"],
}
_ADVICE = "supported are the models of openmm.app: HCT, OBC1, OBC2, GBn and GBn2, without a cutoff"


def native_born(force: Any) -> GeneralizedBorn:
    """OBC2 as OpenMM's GBSAOBCForce has it."""
    rows = np.array([[number(x) for x in force.getParticleParameters(i)] for i in range(force.getNumParticles())])
    area = number(force.getSurfaceAreaEnergy())
    each = np.ones(len(rows))
    return GeneralizedBorn(
        *(np.array(c) for c in rows.T),
        rescaling=Rescaling(1.0 * each, 0.8 * each, 4.85 * each),
        neck=None,
        solute=np.array(force.getSoluteDielectric()),
        solvent=np.array(force.getSolventDielectric()),
        tension=np.array(4 * math.pi * area) if area else None,
        inside=True,
    )


def custom_born(force: Any) -> GeneralizedBorn:
    """A CustomGBForce that has the form of one of the models of ``openmm.app``; else Unsupported."""
    model, born, neck = _model(force)
    names = [force.getPerParticleParameterName(i) for i in range(force.getNumPerParticleParameters())]
    if names != _PARAMETERS.get(model, ["charge", "or", "sr"]):
        raise Unsupported(f"has the parameters {names}, which are not those of {model}: {_ADVICE}")
    rows = np.array([force.getParticleParameters(i) for i in range(force.getNumParticles())], float)
    columns = dict(zip(names, rows.T, strict=True))
    energies = _energies(force)
    constants = next(v for k, v in energies.items() if k.startswith("pair"))
    offsets = {c["offset"] for c in (*energies.values(), born, neck) if "offset" in c}
    if len(offsets) > 1:
        raise Unsupported(f"has different offsets of its radii: {sorted(offsets)}")
    offset = offsets.pop()
    surface = energies.get("surface")
    return GeneralizedBorn(
        charges=np.array(columns["charge"]),
        radii=columns["or"] + offset,
        scales=columns["sr"] / columns["or"],
        rescaling=_rescaling(model, born, columns),
        neck=_neck(force, columns["radindex"], neck) if neck else None,
        solute=np.array(constants["solute"]),
        solvent=np.array(constants["solvent"]),
        tension=np.array(surface["tension"]) if surface else None,
        kappa=np.array(constants["kappa"]) if "pair, salt" in energies else None,
        offset=offset,
        probe=surface["probe"] if surface else 0.14,
        coulomb=constants["coulomb"],
    )


def _model(force: Any) -> tuple[str, dict[str, float], dict[str, float]]:
    """(name, numbers in the Born radius, numbers in the neck) from the two computed values."""
    values = [force.getComputedValueParameters(i) for i in range(force.getNumComputedValues())]
    if [(v[0], v[2]) for v in values] != [("I", force.ParticlePairNoExclusions), ("B", force.SingleParticle)]:
        raise Unsupported(f"computes {[v[0] for v in values]} where a Born model computes I, then B: {_ADVICE}")
    neck = {} if match(_OVERLAP, values[0][1]) is not None else match(_NECK, values[0][1])
    born = first_match(_BORN, values[1][1])
    if neck is None:
        raise Unsupported(f"has an integral of another form, '{values[0][1]}': {_ADVICE}")
    if born is None or (born[0] == "GBn2" and not neck):
        raise Unsupported(f"has Born radii of another form, '{values[1][1]}': {_ADVICE}")
    if neck and born[0] != "GBn2":
        return "GBn", born[1], neck
    return *born, neck


def _energies(force: Any) -> dict[str, dict[str, float]]:
    """The numbers of the energy terms by their role: one self, one pair, perhaps one surface."""
    found: dict[str, dict[str, float]] = {}
    for i in range(force.getNumEnergyTerms()):
        expression, over = force.getEnergyTermParameters(i)
        role = first_match(_ENERGIES, expression)
        wanted = force.ParticlePairNoExclusions if role and role[0].startswith("pair") else force.SingleParticle
        if role is None or over != wanted or role[0] in found:
            raise Unsupported(f"has an energy of another form, '{expression}': {_ADVICE}")
        found[role[0]] = role[1]
    if set(found) - {"surface"} not in ({"self", "pair"}, {"self, salt", "pair, salt"}):
        raise Unsupported(f"has the energies {sorted(found)}, which do not make a model: {_ADVICE}")
    coulombs = {c["coulomb"] for c in found.values() if "coulomb" in c}
    shared = {tuple(c[k] for k in ("solvent", "solute", "kappa", "offset")) for c in found.values()}
    if len(coulombs) > 1 or len(shared) > 1:
        raise Unsupported(f"has terms with different constants: {sorted(coulombs)}, {sorted(shared)}")
    return found


def _rescaling(model: str, born: dict[str, float], columns: dict[str, np.ndarray]) -> Rescaling | None:
    if model == "HCT":
        return None
    if model == "GBn2":
        return Rescaling(*(np.array(columns[k]) for k in ("alpha", "beta", "gamma")))
    each = np.ones(len(columns["or"]))
    return Rescaling(born.get("alpha", 1.0) * each, born.get("beta", 0.0) * each, born["gamma"] * each)


def _neck(force: Any, types: np.ndarray, numbers: dict[str, float]) -> Neck:
    tables = {force.getTabulatedFunctionName(i): force.getTabulatedFunction(i)
              for i in range(force.getNumTabulatedFunctions())}  # fmt: skip
    distance, depth = table_values(tables["getd0"]), table_values(tables["getm0"])
    return Neck(Index(types), distance, depth, np.array(numbers["scale"]), numbers["cut"])
