"""The files that grow while a run runs. Each can be put on the disk, and cut back to where it was.

Nothing in them depends on the clock, so that a run that was killed and went on leaves the same bytes.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from metastable import __version__
from metastable.core.system import Topology
from metastable.core.units import angstrom
from metastable.loops.run import Block


class Growing:
    """A file that is only ever added to, and may be cut."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)

    def append(self, data: bytes) -> None:
        """Add all of the data. Raises OSError where the disk is full."""
        place = os.lseek(self._file, 0, os.SEEK_END)
        _write_at(self._file, data, place)

    def commit(self) -> int:
        """Put it on the disk; the mark is its length in bytes."""
        os.fsync(self._file)
        return os.fstat(self._file).st_size

    def rewind(self, mark: int) -> None:
        """Cut it at the mark. Raises OSError where it is shorter: somebody else has changed it."""
        size = os.fstat(self._file).st_size
        if size < mark:
            raise OSError(errno.EIO, f"has {size} bytes where the checkpoint knows of {mark}", str(self.path))
        os.ftruncate(self._file, mark)

    def close(self) -> None:
        """Let go of the file; what was not committed may be lost."""
        os.close(self._file)


class Table(Growing):
    """A CSV file, one row a block.

    columns: the names. row: from a block to its numbers.
    """

    def __init__(self, path: str | Path, columns: Sequence[str], row: Callable[[Block], Sequence[float]]):
        super().__init__(path)
        self.columns, self.row = tuple(columns), row

    def rewind(self, mark: int) -> None:
        """Cut it at the mark; at 0 the names of the columns are written."""
        super().rewind(mark)
        if mark == 0:
            self.append((",".join(self.columns) + "\n").encode())

    def write(self, block: Block) -> None:
        """Add the row of the block, nine digits a number."""
        values = self.row(block)
        self.append((",".join(f"{value:.9g}" for value in values) + "\n").encode())


class Trajectory(Growing):
    """An XTC trajectory (GROMACS' own compression, to 0.001 nm); ``topology.pdb`` beside it tells the atoms.

    frames: from a block to positions, nm, (frames, atoms, 3), times in ps and step numbers, (frames,), and boxes, nm,
    (frames, 3, 3), or None.
    """

    def __init__(self, path: str | Path, frames: Callable[[Block], tuple]):
        super().__init__(path)
        self.frames = frames

    def write(self, block: Block) -> None:
        """Add the frames of the block, if it has any."""
        positions, times, steps, box = self.frames(block)
        if len(positions):
            self.append(xtc(positions, times, steps, box))


def xtc(positions: np.ndarray, times: np.ndarray, steps: np.ndarray, box: np.ndarray | None = None) -> bytes:
    """Frames in the XTC format, whose files are nothing but frames one after another. No box: all zeros."""
    from mdtraj.formats import XTCTrajectoryFile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.xtc"
        with XTCTrajectoryFile(str(path), "w") as file:
            file.write(
                np.asarray(positions, np.float32),
                np.asarray(times, np.float32),
                np.asarray(steps, np.int32),
                np.zeros((len(positions), 3, 3), np.float32) if box is None else np.asarray(box, np.float32),
            )
        with XTCTrajectoryFile(str(path)) as file:
            if len(file) != len(positions):  # the library does not say when the disk is full
                raise OSError(errno.ENOSPC, "no space for temporary files", folder)
        return path.read_bytes()


class Observable(NamedTuple):
    """What is recorded under a name. shape: of one record. unit: "" where there is none. dtype: of the numbers."""

    shape: tuple[int, ...]
    unit: str = ""
    dtype: Any = np.float32


