"""The growing files: read back by other programs, cut back to the same bytes, and clear about a full disk."""

import errno
import os
import resource

import h5py
import mdtraj
import numpy as np
import pytest

from metastable.core.system import Topology
from metastable.loops.run import Block
from metastable.report.sinks import (
    Arrays,
    Growing,
    Observable,
    Table,
    Trajectory,
    arrays_size,
    read_arrays,
    write_topology,
)

TOPOLOGY = Topology(
    atom_names=("CH3", "C", "O", "N", "CA", "O", "H1", "H2"),
    residue_names=("ACE", "ACE", "ACE", "ALA", "ALA", "HOH", "HOH", "HOH"),
    residue_ids=("1", "1", "1", "2", "2", "7", "7", "7"),
    chain_ids=("A", "A", "A", "A", "A", "B", "B", "B"),
    bonds=np.array([[0, 1], [1, 2], [1, 3], [3, 4], [5, 6], [5, 7]]),
)
NUMBERS = np.array([6, 6, 8, 7, 6, 8, 1, 1])
OBSERVABLES = {"cvs": Observable((3, 2), "rad"), "potential": Observable((3,), "kJ/mol"), "offset": Observable(())}


def block(index, records=4):
    rng = np.random.default_rng(index)
    named = {name: rng.normal(size=(records, *o.shape)).astype(np.float32) for name, o in OBSERVABLES.items()}
    return Block(index, None, named | {"positions": rng.normal(size=(records, 8, 3)).astype(np.float32)})


def arrays(path, records=12):
    return Arrays(path, OBSERVABLES, records=records, every=5, dt=0.002, attributes={"cvs": {"names": ["a", "b"]}})


def frames(block):
    steps = (block.index * 4 + np.arange(4) + 1) * 5
    return block.records["positions"], steps * 0.002, steps, None


def makers(folder):
    return {
        "log.csv": Table(folder / "log.csv", ("block", "x"), lambda b: (b.index, b.records["offset"][-1])),
        "trajectory.xtc": Trajectory(folder / "trajectory.xtc", frames),
        "arrays.h5": arrays(folder / "arrays.h5"),
    }


def fill(folder, blocks, marks=None):
    sinks = makers(folder)
    for name, sink in sinks.items():
        sink.rewind((marks or {}).get(name, 0))
    for i in blocks:
        for sink in sinks.values():
            sink.write(block(i))
    marks = {name: sink.commit() for name, sink in sinks.items()}
    for sink in sinks.values():
        sink.close()
    return marks


