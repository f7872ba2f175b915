"""The molecule of a run, ready to be drawn: frames lain on one another, few enough to fit into the page.

Of a run in a box only what is dissolved is drawn, or the whole liquid where nothing is.
"""

import base64
import struct
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metastable.core.errors import InputError, Problem
from metastable.io.structures import WATER
from metastable.report import images

LIQUID = 3000
"""Of a liquid, so many atoms are drawn at most."""

_COORDINATES = 4_000_000
"""Atoms times frames that are read at most: ten times as many as fit into the page."""


@dataclass(frozen=True)
class Movie:
    """Frames of one molecule.

    positions: nm, (frames, atoms, 3). elements: symbols; names: what an atom is called, e.g. ``ALA 2 CB``.
    bonds: (bonds, 2). index: which frame of the trajectory each one is. keep: frames that may not be thinned away.
    time: ps, (frames,). cvs: (frames, cvs) in the units of the axes; walker: (frames,); None where not written down.
    hidden: how many atoms of water and ions are left out. liquid: many molecules in their box, none of which is held
    still.
    """

    positions: np.ndarray
    elements: tuple[str, ...]
    names: tuple[str, ...]
    bonds: np.ndarray
    index: np.ndarray
    keep: tuple[int, ...]
    time: np.ndarray
    cvs: np.ndarray | None = None
    walker: np.ndarray | None = None
    hidden: int = 0
    liquid: bool = False


def read_movie(
    directory: Path, keep: Iterable[int], notes: dict[str, Any], solute: np.ndarray | None = None, limit: int = 2000
) -> Movie | str:
    """Read ``trajectory.xtc`` or ``.dcd`` with ``topology.pdb``; a sentence that says why where there is no movie.

    keep: frames that must be there. notes: ``cvs``, ``time_ps`` and ``walker``, one entry a frame of the trajectory.
    solute: the atoms to draw; where it is empty, all; None for what is neither water nor an atom by itself. limit:
    about how many frames are read at most. A last frame that a kill cut short is left out. Raises InputError where
    the files do not belong together or the trajectory is damaged.
    """
    top = directory / "topology.pdb"
    path = next((p for p in (directory / "trajectory.xtc", directory / "trajectory.dcd") if p.exists()), None)
    size = path.stat().st_size if path is not None else 0
    none = "The run directory has no trajectory, so there is no molecule to show."
    if path is None or not top.exists() or not size:
        return none
    whole = _whole_frames(path) if path.suffix == ".xtc" else size
    if not whole:
        return none
    try:
        if whole == size:
            return _read(path, top, keep, notes, solute, limit)
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / path.name
            copy.write_bytes(path.read_bytes()[:whole])
            return _read(copy, top, keep, notes, solute, limit)
    except (ValueError, RuntimeError, OSError) as error:
        raise InputError(Problem(str(path), f"cannot be read with {top.name}: {error}")) from error


