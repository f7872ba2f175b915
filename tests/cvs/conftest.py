from pathlib import Path

import numpy as np
import pytest

from metastable.core.frame import Frame


class PlumedExample:
    """One of PLUMED's regression tests: its trajectory and the numbers that PLUMED printed."""

    def __init__(self, folder: Path):
        self.folder = folder

    def frames(self, name="trajectory.xyz"):
        """All frames, in nm."""
        lines = (self.folder / name).read_text().splitlines()
        atoms = int(lines[0])
        blocks = [lines[i : i + atoms + 2] for i in range(0, len(lines), atoms + 2)]
        frames = []
        for block in blocks:
            box = np.array(block[1].split(), float)
            box = np.diag(box) if box.size == 3 else box.reshape(3, 3)
            frames.append(Frame(np.array([line.split()[1:4] for line in block[2:]], float), box))
        return frames

    def columns(self, name):
        """The columns of an output file, by name."""
        path = self.folder / name
        fields = path.read_text().splitlines()[0].split()[2:]
        return dict(zip(fields, np.loadtxt(path, ndmin=2).T, strict=True))

    def forces(self, name="forces.reference"):
        """(frames, atoms, 3), kJ/mol/nm, as --dump-forces prints them."""
        lines = (self.folder / name).read_text().splitlines()
        atoms = int(lines[0])
        blocks = [lines[i + 2 : i + atoms + 2] for i in range(0, len(lines), atoms + 2)]
        return np.array([[line.split()[1:] for line in block] for block in blocks], float)


@pytest.fixture
def plumed(data):
    """One of PLUMED's examples, by name."""
    return lambda name: PlumedExample(data / "plumed_examples" / name)
