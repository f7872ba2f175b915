"""Metastable: from a molecule to its free energy landscape, its metastable states and their rates."""

__version__ = "0.1.0"
