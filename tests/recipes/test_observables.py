"""Observables through the recipe: gases whose structure, motion and responses are known, recorded as a run runs."""

import json

import h5py
import jax
import jax.numpy as jnp
import mdtraj
import numpy as np
import pytest

from metastable.core.errors import InputError
from metastable.core.frame import Frame
from metastable.core.system import System, Topology
from metastable.core.units import bar, inverse_cm, kelvin
from metastable.cvs import Stack
from metastable.enhanced.biases import Harmonic
from metastable.estimate.correlation import Blocks
from metastable.estimate.curve import Curve
from metastable.estimate.fluctuations import total_dipole
from metastable.io.molecules import Molecule, load_molecule
from metastable.io.rules import Box
from metastable.io.selection import select_atoms
from metastable.potentials.sites import Average, Sites
from metastable.potentials.sum import Sum
from metastable.recipes.dynamics import conclude, dynamics
from metastable.recipes.metadynamics import metadynamics
from metastable.recipes.observables import (
    RDF,
    Compressibility,
    Dielectric,
    Diffusion,
    HeatCapacity,
    ThermalExpansion,
    VelocityAutocorrelation,
    first_shell,
)
from metastable.recipes.observing import dipole, edges, molecule_of, problems
from metastable.recipes.plan import Plan

KT, MASS, SIDE, ATOMS = 300 * kelvin, 40.0, 2.0, 64
XML = """<ForceField>
 <AtomTypes><Type name="G" class="G" element="Ar" mass="40"/></AtomTypes>
 <Residues><Residue name="GAS"><Atom name="G" type="G"/></Residue></Residues>
 <NonbondedForce coulomb14scale="1" lj14scale="1"><Atom type="G" charge="0" sigma="0.3" epsilon="0"/></NonbondedForce>
</ForceField>"""


def write_gas(folder, side=SIDE):
    """Atoms without interactions, anywhere in a cube."""
    (folder / "gas.xml").write_text(XML)
    lines = ["CRYST1" + 3 * f"{10 * side:9.3f}" + 3 * f"{90:7.2f}" + " P 1           1 "]
    for i, x in enumerate(10 * side * np.random.default_rng(0).random((ATOMS, 3))):
        place = "".join(f"{v:8.3f}" for v in x)
        lines.append(f"HETATM{i + 1:5d}  G   GAS A{i + 1:4d}    {place}  1.00  0.00          AR")
    (folder / "gas.pdb").write_text("\n".join([*lines, "END", ""]))
    return load_molecule(folder / "gas.pdb", [str(folder / "gas.xml")], box=Box(0.4, "reaction-field"))


EVERYONE = tuple(range(ATOMS))
PLAN = Plan(KT, dt=0.02, friction=5.0, walkers=4, blocks=6, steps=1000, every=2, frames=50, trajectory_walkers=4,
            discard=0.1, minimize=False, skin=0.3, observables={
                "g": RDF(EVERYONE, bins=10), "d": Diffusion(EVERYONE, (4.0, 10.0)),
                "v": VelocityAutocorrelation(EVERYONE, 1.5), "c": HeatCapacity()})  # fmt: skip


@pytest.fixture(scope="module")
def gas(tmp_path_factory):
    """The run, its directory and what came out."""
    folder = tmp_path_factory.mktemp("gas")
    molecule = write_gas(folder)
    assert dynamics(PLAN, molecule, None, None, folder / "run") is None
    return molecule, folder / "run", json.loads((folder / "run/results.json").read_text())


def entry(results, name):
    (found,) = [e for e in results["estimates"] if e["name"] == name]
    return found


def test_an_ideal_gas_has_no_structure(gas):
    (g, near) = gas[2]["observables"][0]["curves"]
    values, errors = np.array(g["values"], float), np.array(g["error"], float)
    assert np.all(np.abs(values - 1)[1:] < 4.5 * errors[1:]) and errors[1:].max() < 0.1
    assert near["values"][-1] == pytest.approx((ATOMS - 1) * np.pi / 6, rel=0.02)  # the sphere in the cube
    assert gas[2]["observables"][0]["estimates"] == []


