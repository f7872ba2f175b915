"""A run directory made up for the tests: alanine dipeptide built from internal coordinates, a landscape by formula."""

import csv
import json
import math
from pathlib import Path

import h5py
import mdtraj
import numpy as np
import pytest

ATOMS = [("ACE", "H1"), ("ACE", "CH3"), ("ACE", "H2"), ("ACE", "H3"), ("ACE", "C"), ("ACE", "O"), ("ALA", "N"),
         ("ALA", "H"), ("ALA", "CA"), ("ALA", "HA"), ("ALA", "CB"), ("ALA", "HB1"), ("ALA", "HB2"), ("ALA", "HB3"),
         ("ALA", "C"), ("ALA", "O"), ("NME", "N"), ("NME", "H"), ("NME", "C"), ("NME", "H1"), ("NME", "H2"),
         ("NME", "H3")]  # fmt: skip
KT = 300 * 8.31446261815324e-3
WELLS = ((-80.0, 75.0, 1.0), (-150.0, 155.0, 0.55), (60.0, -55.0, 0.04))  # phi, psi in degrees, weight


def _place(a, b, c, length, angle, dihedral):
    """The atom bonded to c, at an angle with b, at a dihedral with a: nm, degrees."""
    angle, dihedral = math.radians(angle), math.radians(dihedral)
    axis = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, axis)
    normal /= np.linalg.norm(normal)
    return c + length * (
        -math.cos(angle) * axis
        + math.sin(angle) * (math.cos(dihedral) * np.cross(normal, axis) + math.sin(dihedral) * normal)
    )


def alanine_dipeptide(phi, psi, rotors=(60.0, 60.0, 60.0)):
    """Positions of the 22 atoms, nm, for two torsions in degrees and the turns of the three methyl groups."""
    m1, c1 = np.zeros(3), np.array([0.1522, 0, 0])
    n1 = _place(np.array([0.0, 1.0, 0.3]), m1, c1, 0.1335, 116.6, 0)
    ca = _place(m1, c1, n1, 0.1449, 121.9, 180)
    c2 = _place(c1, n1, ca, 0.1522, 110.5, phi)
    n2 = _place(n1, ca, c2, 0.1335, 116.6, psi)
    m2 = _place(ca, c2, n2, 0.1449, 121.9, 180)
    cb = _place(c1, n1, ca, 0.1526, 109.7, phi - 122)

    def methyl(a, b, c, turn):
        return [_place(a, b, c, 0.109, 109.5, turn + k) for k in (0, 120, 240)]

    h1, h2, h3 = methyl(n1, c1, m1, rotors[0])
    return np.array([
        h1, m1, h2, h3, c1, _place(ca, n1, c1, 0.1229, 122.9, 0), n1, _place(m1, c1, n1, 0.101, 119, 0), ca,
        _place(c1, n1, ca, 0.109, 109, phi + 119), cb, *methyl(n1, ca, cb, rotors[1]), c2,
        _place(m2, n2, c2, 0.1229, 122.9, 0), n2, _place(ca, c2, n2, 0.101, 119, 0), m2, *methyl(c2, n2, m2, rotors[2]),
    ])  # fmt: skip


def _topology():
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    residue = None
    for name, atom in ATOMS:
        if residue is None or residue.name != name:
            residue = topology.add_residue(name, chain)
        topology.add_atom(atom, mdtraj.element.get_by_symbol(atom[0]), residue)
    return topology


def density(phi, psi):
    """An unnormalised density of the two torsions, radians: three wells on a flat floor."""
    total = 1e-7
    for a, b, weight in WELLS:
        total = total + weight * np.exp(
            9 * (np.cos(phi - math.radians(a)) - 1) + 7 * (np.cos(psi - math.radians(b)) - 1)
        )
    return total


def _landscape():
    grid = (np.arange(60) + 0.5) * 2 * math.pi / 60 - math.pi
    f = -KT * np.log(density(grid[:, None], grid[None, :]))
    f -= f.min()
    error = 0.08 + 0.03 * f**1.2
    f, error = (np.where(f < 32, x, np.nan) for x in (f, error))
    total = sum(w for *_, w in WELLS)
    minima = [
        {"location": [math.radians(a), math.radians(b)], "free_energy": -KT * math.log(w),
         "error": 0.0 if w == 1 else 0.3, "population": w / total, "population_error": 0.012, "frame": 20 * i}
        for i, (a, b, w) in enumerate(WELLS)
    ]  # fmt: skip

    def listed(x):
        return [[None if np.isnan(v) else round(float(v), 4) for v in row] for row in x]

    axes = [{"label": n, "unit": "rad", "period": 2 * math.pi, "grid": grid.tolist()} for n in ("phi", "psi")]
    return {"axes": axes, "free_energy": listed(f), "error": listed(error), "minima": minima}


