"""Runs in a box: what is dissolved is drawn, whole and in the middle, and one sees the density equilibrate."""

import json
import re
import shutil
from itertools import pairwise

import h5py
import mdtraj
import numpy as np
import pytest

from metastable.core.errors import InputError
from metastable.report import images, write_report
from metastable.report.movie import LIQUID, encoded, read_movie
from metastable.report.page import LIMIT
from metastable.report.reading import read_run
from metastable.report.traces import read_traces

SOLUTE = np.arange(22)
WATERS = 3 * 400


def distances(positions):
    return np.linalg.norm(positions[:, :, None] - positions[:, None, :], axis=-1)


@pytest.mark.parametrize("solute", [SOLUTE, None])
def test_only_what_is_dissolved_is_drawn_whole_and_in_the_middle(solvated_directory, run_directory, solute):
    """As the synthetic run without its water has it; None: where no results say what is dissolved."""
    movie = read_movie(solvated_directory, [], {}, solute)
    dry = mdtraj.load(str(run_directory / "trajectory.xtc"), top=str(run_directory / "topology.pdb"))
    assert not isinstance(movie, str) and not movie.liquid
    assert (movie.positions.shape, movie.hidden, len(movie.bonds)) == ((8, 22, 3), WATERS + 2, 21)
    cut = mdtraj.load(str(solvated_directory / "trajectory.xtc"), top=str(solvated_directory / "topology.pdb"))
    assert np.abs(distances(cut.xyz[:, :22]) - distances(dry.xyz[:40:5])).max() > 1  # it lies across the border
    assert np.abs(distances(movie.positions) - distances(dry.xyz[:40:5])).max() < 4e-3  # an XTC holds 0.001 nm
    heavy = [k for k, e in enumerate(movie.elements) if e != "H"]
    middle = movie.positions[:, heavy].mean(1)
    assert np.abs(middle - middle[0]).max() < 1e-5 and np.abs(middle).max() < 0.05


def test_a_liquid_is_drawn_in_its_box_each_molecule_whole(liquid_directory):
    movie = read_movie(liquid_directory, [], {}, np.zeros(0, int))
    assert not isinstance(movie, str) and movie.liquid
    assert (movie.positions.shape, movie.hidden, len(movie.bonds)) == ((8, 650, 3), 0, 2 * 216)  # ions have none
    lengths = np.linalg.norm(np.diff(movie.positions[:, movie.bonds], axis=2), axis=-1)
    assert np.allclose(lengths, 0.0957, atol=2e-3)
    molecules = movie.positions[:, :648].reshape(8, 216, 3, 3).mean(2)
    sides = 1.9 * np.linspace(1, 1.01, 8)
    assert (np.abs(molecules) <= sides[:, None, None] / 2 + 1e-3).all()
    assert (np.ptp(molecules, axis=1) > 0.8 * sides[:, None]).all()


def test_sites_of_water_that_are_no_atoms_are_not_drawn(liquid_directory, tmp_path):
    """Every second hydrogen made a site: no element, as write_topology leaves it."""
    lines = (liquid_directory / "topology.pdb").read_text().splitlines()
    sites = [line[:12] + " EPW TP4" + line[20:76] + "  " if " H2  HOH" in line else line.replace("HOH", "TP4")
             for line in lines if not line.startswith("CONECT")]  # fmt: skip
    (tmp_path / "topology.pdb").write_text("\n".join(sites))
    shutil.copy(liquid_directory / "trajectory.xtc", tmp_path)
    for solute in (None, np.zeros(0, int)):
        movie = read_movie(tmp_path, [], {}, solute)
        assert not isinstance(movie, str) and (len(movie.elements), movie.hidden) == (650 - 216, 0)
        assert set(movie.elements) == {"O", "H", "Na"}