@pytest.mark.parametrize("name", ["diffusion of atoms", "diffusion by Green-Kubo, to 1.5 ps"])
def test_langevin_particles_diffuse_as_einstein_says(gas, name):
    """Frames are 2 ps apart: in some of the 10 ps of the window atoms go farther than half of the box."""
    found, exact = entry(gas[2], name), KT / (MASS * 5.0)
    assert abs(found["value"] - exact) < 4 * found["error"] + 0.01 * exact
    assert found["error"] < 0.06 * exact and found["unit"] == "nm^2/ps"


def test_the_heat_capacity_of_a_gas_at_constant_volume(gas):
    assert entry(gas[2], "isochoric heat capacity")["value"] == pytest.approx(1.5e3 * kelvin, rel=1e-6)


def test_what_is_recorded_are_the_velocities_of_the_atoms(gas):
    with h5py.File(gas[1] / "arrays.h5") as file:
        own = file["observables/velocities-v"]
        v = own["value"][:]
        assert own.attrs["atoms"].tolist() == list(EVERYONE)
        assert own["value"].attrs["unit"] == "nm/ps"
    assert v.shape == (3000, 4, ATOMS, 3)
    assert np.mean(v[300:].astype(float) ** 2) == pytest.approx(KT / MASS, rel=0.02)
    curve = gas[2]["observables"][2]["curves"][0]
    assert curve["values"][5] == pytest.approx(np.exp(-5.0 * 5 * 0.04), abs=0.02)  # Ornstein and Uhlenbeck


def test_atoms_are_never_put_back_into_the_box(gas):
    with mdtraj.open(str(gas[1] / "trajectory.xtc")) as file:
        last = file.read()[0][-1]
    assert last.min() < -0.5 and last.max() > SIDE + 0.5


def test_estimates_are_made_of_the_run_as_far_as_it_got(gas, tmp_path):
    """From the files of the whole run, as if its arrays ended earlier."""
    molecule, directory, whole = gas
    for name in ("arrays.h5", "trajectory.xtc", "topology.pdb"):
        (tmp_path / name).write_bytes((directory / name).read_bytes())
    with h5py.File(tmp_path / "arrays.h5", "r+") as file:
        file["observables/step"][1500:] = -1
    conclude(PLAN, molecule, Stack(), tmp_path)
    part = json.loads((tmp_path / "results.json").read_text())
    assert len(part["frames"]["time_ps"]) == 4 * 30
    assert entry(part, "diffusion of atoms")["value"] != entry(whole, "diffusion of atoms")["value"]
    with h5py.File(tmp_path / "arrays.h5", "r+") as file:
        file["observables/step"][60:] = -1
    conclude(PLAN, molecule, Stack(), tmp_path)
    told = {o["name"]: o["notes"] for o in json.loads((tmp_path / "results.json").read_text())["observables"]}
    assert "Not enough" in told["d"][0]


@pytest.mark.physics
def test_a_gas_under_pressure_responds_as_an_ideal_one(tmp_path):
    """N + 1 in place of N: the volume, with which its ideal gas is weighed, counts as one molecule more."""
    pressure = 200 * bar
    wanted = {"k": Compressibility(), "a": ThermalExpansion(), "c": HeatCapacity(), "d": Diffusion(EVERYONE)}
    plan = Plan(KT, dt=0.02, friction=5.0, walkers=4, blocks=30, steps=1000, every=10, frames=10, minimize=False,
                skin=0.3, pressure=pressure, barostat="monte-carlo", observables=wanted)  # fmt: skip
    dynamics(plan, write_gas(tmp_path, 2.4), None, None, tmp_path / "run")
    results = json.loads((tmp_path / "run/results.json").read_text())
    for name, exact in (
        ("isothermal compressibility", bar / pressure),
        ("thermal expansion", 1 / 300),
        ("isobaric heat capacity", 1e3 * kelvin * (1.5 + (ATOMS + 1) / ATOMS)),
        ("diffusion of atoms", KT / (MASS * 5.0)),
    ):
        found = entry(results, name)
        assert abs(found["value"] - exact) < 4 * found["error"] + 0.02 * exact
        assert found["error"] < 0.25 * exact
    assert any("changes" in c["what"] for c in results["cite"])