def write_synthetic_run(directory: Path, frames: int = 60, walkers: int = 6) -> Path:
    """A whole run directory. Frame 20 i of the trajectory stands exactly in well i."""
    random = np.random.default_rng(1)
    directory.mkdir(parents=True, exist_ok=True)
    torsions = np.empty((frames, 2))
    rotors = 60 + 25 * np.cumsum(random.normal(size=(frames, 3)), axis=0) * 0.3
    for i in range(frames):
        a, b, _ = WELLS[min(i // 20, 2)]
        torsions[i] = (a, b) if i % 20 == 0 else (a + 12 * random.normal(), b + 14 * random.normal())
    positions = np.array([alanine_dipeptide(*t, r) for t, r in zip(torsions, rotors, strict=True)])
    traj = mdtraj.Trajectory(positions, _topology(), time=np.arange(frames) * 10.0)
    traj[0].save_pdb(str(directory / "topology.pdb"))
    traj.save_xtc(str(directory / "trajectory.xtc"))
    cvs = _write_arrays(directory / "arrays.h5", random, walkers)
    with (directory / "log.csv").open("w", newline="") as file:
        log = csv.writer(file)
        log.writerow(["block", "step", "time_ps", "ns_per_day", "temperature_K", "bias_kJ_mol", "phi", "psi"])
        for i in range(100):
            bias = 28 * (1 - math.exp(-i / 25))
            log.writerow([i, 5000 * i, 10.0 * i, 4100.0, 300 + random.normal(), bias, *cvs[4 * i].mean(0)])
    values = {"F(B) − F(A)": 1.49, "F(C) − F(A)": 8.03}
    convergence = [
        {"fraction": f, "time_ns": 6 * f,
         "values": {n: {"value": v + 0.5 * (1 - f) ** 2, "error": 0.3 / math.sqrt(f)} for n, v in values.items()}}
        for f in np.linspace(0.1, 1, 10)
    ]  # fmt: skip
    results = {
        "recipe": "landscape",
        "estimates": [{"name": n, "value": v, "error": 0.3, "unit": "kJ/mol"} for n, v in values.items()],
        "landscape": _landscape(),
        "convergence": convergence,
        "frames": {"cvs": np.radians(torsions).tolist(), "time_ps": (10.0 * np.arange(frames)).tolist(),
                   "walker": (np.arange(frames) % walkers).tolist()},
        "facts": {"molecule": "Alanine dipeptide", "atoms": 22, "force_field": "amber14-all", "temperature_K": 300,
                  "dt_fs": 2, "walkers": walkers, "total_time_ns": 6.0, "ns_per_day": 4100.0, "wall_time_s": 126.5,
                  "seed": 20261121, "precision": "float32", "note": "a <b> & c"},
        "cite": [{"what": "Well-tempered metadynamics", 
                  "text": "Barducci, Bussi, Parrinello, Phys. Rev. Lett. 2008, 100, 020603.",
                  "doi": "10.1103/PhysRevLett.100.020603"}],
    }  # fmt: skip
    (directory / "results.json").write_text(json.dumps(results))
    (directory / "resolved.toml").write_text('[molecule]\npdb = "alanine-dipeptide.pdb"\n\n[dynamics]\ndt = "2 fs"\n')
    (directory / "versions.json").write_text(json.dumps({"metastable": "0.1.0", "jax": "0.10.2", "python": "3.11.9"}))
    return directory


def _write_arrays(path, random, walkers):
    frames = 400
    well = (np.arange(frames)[:, None] // 80 + np.arange(walkers)) % 3
    centers = np.radians(np.array(WELLS)[:, :2])[well]
    cvs = centers + 0.25 * random.normal(size=(frames, walkers, 2))
    cvs = (cvs + math.pi) % (2 * math.pi) - math.pi
    with h5py.File(path, "w") as file:
        file.create_group("h5md").attrs["version"] = [1, 1]
        group = file.create_group("observables/cvs")
        group["value"] = cvs.astype("f4")
        group["step"] = 1250 * np.arange(frames)
        group["time"] = 2.5 * np.arange(frames)
        group["time"].attrs["unit"] = "ps"
    return cvs


@pytest.fixture(scope="session")
def run_directory(tmp_path_factory):
    return write_synthetic_run(tmp_path_factory.mktemp("run"))


def water_box(count, side, random):
    """Three atoms for each water, on a grid of the box, turned at random, and what a topology needs of them."""
    cells = math.ceil(count ** (1 / 3))
    grid = (np.array(list(np.ndindex(cells, cells, cells))[:count]) + 0.5) * side / cells
    bonds = random.normal(size=(count, 2, 3))
    bonds[:, 1] = np.cross(bonds[:, 0], bonds[:, 1])  # at right angles: near enough
    bonds *= 0.0957 / np.linalg.norm(bonds, axis=-1, keepdims=True)
    return np.concatenate([grid[:, None], grid[:, None] + bonds], 1).reshape(-1, 3)


def write_solvated_run(directory: Path, waters: int, *, side=2.4, frames=8, solute=True, ions=2) -> Path:
    """The synthetic run in a cube of water: every atom wrapped by itself, the solute in a corner, all of it drifting.

    Frame i shows the molecule as frame 5 i of the synthetic run does. The box grows by a hundredth over the run.
    """
    write_synthetic_run(directory)
    random = np.random.default_rng(7)
    dry = mdtraj.load(str(directory / "trajectory.xtc"), top=str(directory / "topology.pdb"))
    topology, positions = mdtraj.Topology(), []
    if solute:
        topology = dry.topology.copy()
        positions.append(np.zeros((22, 3)))
    chain = topology.add_chain()
    for _ in range(waters):
        residue = topology.add_residue("HOH", chain)
        o, *h = (topology.add_atom(n, mdtraj.element.get_by_symbol(n[0]), residue) for n in ("O", "H1", "H2"))
        for atom in h:
            topology.add_bond(o, atom)
    positions.append(water_box(waters, side, random))
    for _ in range(ions):
        topology.add_atom("Na", mdtraj.element.sodium, topology.add_residue("NA", chain))
    positions.append(side * random.random((ions, 3)))
    still, boxes = np.concatenate(positions), side * np.linspace(1, 1.01, frames)
    moving = np.repeat(still[None], frames, 0)
    if solute:
        moving[:, :22] = dry.xyz[5 * np.arange(frames) % 60]
    moving = (moving + 0.3 * np.arange(frames)[:, None, None]) % boxes[:, None, None]
    sides, right = np.repeat(boxes[:, None], 3, 1), np.full((frames, 3), 90.0)
    traj = mdtraj.Trajectory(moving, topology, 10.0 * np.arange(frames), sides, right)
    traj[0].save_pdb(str(directory / "topology.pdb"))
    traj.save_xtc(str(directory / "trajectory.xtc"))
    _write_thermo(directory / "arrays.h5", random)
    results = json.loads((directory / "results.json").read_text())
    results["frames"] = {name: values[:frames] for name, values in results["frames"].items()}
    for minimum in results["landscape"]["minima"]:
        minimum["frame"] = minimum["frame"] // 5 if minimum["frame"] // 5 < frames else None
    results["solute"] = {"atoms": [[0, 22]] if solute else []}
    results["used_from_ps"] = 200.0
    results["estimates"].append({"name": "density", "value": 998.2, "error": 1.4, "unit": "kg/m^3"})
    (directory / "results.json").write_text(json.dumps(results))
    return directory


def _write_thermo(path, random):
    """Volumes of 6 walkers that shrink to 13.8 nm^3, of 8300 Da, and potential energies, where the CVs are."""
    with h5py.File(path, "r+") as file:
        time = np.asarray(file["observables/cvs/time"])
        relaxing = np.exp(-time / 50)[:, None]
        noise = random.normal(size=(2, len(time), 6))
        series = {"volume": 13.8 + 1.2 * relaxing + 0.1 * noise[0], "potential": -9400 - 800 * relaxing + 60 * noise[1]}
        for name, values in series.items():
            group = file.create_group(f"observables/{name}")
            group["value"], group["time"], group["step"] = values, time, file["observables/cvs/step"][:]
        file["observables/volume"].attrs["mass"] = 8300.0


@pytest.fixture
def write_run(tmp_path):
    """``write_solvated_run`` into a new directory."""
    return lambda *args, **options: write_solvated_run(tmp_path / "run", *args, **options)


@pytest.fixture(scope="session")
def solvated_directory(tmp_path_factory):
    return write_solvated_run(tmp_path_factory.mktemp("solvated") / "run", 400)


@pytest.fixture(scope="session")
def liquid_directory(tmp_path_factory):
    return write_solvated_run(tmp_path_factory.mktemp("liquid") / "run", 216, side=1.9, solute=False)
