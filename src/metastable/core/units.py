"""Units: nm, ps, Da, kJ/mol, e and K inside, so that no formula carries a factor.

Multiply in, divide out: ``2 * fs`` is a time step in ps, ``300 * kelvin`` is kT in kJ/mol,
``energy / kcal_mol`` is an energy in kcal/mol. Da nm^2/ps^2 is exactly 1 kJ/mol.

Constants: CODATA 2018 (Tiesinga et al., 2021, doi:10.1103/RevModPhys.93.025010).
"""

nm = 1.0
angstrom = 0.1
bohr = 0.0529177210903

ps = 1.0
fs = 1e-3
ns = 1e3
us = 1e6

dalton = 1.0
e = 1.0

kJ_mol = 1.0
kcal_mol = 4.184
eV = 96.48533212331
hartree = 2625.4996394799

kelvin = 8.31446261815324e-3
"""Boltzmann's constant times one kelvin, kJ/mol: ``300 * kelvin`` is kT at 300 K."""

coulomb = 138.93545764438198
"""1 / (4 pi epsilon_0), kJ nm / (mol e^2)."""

degree = 0.017453292519943295
bar = 0.0602214076
"""One bar, kJ/(mol nm^3)."""

kg_m3 = 0.602214076
"""One kg/m^3, Da/nm^3."""

pascal_second = 602214.076
"""One Pa s, Da/(nm ps): the viscosity of water at 300 K is ``0.85e-3 * pascal_second``."""

inverse_cm = 0.0299792458
"""The frequency of light of one wave in a cm, 1/ps: ``frequency / inverse_cm`` is its wavenumber."""