def contents(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_cut_back_and_written_again_they_are_the_same_bytes(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir(), cut.mkdir()
    fill(whole, range(3))
    marks = fill(cut, range(1))
    sinks = makers(cut)  # a run that dies in its second and third block: written, never committed
    for name, sink in sinks.items():
        sink.rewind(marks[name])
        sink.write(block(9))
    sinks["log.csv"].append(b"1,0.")
    fill(cut, range(1, 3), marks)
    assert contents(cut) == contents(whole)


def test_arrays_are_read_back_and_tell_how_far_the_run_got(tmp_path):
    fill(tmp_path, range(2))
    found = read_arrays(tmp_path / "arrays.h5")
    assert found["step"].tolist() == [5, 10, 15, 20, 25, 30, 35, 40]
    assert np.allclose(found["time"], found["step"] * 0.002)
    for name in OBSERVABLES:
        assert np.array_equal(found[name], np.concatenate([block(i).records[name] for i in range(2)]))
        assert found[name].dtype == np.float64


def test_arrays_have_the_layout_of_h5md(tmp_path):
    fill(tmp_path, range(3))
    with h5py.File(tmp_path / "arrays.h5") as file:
        assert file["h5md"].attrs["version"].tolist() == [1, 1]
        assert {"name"} <= set(file["h5md/author"].attrs) and {"name", "version"} <= set(file["h5md/creator"].attrs)
        for name, observable in OBSERVABLES.items():
            group = file["observables"][name]
            assert group["value"].shape == (12, *observable.shape)
            assert group["step"].shape == group["time"].shape == (12,)
            assert group["value"].attrs.get("unit", "") == observable.unit
        assert file["observables/cvs"].attrs["names"].tolist() == ["a", "b"]
    size = (tmp_path / "arrays.h5").stat().st_size
    assert arrays_size(OBSERVABLES, 12) <= size <= arrays_size(OBSERVABLES, 12) + 20_000


def test_unreached_records_are_no_numbers(tmp_path):
    fill(tmp_path, range(1))
    with h5py.File(tmp_path / "arrays.h5") as file:
        assert np.isnan(file["observables/cvs/value"][4:]).all() and (file["observables/cvs/step"][4:] == -1).all()


def test_a_file_of_another_run_is_refused(tmp_path):
    marks = fill(tmp_path, range(1))
    with pytest.raises(OSError, match="this run has"):
        arrays(tmp_path / "arrays.h5", records=20).rewind(marks["arrays.h5"])
    os.truncate(tmp_path / "log.csv", 3)
    with pytest.raises(OSError, match="3 bytes where the checkpoint knows of"):
        makers(tmp_path)["log.csv"].rewind(marks["log.csv"])


def test_the_trajectory_is_read_by_mdtraj_and_mdanalysis(tmp_path):
    fill(tmp_path, range(3))
    positions = np.concatenate([block(i).records["positions"] for i in range(3)])
    write_topology(tmp_path / "topology.pdb", TOPOLOGY, NUMBERS, positions[0].astype(float))
    read = mdtraj.load(str(tmp_path / "trajectory.xtc"), top=str(tmp_path / "topology.pdb"))
    assert np.allclose(read.xyz, positions, atol=6e-4) and np.allclose(read.time, np.arange(1, 13) * 0.01)
    assert [a.name for a in read.topology.atoms] == list(TOPOLOGY.atom_names)
    assert [a.element.atomic_number for a in read.topology.atoms] == NUMBERS.tolist()
    bonds = {tuple(sorted((a.index, b.index))) for a, b in read.topology.bonds}
    assert bonds == {tuple(b) for b in TOPOLOGY.bonds.tolist()}
    mdanalysis = pytest.importorskip("MDAnalysis")
    universe = mdanalysis.Universe(str(tmp_path / "topology.pdb"), str(tmp_path / "trajectory.xtc"))
    seen = np.array([frame.positions.copy() for frame in universe.trajectory])
    assert np.allclose(seen, positions * 10, atol=6e-3)
    assert list(universe.atoms.names) == list(TOPOLOGY.atom_names)


def test_the_box_of_a_topology_is_that_which_mdtraj_reads(tmp_path):
    """Rows as of a truncated octahedron: 109.47 degrees, to the digits that a PDB file has."""
    box = 2.5 * np.array([[1, 0, 0], [1 / 3, 8**0.5 / 3, 0], [-1 / 3, 2**0.5 / 3, 6**0.5 / 3]])
    positions = np.random.default_rng(0).normal(size=(8, 3))
    write_topology(tmp_path / "topology.pdb", TOPOLOGY, NUMBERS, positions, box)
    read = mdtraj.load(str(tmp_path / "topology.pdb"))
    assert read.unitcell_lengths[0] == pytest.approx([2.5, 2.5, 2.5], abs=1e-4)
    assert read.unitcell_angles[0] == pytest.approx([70.53, 109.47, 70.53], abs=0.006)
    assert np.allclose(read.unitcell_vectors[0], box, atol=1e-3)
    assert np.allclose(read.xyz[0], positions, atol=1e-4)


def test_the_log_is_a_table(tmp_path):
    fill(tmp_path, range(3))
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert lines[0] == "block,x" and [line.split(",")[0] for line in lines[1:]] == ["0", "1", "2"]


@pytest.fixture
def small_disk():
    """No file of this process may grow beyond 3,000 bytes, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_an_error_with_a_number(tmp_path, small_disk):
    growing = Growing(tmp_path / "a")
    growing.append(b"x" * 2000)
    with pytest.raises(OSError) as error:
        growing.append(b"x" * 2000)
    assert error.value.errno == errno.EFBIG
    with pytest.raises(OSError) as error:
        arrays(tmp_path / "arrays.h5", records=1000).rewind(0)
    assert error.value.errno == errno.EFBIG and str(tmp_path) in str(error.value)
    assert not (tmp_path / "arrays.h5").exists()