def _read(
    path: Path, top: Path, keep: Iterable[int], notes: dict[str, Any], solute: np.ndarray | None, limit: int
) -> Movie | str:
    import mdtraj

    topology: Any = mdtraj.load_topology(str(top))
    atoms, hidden = _drawn(topology, solute)
    boxed = _boxed(mdtraj.load_frame(str(path), 0, top=topology))
    liquid = boxed and images.is_liquid(images.molecules_of(topology.subset(atoms)))
    if liquid and len(atoms) > LIQUID:
        return f"Of a liquid {LIQUID} atoms are drawn at most, and this one has {len(atoms)}: it is not shown."
    limit = min(limit, max(1, _COORDINATES // len(atoms)))
    traj, index, keep = _load(path, topology, atoms, keep, limit)
    return _movie(traj, index, keep, notes, boxed, liquid, hidden)


def _drawn(topology: Any, solute: np.ndarray | None) -> tuple[np.ndarray, int]:
    """The atoms to draw, and how many are left out.

    What is dissolved; where nothing is, all but the sites of water that are no atoms.
    """
    water = {r.index for r in topology.residues if r.is_water or r.name in WATER}
    if solute is None:
        dry = [a.index for r in topology.residues if r.index not in water and r.n_atoms > 1 for a in r.atoms]
    elif len(solute) and solute[-1] >= topology.n_atoms:
        raise ValueError(f"results.json has atom {solute[-1]} in the solute, and there are {topology.n_atoms}")
    else:
        dry = solute
    if len(dry):
        return np.asarray(dry, int), topology.n_atoms - len(dry)
    return np.array([a.index for a in topology.atoms if a.residue.index not in water or _symbol(a)], int), 0


def _symbol(atom: Any) -> str:
    """The element of an atom; nothing for a site that has none."""
    return atom.element.symbol if atom.element is not None and atom.element.number else ""


def _boxed(traj: Any) -> bool:
    """Whether the frames are in a box; one below 1 nm is a placeholder."""
    cell = traj.unitcell_lengths
    return cell is not None and bool(np.min(cell) > 1.0)


def _load(
    path: Path, topology: Any, atoms: np.ndarray, keep: Iterable[int], limit: int
) -> tuple[Any, np.ndarray, tuple[int, ...]]:
    """(the trajectory in strides and with what must be there, which frames these are, which of them must be there)."""
    import mdtraj

    with mdtraj.open(str(path)) as file:
        frames = len(file)
    keep = tuple(sorted({k for k in keep if 0 <= k < frames}))
    stride = max(1, -(-frames // limit))
    traj = mdtraj.load(str(path), top=topology, stride=stride, atom_indices=atoms)
    extra = [k for k in keep if k % stride]
    if extra:
        more = [mdtraj.load_frame(str(path), k, top=topology, atom_indices=atoms) for k in extra]
        traj = mdtraj.join([traj, *more])
    index = np.array([*range(0, frames, stride), *extra])
    order = np.argsort(index)
    return traj[order], index[order], keep


def _whole_frames(path: Path) -> int:
    """How many bytes of an XTC file are whole frames.

    A frame: 16 bytes of magic number, atoms, step and time, 36 of the box, 4 of the atoms; then, up to nine atoms,
    12 bytes each, or else 32 of ranges, 4 of a size, and so many bytes filled up to a multiple of 4.
    """
    size, end = path.stat().st_size, 0
    with path.open("rb") as file:
        while True:
            file.seek(end)
            head = file.read(92)
            if head[:4] != struct.pack(">i", 1995)[: len(head)]:
                return size  # of another kind: the reader shall judge
            if len(head) < 56 or ((atoms := struct.unpack(">i", head[4:8])[0]) > 9 and len(head) < 92):
                return end
            length = 56 + 12 * atoms if atoms <= 9 else 92 + -(-struct.unpack(">i", head[88:])[0] // 4) * 4
            if end + length > size:
                return end
            end += length


def _movie(
    traj: Any, index: np.ndarray, keep: tuple[int, ...], notes: dict[str, Any], boxed: bool, liquid: bool, hidden: int
) -> Movie:
    atoms = list(traj.topology.atoms)
    elements = tuple(_symbol(a) for a in atoms)
    group = images.molecules_of(traj.topology)
    if boxed:
        images.gather(traj, group, liquid)
    if liquid:
        positions = np.asarray(traj.xyz, dtype=np.float64)
    else:
        held = group == images.largest(group) if boxed else np.ones(len(atoms), bool)
        heavy = np.flatnonzero(held & (np.array(elements) != "H"))
        traj.superpose(traj, 0, atom_indices=heavy if len(heavy) > 2 else None)
        positions = _principal(np.asarray(traj.xyz, dtype=np.float64))

    def noted(name: str) -> np.ndarray | None:
        values = notes.get(name)
        if values is None or len(values) <= index[-1]:
            return None
        values = np.array(values, dtype=float)[index]
        return values if np.isfinite(values).all() else None

    time = noted("time_ps")
    return Movie(
        positions=positions,
        elements=elements,
        names=tuple(f"{a.residue.name} {a.residue.resSeq} {a.name}" for a in atoms),
        bonds=_bonds(traj.topology, elements, positions[0], boxed),
        index=index,
        keep=keep,
        time=np.asarray(traj.time, dtype=float) if time is None else time,
        cvs=noted("cvs"),
        walker=noted("walker"),
        hidden=hidden,
        liquid=liquid,
    )


def _principal(positions: np.ndarray) -> np.ndarray:
    """Turn all frames so that the first lies flat on the screen: longest axis to the right, shortest to the eye."""
    positions = positions - positions[0].mean(0)
    _, axes = np.linalg.eigh(positions[0].T @ positions[0])
    axes = axes[:, ::-1]  # eigh has the longest axis last
    axes[:, 2] *= np.linalg.det(axes)  # a mirror image would be another molecule
    return positions @ axes


_COVALENT = {"H": 0.031, "C": 0.076, "N": 0.071, "O": 0.066, "F": 0.057, "P": 0.107, "S": 0.105, "Cl": 0.102}
"""Covalent radii, nm (Cordero et al., 2008, doi:10.1039/B801115J); 0.12 for the others."""


def _bonds(topology: Any, elements: tuple[str, ...], positions: np.ndarray, boxed: bool) -> np.ndarray:
    """Bonds of the topology; an atom that has none there gets those that its distances suggest, but ions in a box."""
    bonds = {(min(a.index, b.index), max(a.index, b.index)) for a, b in topology.bonds}
    radii = np.array([_COVALENT.get(e, 0.12) for e in elements])
    ions = {a.index for a in topology.atoms if boxed and a.residue.n_atoms == 1}
    for i in set(range(len(elements))) - {atom for bond in bonds for atom in bond} - ions:
        distance = np.linalg.norm(positions - positions[i], axis=1)
        for j in np.flatnonzero(distance < 1.25 * (radii + radii[i])):
            if i != j:
                bonds.add((min(i, int(j)), max(i, int(j))))
    return np.array(sorted(bonds), dtype=int).reshape(-1, 2)


def thinned(movie: Movie, limit: int) -> np.ndarray:
    """Which frames to take so that there are at most ``limit``: evenly spread, and all that must be kept."""
    frames = len(movie.index)
    must = np.flatnonzero(np.isin(movie.index, movie.keep))
    even = np.linspace(0, frames - 1, min(max(limit - len(must), 0), frames)).round().astype(int)
    return np.union1d(even, must)


def encoded(movie: Movie, budget: int) -> dict[str, Any]:
    """The movie as a JSON object of about ``budget`` bytes: positions are 16-bit integers times ``scale`` nm, base64.

    Raises ValueError where the frames that must be kept do not fit: the molecule is too large for the page.
    """
    atoms = len(movie.elements)
    fixed = 24 * atoms + 14 * len(movie.bonds)  # names and bonds
    limit = (budget - fixed) // (8 * atoms + 40)  # a frame: 6 bytes an atom as base64, and its notes
    if limit < max(1, len(movie.keep)):
        raise ValueError(f"{atoms} atoms need more than the {budget} bytes that the page has for them")
    chosen = thinned(movie, min(limit, 1000))
    positions = movie.positions[chosen]
    scale = float(np.abs(positions).max()) / 32767 or 1.0
    quantised = np.round(positions / scale).astype("<i2")
    return {
        "atoms": atoms,
        "frames": len(chosen),
        "scale": scale,
        "positions": base64.b64encode(quantised.tobytes()).decode(),
        "elements": list(movie.elements),
        "names": list(movie.names),
        "bonds": movie.bonds.ravel().tolist(),
        "index": movie.index[chosen].tolist(),
        "time": [round(float(t), 3) for t in movie.time[chosen]],
        "cvs": None if movie.cvs is None else np.round(movie.cvs[chosen], 4).tolist(),
        "walker": None if movie.walker is None else movie.walker[chosen].astype(int).tolist(),
    }