class Arrays:
    """``arrays.h5``: what was observed, in the H5MD layout, at its full length from the start.

    Each observable is ``/observables/<name>`` with ``step``, ``time`` (ps) and ``value``, time in the first axis.
    Records that the run has not reached yet have step -1, time NaN and value NaN. Datasets are contiguous and are
    written in place, past the HDF5 library, so that no kill can damage the file and the disk is full at the start or
    never. Layout: de Buyl, Colberg, Hoefling (2014), doi:10.1016/j.cpc.2014.01.018.

    records: how many there will be. every: steps between two. dt: ps. attributes: name -> {attribute: value},
    written on the group of an observable.
    """

    def __init__(
        self,
        path: str | Path,
        observables: Mapping[str, Observable],
        *,
        records: int,
        every: int,
        dt: float,
        attributes: Mapping[str, Mapping[str, Any]] | None = None,
    ):
        self.path, self.observables = Path(path), dict(observables)
        self.records, self.every, self.dt = records, every, dt
        self.attributes = attributes or {}
        self._file, self._places = -1, {}

    def rewind(self, mark: int) -> None:
        """Open the file, for ``mark`` records are in it; at 0 it is made anew."""
        if mark == 0:
            self._create()
        self._places = self._offsets(self.path)
        self._file = os.open(self.path, os.O_RDWR)
        self._written = mark

    def write(self, block: Block) -> None:
        """Write the records of the block behind those of the blocks before."""
        first = self._written
        records = {name: np.asarray(block.records[name]) for name in self.observables}
        count = len(next(iter(records.values())))
        step = (np.arange(first, first + count, dtype=np.int64) + 1) * self.every
        for name, values in {"step": step, "time": step * self.dt, **records}.items():
            offset, row, dtype = self._places[name]
            _write_at(self._file, np.ascontiguousarray(values, dtype).tobytes(), offset + first * row)
        self._written = first + count

    def commit(self) -> int:
        """Put it on the disk; the mark is the number of records."""
        os.fsync(self._file)
        return self._written

    def close(self) -> None:
        """Let go of the file, where it was opened."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _create(self) -> None:
        new = self.path.with_name(self.path.name + ".new")
        try:
            size = arrays_size(self.observables, self.records) + 50_000
            if shutil.disk_usage(new.parent).free < size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            with new.open("wb") as file:  # the HDF5 library does not take a full disk well: it must not meet one
                file.truncate(size)
            self._lay_out(new)
            self._fill(new)
            os.replace(new, self.path)
        except OSError as error:
            new.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def _lay_out(self, path: Path) -> None:
        with h5py.File(path, "w", libver=("v108", "v108")) as file:
            head = file.create_group("h5md")
            head.attrs["version"] = np.array([1, 1], np.int32)
            head.create_group("author").attrs["name"] = "unknown"
            creator = head.create_group("creator")
            creator.attrs["name"], creator.attrs["version"] = "Metastable", __version__
            units = head.create_group("modules/units")
            units.attrs["version"], units.attrs["system"] = np.array([1, 0], np.int32), "SI"
            group = file.create_group("observables")
            step = _dataset(group, "step", (self.records,), np.int64)
            time = _dataset(group, "time", (self.records,), np.float64, "ps")
            for name, observable in self.observables.items():
                own = group.create_group(name)
                own["step"], own["time"] = step, time
                _dataset(own, "value", (self.records, *observable.shape), observable.dtype, observable.unit)
                for key, value in self.attributes.get(name, {}).items():
                    own.attrs[key] = value

    def _fill(self, path: Path) -> None:
        with path.open("r+b") as file:
            for offset, row, dtype in self._offsets(path).values():
                left, place = self.records * row, offset
                while left:
                    size = min(left, 2**24)
                    empty = np.full(size // dtype.itemsize, -1 if dtype.kind == "i" else np.nan, dtype)
                    _write_at(file.fileno(), empty.tobytes(), place)
                    left, place = left - size, place + size
            os.fsync(file.fileno())

    def _offsets(self, path: Path) -> dict[str, tuple[int, int, Any]]:
        """Where in the file the numbers of each name begin, bytes a record, dtype."""
        with h5py.File(path, "r", locking=False) as file:
            group: Any = file["observables"]
            names = {"step": group["step"], "time": group["time"]}
            names |= {name: group[name]["value"] for name in self.observables}
            for name, dataset in names.items():
                shape = (self.records, *self.observables[name].shape) if name in self.observables else (self.records,)
                if dataset.shape != shape:
                    raise OSError(errno.EIO, f"{name} is {dataset.shape}, this run has {shape}", str(self.path))
            return {n: (d.id.get_offset(), d.nbytes // self.records, d.dtype) for n, d in names.items()}


def _dataset(group: Any, name: str, shape: tuple[int, ...], dtype: Any, unit: str = "") -> Any:
    """A contiguous dataset, not filled, whose place in the file is fixed at once."""
    create = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    create.set_layout(h5py.h5d.CONTIGUOUS)
    create.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    create.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    create.set_obj_track_times(False)
    kind = h5py.h5t.py_create(np.dtype(dtype), logical=True)
    dataset = h5py.Dataset(h5py.h5d.create(group.id, name.encode(), kind, h5py.h5s.create_simple(shape), create))
    if unit:
        dataset.attrs["unit"] = unit
    return dataset


def _write_at(file: int, data: bytes, place: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(file, view, place)
        view, place = view[count:], place + count


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The records that the run has reached, by name, float64, and ``step`` and ``time`` (ps) with them."""
    with h5py.File(path, "r", locking=False) as file:
        group: Any = file["observables"]
        step = np.asarray(group["step"])
        reached = int(np.count_nonzero(step >= 0))
        found = {"step": step[:reached], "time": np.asarray(group["time"][:reached])}
        for name in group:
            if name not in found:
                found[name] = np.asarray(group[name]["value"][:reached], np.float64)
        return found