def chains():
    """Two bent chains of three atoms and a site on each, in a triclinic box, with charges that add up to nothing."""
    names, ids = ("A", "B", "C", "M") * 2, ("1",) * 4 + ("2",) * 4
    bonds = np.array([[0, 1], [1, 2], [4, 5], [5, 6]])
    parents = [[1, 0, 2], [5, 4, 6]]
    system = System(np.array([6, 6, 6, 0] * 2), np.array([12.0, 12, 12, 0] * 2), np.array([0.3, 0.1, 0.4, -0.8] * 2),
                    Topology(names, ("CHN",) * 8, ids, ("A",) * 8, bonds),
                    sites=Sites((Average([3, 7], parents, [[0.2, 0.2, 0.0]] * 2),)))  # fmt: skip
    box = np.array([[2.0, 0, 0], [0.4, 1.8, 0], [-0.5, 0.3, 2.2]])
    return Molecule(system, Frame(np.random.default_rng(3).random((8, 3)) * 0.3, box), Sum({"nonbonded": None}))


def test_the_dipole_in_the_loop_is_that_of_the_estimates():
    molecule = chains()
    x = np.random.default_rng(4).normal(size=(8, 3))
    state = type("State", (), {"frame": Frame(x, molecule.frame.box)})
    with jax.enable_x64(True):
        found = dipole(molecule)(state)
        exact = total_dipole(x[None], molecule.frame.box, molecule.system.charges, edges(molecule.system))
    assert np.allclose(found, exact[0], atol=1e-12)
    assert molecule_of(molecule.system).tolist() == [0] * 4 + [1] * 4


def test_the_first_shell_is_found_only_where_it_stands_out():
    r = (np.arange(200) + 0.5) / 200
    wave = 1 + 2 * np.exp(-(((r - 0.28) / 0.03) ** 2)) - 0.4 * np.exp(-(((r - 0.4) / 0.05) ** 2))
    blocks = Blocks(10, 2, 5, 2)
    noise = np.random.default_rng(0).normal(size=200)

    def curve(values, error):
        return Curve(r, values + error * noise, np.full((2, 200), error / np.sqrt(2)), blocks, "nm")

    found = first_shell(curve(wave, 0.01))
    assert found is not None and r[found[0]] == pytest.approx(0.28, abs=0.006)
    assert r[found[1]] == pytest.approx(0.4, abs=0.02)
    assert first_shell(curve(wave, 1.0)) is None and first_shell(curve(np.ones(200), 0.01)) is None


def said(molecule, observable, **changes):
    plan = Plan(KT, **({"every": 2, "discard": 0.0, "observables": {"x": observable}} | changes))
    return " ".join(f"{p.where}: {p.message}" for p in problems(plan, molecule))


@pytest.mark.parametrize(
    ("observable", "changes", "words"),
    [
        (Compressibility(), {}, "set dynamics.pressure"),
        (ThermalExpansion(), {}, "set dynamics.pressure"),
        (HeatCapacity(), {"integrator": "verlet"}, "take a thermostat"),
        (RDF((0,), limit=1.5), {}, "observable.x.limit: 1.5 nm must be at most 1 nm"),
        (RDF((0,)), {}, "no pair of atoms of different molecules"),
        (RDF((0,), intramolecular=True), {}, "no pair of an atom and another"),
        (RDF((0, 1)), {"trajectory_walkers": 0}, "output.trajectory_walkers"),
        (RDF((0, 1)), {"frames": 10**7}, "output.trajectory shorter"),
        (Diffusion((0,), (1.0, 900.0)), {}, "must end within half of the 1000 ps"),
        (Diffusion((0,), (1.0, 1.001)), {}, "holds 1 of the frames"),
        (VelocityAutocorrelation((0,)), {"every": 50}, "output.every = 100 fs is too wide for velocities: an atom"),
        (VelocityAutocorrelation((0,), 600.0), {}, "half of the 1000 ps"),
        (VelocityAutocorrelation((0,), 0.001), {}, "must lie between output.every, 0.004 ps"),
        (VelocityAutocorrelation((0,)), {"integrator": "overdamped"}, "has no velocities"),
        (VelocityAutocorrelation(EVERYONE), {"blocks": 10_000}, "GB of velocities"),
        (Dielectric(), {}, "electrostatics = 'pme'"),
        (RDF((0, 64)), {}, "observable.x.first: 0 to 64 must lie from 0 to 63"),
        (RDF((0, 1), ()), {}, "observable.x.second: names no atom"),
        (Diffusion(np.array([3, 3])), {}, "observable.x.atoms: names an atom twice"),
    ],
)
def test_what_does_not_suit_an_observable_is_told(gas, observable, changes, words):
    assert words in said(gas[0], observable, **changes)


