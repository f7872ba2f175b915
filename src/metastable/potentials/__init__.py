"""Potentials: pure functions of a frame that give an energy, kJ/mol. Forces are minus their gradient."""

from metastable.potentials.sum import Sum

__all__ = ["Sum"]
