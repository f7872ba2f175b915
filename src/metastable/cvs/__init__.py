"""Collective variables: functions of a frame, (cvs,). Atoms are counted from 0. Siblings of the potentials."""

from metastable.cvs.coordination import Coordination
from metastable.cvs.geometry import Angle, Center, Displacement, Distance, Position, Torsion
from metastable.cvs.periodic import minimum_image
from metastable.cvs.shape import RMSD, RadiusOfGyration, Volume
from metastable.cvs.switching import Cosinus, Cubic, Exponential, Gaussian, Rational, Smap, Switching, Tanh
from metastable.cvs.variable import Component, Constant, Function, Stack, Variable, as_variable, wrap

__all__ = [
    "RMSD",
    "Angle",
    "Center",
    "Component",
    "Constant",
    "Coordination",
    "Cosinus",
    "Cubic",
    "Displacement",
    "Distance",
    "Exponential",
    "Function",
    "Gaussian",
    "Position",
    "RadiusOfGyration",
    "Rational",
    "Smap",
    "Stack",
    "Switching",
    "Tanh",
    "Torsion",
    "Variable",
    "Volume",
    "as_variable",
    "minimum_image",
    "wrap",
]
