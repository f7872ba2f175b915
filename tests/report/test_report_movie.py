"""The molecule that the page carries is the molecule of the trajectory."""

import base64
import json

import mdtraj
import numpy as np
import pytest

from metastable.core.errors import InputError
from metastable.report import write_report
from metastable.report.movie import encoded, read_movie, thinned


@pytest.fixture(scope="module")
def trajectory(run_directory):
    return mdtraj.load(str(run_directory / "trajectory.xtc"), top=str(run_directory / "topology.pdb"))


@pytest.fixture(scope="module")
def movie(run_directory):
    return read_movie(run_directory, [0, 20, 40], {})


def decoded(payload):
    whole = np.frombuffer(base64.b64decode(payload["positions"]), "<i2")
    return whole.reshape(payload["frames"], payload["atoms"], 3) * payload["scale"]


def distances(positions):
    return np.linalg.norm(positions[:, :, None] - positions[:, None, :], axis=-1)


def test_positions_are_those_of_the_trajectory_but_for_a_turn(movie, trajectory):
    payload = encoded(movie, 700_000)
    found = decoded(payload)
    assert payload["index"] == list(range(60))
    assert np.abs(distances(found) - distances(trajectory.xyz)).max() < 2e-4  # two roundings of 16 bits, nm


def test_the_hand_of_the_molecule_is_kept(movie, trajectory):
    def volume(positions):
        n, c, cb, ca = (positions[:, k] for k in (6, 14, 10, 8))
        return np.einsum("fi,fi->f", n - ca, np.cross(c - ca, cb - ca))

    assert np.allclose(volume(movie.positions), volume(trajectory.xyz), rtol=2e-3)
    assert (volume(movie.positions) > 0).all()  # L-alanine


def test_the_torsions_of_the_minima_stand_in_their_frames(movie, trajectory):
    turned = mdtraj.Trajectory(movie.positions, trajectory.topology)
    phi, psi = mdtraj.compute_phi(turned)[1][:, 0], mdtraj.compute_psi(turned)[1][:, 0]
    found = np.degrees([[phi[k], psi[k]] for k in (0, 20, 40)])
    assert np.abs(found - [[-80, 75], [-150, 155], [60, -55]]).max() < 1  # an XTC holds 0.001 nm


def test_frames_lie_on_one_another(movie):
    heavy = [k for k, e in enumerate(movie.elements) if e != "H"]
    middle = movie.positions[:, heavy].mean(1)
    assert np.abs(middle - middle[0]).max() < 1e-5
    extent = movie.positions[0].std(0)
    assert extent[0] > extent[1] > extent[2]


def test_bonds_are_those_of_the_molecule(movie):
    assert len(movie.bonds) == 21
    assert movie.elements.count("H") == 12
    degree = np.bincount(movie.bonds.ravel(), minlength=22)
    expected = {"H": {1}, "C": {3, 4}, "N": {3}, "O": {1}}
    assert all(degree[k] in expected[e] for k, e in enumerate(movie.elements))


def test_a_residue_that_no_table_knows_gets_bonds_from_its_distances(run_directory, tmp_path):
    for name in ("topology.pdb", "trajectory.xtc"):
        (tmp_path / name).write_bytes((run_directory / name).read_bytes())
    lines = (tmp_path / "topology.pdb").read_text().splitlines()
    renamed = [line[:17] + "QQQ" + line[20:] if line.startswith(("ATOM", "HETATM")) else line
               for line in lines if not line.startswith("CONECT")]  # fmt: skip
    (tmp_path / "topology.pdb").write_text("\n".join(renamed))
    found = read_movie(tmp_path, [], {})
    known = read_movie(run_directory, [], {})
    assert not isinstance(found, str) and not isinstance(known, str)
    assert {tuple(b) for b in found.bonds} == {tuple(b) for b in known.bonds}


def test_thinning_keeps_what_it_must(movie):
    chosen = movie.index[thinned(movie, 10)]
    assert {0, 20, 40} <= set(chosen) and len(chosen) <= 10
    assert list(movie.index[thinned(movie, 3)]) == [0, 20, 40]


@pytest.mark.parametrize("budget", [6_000, 20_000])
def test_a_movie_fits_its_budget(movie, budget):
    payload = encoded(movie, budget)
    assert len(json.dumps(payload, separators=(",", ":"))) <= budget
    assert {0, 20, 40} <= set(payload["index"])


def test_a_molecule_too_large_for_the_page_is_refused(movie):
    with pytest.raises(ValueError, match="22 atoms need more than the 800 bytes"):
        encoded(movie, 800)


def test_a_long_trajectory_is_read_in_strides_with_its_minima(run_directory):
    found = read_movie(run_directory, [7, 41], {"cvs": [[k, k] for k in range(60)]}, limit=6)
    assert not isinstance(found, str) and found.cvs is not None
    assert list(found.index) == [0, 7, 10, 20, 30, 40, 41, 50]
    assert list(found.cvs[:, 0]) == list(found.index)
    assert list(found.time) == [10.0 * k for k in found.index]


def test_files_that_do_not_belong_together_are_refused(run_directory, tmp_path):
    (tmp_path / "trajectory.xtc").write_bytes((run_directory / "trajectory.xtc").read_bytes())
    first = [line for line in (run_directory / "topology.pdb").read_text().splitlines() if " ACE " in line]
    (tmp_path / "topology.pdb").write_text("\n".join(first))
    with pytest.raises(InputError, match=r"cannot be read with topology\.pdb"):
        write_report(tmp_path)


def test_a_frame_that_a_kill_cut_short_is_left_out(run_directory, trajectory, tmp_path):
    (tmp_path / "topology.pdb").write_bytes((run_directory / "topology.pdb").read_bytes())
    data = (run_directory / "trajectory.xtc").read_bytes()
    ends = []
    for frames in (1, 30, 31):
        trajectory[:frames].save_xtc(str(tmp_path / "part.xtc"))
        ends.append((tmp_path / "part.xtc").stat().st_size)
    cuts = [(ends[1] + more, 30) for more in (0, 3, 60, 90, 100)]
    for cut, frames in [(len(data) - 1, 59), *cuts, (ends[2] - 1, 30), (ends[2], 31), (ends[0], 1), (ends[0] - 1, 0)]:
        (tmp_path / "trajectory.xtc").write_bytes(data[:cut])
        found = read_movie(tmp_path, [0, 59], {})
        assert (0 if isinstance(found, str) else len(found.index)) == frames


def test_a_damaged_trajectory_is_refused(run_directory, tmp_path):
    (tmp_path / "topology.pdb").write_bytes((run_directory / "topology.pdb").read_bytes())
    (tmp_path / "trajectory.xtc").write_bytes(b"no trajectory at all")
    with pytest.raises(InputError, match="cannot be read"):
        read_movie(tmp_path, [], {})