def test_what_needs_a_box_says_so(gas):
    dry = gas[0]._replace(frame=Frame(gas[0].frame.positions))
    for observable in (RDF((0, 1)), Diffusion((0,)), Compressibility(), ThermalExpansion(), Dielectric()):
        assert "add [molecule.box]" in said(dry, observable)
    assert said(dry, HeatCapacity()) == "" == said(dry, VelocityAutocorrelation((0,)))


def test_velocities_must_be_close_where_bonds_vibrate():
    molecule = chains()
    assert "a molecule that vibrates" in said(molecule, VelocityAutocorrelation((0,)), every=10)
    system = molecule.system
    hydrogens = molecule._replace(system=System(np.array([1, 6, 6, 0] * 2), system.masses, system.charges,
                                                system.topology))  # fmt: skip
    assert "bond to hydrogen" in said(hydrogens, VelocityAutocorrelation((1,)), every=4)
    assert "none of them has a mass" in said(molecule, VelocityAutocorrelation((3,)))


def test_observables_go_with_no_bias(gas, tmp_path):
    with pytest.raises(InputError, match="bias"):
        dynamics(PLAN, gas[0], None, Harmonic([0.0], 1.0), tmp_path)
    with pytest.raises(InputError, match="bias"):
        metadynamics(PLAN, gas[0], Stack(), Harmonic([0.0], 1.0), tmp_path)
    assert not list(tmp_path.iterdir())


def test_atoms_by_the_words_of_mdtraj(gas):
    system = chains().system
    assert select_atoms("name B or (resid 1 and element C)", system) == (1, 4, 5, 6)
    assert select_atoms("resSeq 2 and mass > 1", system) == (4, 5, 6)
    assert select_atoms("resname GAS", gas[0].system) == EVERYONE
    with pytest.raises(ValueError, match="'name XX' matches no atom of the 8"):
        select_atoms("name XX", system)
    for text in ("havy", "name B and", "resname > 3", "__import__('os')"):
        with pytest.raises(ValueError, match="is no selection of MDTraj"):
            select_atoms(text, system)


@pytest.mark.parametrize("integrator", ["langevin", "csvr"])
def test_the_spectrum_of_a_molecule_in_vacuum(tmp_path, integrator):
    """Two atoms on a spring: one line, and the temperature is that of the thermostat, centre held still or not."""
    frequency = 300 * 2 * np.pi * inverse_cm  # 1/ps
    system = System(
        np.array([6, 6]), np.full(2, 12.0), np.zeros(2), Topology(("A", "B"), ("X",) * 2, ("1",) * 2, ("A",) * 2)
    )
    spring = Sum(
        {"spring": lambda f: 3.0 * frequency**2 * (jnp.linalg.norm(f.positions[0] - f.positions[1]) - 0.2) ** 2}
    )
    pair = Molecule(system, Frame(np.array([[0.0, 0, 0], [0.2, 0, 0]])), spring)
    plan = Plan(KT, dt=0.002, friction=0.5, relaxation=0.5, integrator=integrator, walkers=16, blocks=4, steps=5000,
                every=5, frames=100, trajectory_walkers=16, minimize=False, recenter=True,
                observables={"v": VelocityAutocorrelation((0, 1), 1.0)})  # fmt: skip
    dynamics(plan, pair, None, None, tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    (observable,) = results["observables"]
    assert observable["estimates"] == []
    _, states = observable["curves"]
    x, density = np.array(states["x"]), np.array(states["values"])
    line = x > 150
    assert x[line][np.argmax(density[line])] == pytest.approx(300, abs=1.2 * (x[1] - x[0]))
    share = density[line].sum() * (x[1] - x[0])
    assert share == pytest.approx(1 / 6 if integrator == "langevin" else 1 / 3, rel=0.15)
    found = entry(results, "temperature")
    assert abs(found["value"] - 300) < 4 * found["error"] + 3