def arrays_size(observables: Mapping[str, Observable], records: int) -> int:
    """Bytes that ``Arrays`` will take, but for some thousand of its own."""
    row = sum(int(np.prod(o.shape, dtype=np.int64)) * np.dtype(o.dtype).itemsize for o in observables.values())
    return records * (row + 16)


def write_topology(
    path: str | Path, topology: Topology, numbers: np.ndarray, positions: np.ndarray, box: np.ndarray | None = None
) -> None:
    """The atoms, their names, bonds (CONECT) and box (CRYST1) as PDB. positions: nm, (atoms, 3). box: nm, (3, 3)."""
    from openmm import app

    made = app.Topology()
    chain = residue = None
    for i, (name, kind, number, chain_id) in enumerate(
        zip(topology.atom_names, topology.residue_names, topology.residue_ids, topology.chain_ids, strict=True)
    ):
        if chain is None or chain.id != chain_id:
            chain, residue = made.addChain(chain_id), None
        if residue is None or (residue.id, residue.name) != (number, kind):
            residue = made.addResidue(kind, chain, number)
        z = int(numbers[i])
        made.addAtom(name, app.Element.getByAtomicNumber(z) if z else None, residue)
    atoms = list(made.atoms())
    for i, j in topology.bonds:
        made.addBond(atoms[i], atoms[j])
    with Path(path).open("w", encoding="utf-8") as file:
        if box is not None:
            file.write(_unit_cell(np.asarray(box, float)))
        app.PDBFile.writeModel(made, np.asarray(positions) / angstrom, file, keepIds=True)
        _connect(file, topology)
        file.write("END\n")


def _unit_cell(box: np.ndarray) -> str:
    """The record of a box: its lengths in angstrom, and the angles between b and c, a and c, a and b in degrees."""
    lengths = np.linalg.norm(box, axis=1)
    cosines = [box[i] @ box[j] / (lengths[i] * lengths[j]) for i, j in ((1, 2), (0, 2), (0, 1))]
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    sides = "".join(f"{x:9.3f}" for x in lengths / angstrom) + "".join(f"{x:7.2f}" for x in angles)
    return f"CRYST1{sides} P 1           1 \n"


def _connect(file: Any, topology: Topology) -> None:
    """Every bond, because readers know those of the standard residues only. Serials as ``writeModel`` counts them."""
    serial, chain = [], 0
    for i, name in enumerate(topology.chain_ids):  # each TER between chains takes a serial
        chain += i > 0 and name != topology.chain_ids[i - 1]
        serial.append(i + 1 + chain)
    if serial[-1] > 99_999:
        return
    partners: dict[int, list[int]] = {}
    for i, j in topology.bonds.tolist():
        partners.setdefault(i, []).append(j)
        partners.setdefault(j, []).append(i)
    for i in sorted(partners):
        near = sorted(partners[i])
        for k in range(0, len(near), 4):
            file.write(f"CONECT{serial[i]:5d}" + "".join(f"{serial[j]:5d}" for j in near[k : k + 4]) + "\n")