def test_a_large_liquid_is_not_drawn_and_the_page_says_so(write_run):
    run = write_run(LIQUID // 3 + 1, solute=False, frames=3, ions=0)
    text = write_report(run).read_text(encoding="utf-8")
    assert f"Of a liquid {LIQUID} atoms are drawn at most, and this one has {LIQUID + 3}: it is not shown." in text
    assert 'id="molecule"' not in text


def test_ten_thousand_atoms_fit_into_the_page(write_run):
    run = write_run(3330, side=4.7, frames=60)
    assert write_report(run).stat().st_size < LIMIT
    movie = read_run(run).movie
    assert movie is not None and len(movie.index) == 60


def test_a_large_solute_fits_in_fewer_frames(liquid_directory):
    """All 650 atoms, which need some 30,000 bytes and 5,000 a frame."""
    movie = read_movie(liquid_directory, [3], {}, np.arange(650))
    assert not isinstance(movie, str)
    payload = encoded(movie, 50_000)
    assert 1 <= payload["frames"] < 8 and 3 in payload["index"]
    assert len(json.dumps(payload, separators=(",", ":"))) <= 50_000


@pytest.mark.parametrize("seed", range(3))
def test_images_in_a_triclinic_box_are_put_together(seed):
    """Chains of 12, 5 and 1 atoms, every atom moved by lattice vectors: as before, but for one vector a molecule."""
    random = np.random.default_rng(seed)
    box = np.array([[2.0, 0, 0], [0.6, 1.8, 0], [-0.7, 0.5, 1.7]])
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    parts = []
    for size, shift in ((12, 0.0), (5, 0.5), (1, -0.4)):
        residue = topology.add_residue(f"M{size}", chain)
        atoms = [topology.add_atom("C", mdtraj.element.carbon, residue) for _ in range(size)]
        order = random.permutation(size)  # bonds that do not run along with the numbers
        for a, b in pairwise(order):
            topology.add_bond(atoms[a], atoms[b])
        walk = np.cumsum(random.normal(size=(4, size, 3)) * 0.05, 1)
        part = np.empty_like(walk)
        part[:, order] = walk - walk.mean(1, keepdims=True)
        parts.append(part + shift * np.array([1.0, 0, 0]))
    there = np.concatenate(parts, 1)
    moved = there + random.integers(-2, 3, size=(4, 18, 3)) @ box
    traj = mdtraj.Trajectory(moved, topology)
    traj.unitcell_vectors = np.repeat(box[None], 4, 0).astype(np.float32)
    group = images.molecules_of(topology)
    images.gather(traj, group, liquid=False)
    assert np.allclose(distances(traj.xyz), distances(there), atol=1e-5)
    images.gather(traj, group, liquid=True)
    for molecule in range(3):
        center = traj.xyz[:, group == molecule].mean(1)
        assert (np.abs(center) <= np.diag(box) / 2 + 1e-5).all()
        assert np.allclose(distances(traj.xyz[:, group == molecule]), distances(there[:, group == molecule]), atol=1e-5)


def test_a_solute_of_more_atoms_than_there_are_is_refused(solvated_directory, tmp_path):
    run = shutil.copytree(solvated_directory, tmp_path / "run")
    rewrite(run, solute={"atoms": [[0, 4000]]})
    with pytest.raises(InputError, match="has atom 3999 in the solute, and there are 1224"):
        write_report(run)
    rewrite(run, solute=[1, 2])
    with pytest.raises(InputError, match=r"solute: must be an object with atoms, a list of ranges, but \[1, 2\] is no"):
        write_report(run)


def test_traces_are_means_of_what_was_recorded(solvated_directory):
    density, energy = read_traces(solvated_directory / "arrays.h5", points=150)
    with h5py.File(solvated_directory / "arrays.h5") as file:
        volume, potential = (file["observables"][name]["value"][:] for name in ("volume", "potential"))
        time = file["observables/volume/time"][:]
    assert (density.records, density.walkers.shape) == (3, (133, 6))
    kg_m3 = 8300 * 1.66053906660e-27 / (volume * 1e-27)
    assert np.allclose(density.walkers[7], kg_m3[21:24].mean(0)) and density.time[7] == time[21:24].mean()
    assert np.allclose(energy.walkers[-1], potential[396:399].mean(0))


def test_traces_end_where_the_run_has_got_to(solvated_directory, tmp_path):
    path = shutil.copy(solvated_directory / "arrays.h5", tmp_path / "arrays.h5")
    with h5py.File(path, "r+") as file:
        for name in ("volume", "potential"):
            file["observables"][name]["time"][40:] = file["observables"][name]["value"][40:] = np.nan
    density, energy = read_traces(path)
    assert len(density.time) == len(energy.time) == 40 and np.isfinite(density.walkers).all()


def test_the_density_in_a_box_that_stays_is_no_trace(solvated_directory, tmp_path):
    run = shutil.copytree(solvated_directory, tmp_path / "run")
    with h5py.File(run / "arrays.h5", "r+") as file:
        file["observables/volume/value"][...] = np.float32(13.7)
    assert [trace.name for trace in read_traces(run / "arrays.h5")] == ["potential energy"]
    text = write_report(run).read_text(encoding="utf-8")
    assert 'id="equilibration"' not in text and "Potential energy in time" in text


def test_the_page_shows_the_equilibration_and_what_is_left_out(solvated_directory, tmp_path):
    text = write_report(solvated_directory, tmp_path / "page.html").read_text(encoding="utf-8")
    (section,) = re.findall(r'<section id="equilibration">(.*?)</section>', text)
    assert "Density in time" in section and "Potential energy in time" in section
    assert (
        "estimate, 998.2 ± 1.4 kg/m³" in section
        and "The mean of 6 walkers, and each of them (thin); every point is the mean of 4 records." in section
    )
    assert section.count('class="line thin s1"') == 12
    for drawing in re.findall(r"<svg.*?</svg>", section):
        (left, width), frame = re.findall(r'class="shade" x="([\d.]+)".*?width="([\d.]+)"', drawing)[0], 460 - 14
        end = read_traces(solvated_directory / "arrays.h5")[0].time[-1]
        assert float(width) / (frame - float(left)) == pytest.approx(200 / end, abs=0.002)
    assert "<b>998.2 ± 1.4<small> kg/m³</small></b><span>density</span>" in text
    assert "1202 atoms of water and ions are left out." in text


def test_many_walkers_are_one_line_and_no_volume_no_section(solvated_directory, tmp_path):
    run = shutil.copytree(solvated_directory, tmp_path / "run")
    with h5py.File(run / "arrays.h5", "r+") as file:
        del file["observables/volume"]
        values = np.repeat(file["observables/potential/value"][:], 3, 1)
        del file["observables/potential/value"]
        file["observables/potential/value"] = values
    text = write_report(run).read_text(encoding="utf-8")
    assert 'id="equilibration"' not in text and "Density in time" not in text
    assert "Potential energy in time" in text and "The mean of 18 walkers, every point" in text


def rewrite(run, **values):
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps(results | values))
