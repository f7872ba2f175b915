"""The commands as a user meets them: what they say, what they leave, how they end, and that nothing breaks a run."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import mdtraj
import numpy as np
import pytest

from metastable.cli import running
from metastable.cli.endings import DiskError
from metastable.cli.main import main
from metastable.core.errors import InputError, RunawayError
from metastable.report.sinks import read_arrays

CLOCK = {"timing.csv"}
EXAMPLE = Path(running.__file__).parent / "examples" / "alanine-dipeptide.toml"


# ---- a molecule small enough to be started, killed and gone on with many times: a chain of four sulfur atoms

PDB = """\
HETATM    1  S1  SSS A   1       1.503   1.352   0.000  1.00  0.00           S
HETATM    2  S2  SSS A   1       0.000   0.000   0.000  1.00  0.00           S
HETATM    3  S3  SSS A   1       2.050   0.000   0.000  1.00  0.00           S
HETATM    4  S4  SSS A   1       2.600  -1.400   1.350  1.00  0.00           S
CONECT    1    2
CONECT    2    1    3
CONECT    3    2    4
CONECT    4    3
END
"""

XML = """\
<ForceField>
 <AtomTypes><Type name="S" class="S" element="S" mass="32.06"/></AtomTypes>
 <Residues><Residue name="SSS">
  <Atom name="S1" type="S"/><Atom name="S2" type="S"/><Atom name="S3" type="S"/><Atom name="S4" type="S"/>
  <Bond atomName1="S1" atomName2="S2"/><Bond atomName1="S2" atomName2="S3"/><Bond atomName1="S3" atomName2="S4"/>
 </Residue></Residues>
 <HarmonicBondForce><Bond class1="S" class2="S" length="0.205" k="100000"/></HarmonicBondForce>
 <HarmonicAngleForce><Angle class1="S" class2="S" class3="S" angle="1.82" k="500"/></HarmonicAngleForce>
 <PeriodicTorsionForce>
  <Proper class1="S" class2="S" class3="S" class4="S" periodicity1="2" phase1="0" k1="8"
   periodicity2="1" phase2="0" k2="1.5"/>
 </PeriodicTorsionForce>
</ForceField>
"""

TOML = """\
recipe = "metadynamics"
title = "Four sulfur atoms"

[molecule]
structure = "s4.pdb"
forcefield = ["s4.xml"]
constraints = "none"

[dynamics]
temperature = "300 K"
timestep = "2 fs"
duration = "12 ps"
walkers = 4
seed = 7

[cv.tau]
type = "torsion"
atoms = [1, 2, 3, 4]
bins = 24

[bias]
type = "metadynamics"
height = "0.5 kJ/mol"
width = {tau = "20 deg"}
bias_factor = 6
pace = "0.1 ps"

[output]
every = "0.02 ps"
trajectory = "0.1 ps"
trajectory_walkers = 2
block = "1 ps"
"""


def write_input(folder: Path, toml: str = TOML) -> Path:
    """The three files of the input in a folder; gives back the TOML."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "s4.pdb").write_text(PDB)
    (folder / "s4.xml").write_text(XML)
    path = folder / "s4.toml"
    path.write_text(toml)
    return path


@pytest.fixture
def source(tmp_path) -> Path:
    return write_input(tmp_path / "input")


@pytest.fixture(scope="module", autouse=True)
def compilations(tmp_path_factory):
    """All runs of this file share what XLA compiles."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("compilations")))
            yield
    else:
        yield


def files(directory):
    return {p.name: p.read_bytes() for p in Path(directory).iterdir() if p.name not in CLOCK}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run, and its input."""
    folder = tmp_path_factory.mktemp("whole")
    source = write_input(folder / "input")
    running.start(source, folder / "out")
    return source, folder / "out"


def command(*arguments, **options):
    program = [sys.executable, "-m", "metastable.cli.main", *map(str, arguments)]
    return subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def ended(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def blocks(directory):
    try:
        return len((Path(directory) / "timing.csv").read_text().splitlines()) - 1
    except FileNotFoundError:
        return 0


def after_blocks(process, directory, count):
    """Wait until so many blocks more are done, or the process has ended."""
    first = blocks(directory)
    while process.poll() is None and blocks(directory) < first + count:
        time.sleep(0.005)


def exit_code(*arguments):
    before, sys.argv = sys.argv, ["metastable", *map(str, arguments)]
    try:
        main()
    except SystemExit as ending:
        return ending.code or 0
    finally:
        sys.argv = before
    return 0


# ---- the run directory


def test_a_run_leaves_everything(whole):
    _, out = whole
    assert set(files(out)) == {
        "input.toml", "resolved.toml", "versions.json", "origin.json", "s4.pdb", "s4.xml", "topology.pdb", "log.csv",
        "trajectory.xtc", "arrays.h5", "checkpoint-0", "checkpoint-1", "results.json", "report.html",
    }  # fmt: skip
    arrays = read_arrays(out / "arrays.h5")
    assert arrays["cvs"].shape == (600, 4, 1) and arrays["time"][-1] == pytest.approx(12)
    assert {"jax", "openmm", "metastable", "python"} <= set(json.loads((out / "versions.json").read_text()))
    assert tomllib.loads((out / "resolved.toml").read_text())["dynamics"]["seed"] == 7


def test_results_tell_a_value_an_error_and_a_unit(whole):
    results = json.loads((whole[1] / "results.json").read_text())
    assert all(set(e) == {"name", "value", "error", "unit"} for e in results["estimates"])
    named = {e["name"]: e for e in results["estimates"]}
    assert abs(named["temperature"]["value"] - 300) < 5 * named["temperature"]["error"] + 3
    minima = results["landscape"]["minima"]
    assert sum(m["population"] for m in minima) == pytest.approx(1)
    assert results["facts"]["seed"] == 7 and results["facts"]["total_time_ns"] == pytest.approx(0.048)


def test_the_trajectory_is_that_of_the_records(whole):
    _, out = whole
    trajectory = mdtraj.load(str(out / "trajectory.xtc"), top=str(out / "topology.pdb"))
    frames = json.loads((out / "results.json").read_text())["frames"]
    tau = mdtraj.compute_dihedrals(trajectory, [[0, 1, 2, 3]])
    assert len(trajectory) == 240 and np.allclose(trajectory.time, frames["time_ps"])
    off = np.abs(np.angle(np.exp(1j * (tau - np.array(frames["cvs"])))))
    assert off.max() < 0.03  # XTC keeps 0.001 nm
    arrays = read_arrays(out / "arrays.h5")
    assert np.allclose(arrays["cvs"][4::5, :2].reshape(-1, 1), frames["cvs"], rtol=1e-5)


def test_the_log_has_a_row_a_block(whole):
    rows = (whole[1] / "log.csv").read_text().splitlines()
    assert rows[0].split(",")[0] == "time_ps" and len(rows) == 13


def test_the_resolved_input_gives_the_same_run(whole, tmp_path):
    _, out = whole
    source = tmp_path / "again"
    source.mkdir()
    for name in ("resolved.toml", "s4.pdb", "s4.xml"):
        shutil.copy(out / name, source)
    running.start(source / "resolved.toml", tmp_path / "out")
    ours, theirs = files(tmp_path / "out"), files(out)
    assert {n for n in theirs if ours[n] != theirs[n]} == {"input.toml", "origin.json"}


# ---- unbreakable


def test_stopped_and_killed_and_gone_on_with_gives_the_same_files(tmp_path):
    source = write_input(tmp_path / "input", TOML.replace("12 ps", "240 ps"))  # long enough to be hit in its midst
    there, out = tmp_path / "there", tmp_path / "out"
    running.start(source, there)
    process = command("run", source, "--out", out)
    after_blocks(process, out, 2)
    process.send_signal(signal.SIGTERM)
    code, _, err = ended(process)
    assert code == 75 and "stopped after block" in err and "resume" in err, err
    for kills in range(2):
        process = command("resume", out)
        after_blocks(process, out, 1 + kills)
        time.sleep(0.03 * kills)
        process.kill()
        assert ended(process)[0] == -signal.SIGKILL
    process = command("resume", out)
    after_blocks(process, out, 1)
    process.send_signal(signal.SIGINT)
    code, _, err = ended(process)
    assert code == 130, err
    assert files(out) != files(there)
    running.resume(out)
    assert files(out) == files(there)


def test_killed_at_the_very_beginning(whole, tmp_path):
    source, there = whole
    out = tmp_path / "out"
    process = command("run", source, "--out", out)
    while process.poll() is None and not (out / "resolved.toml").exists():
        time.sleep(0.005)
    process.kill()
    ended(process)
    running.resume(out)
    assert files(out) == files(there)


def copied(whole, tmp_path, monkeypatch, blocks_done=5):
    """A run that stopped by itself after some blocks, as if by a signal."""
    source, _ = whole
    out = tmp_path / "out"
    seen = []

    def asked(self, block):
        seen.append(block)
        if len(seen) == blocks_done:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("metastable.cli.running.Watch.__call__", asked)
        with pytest.raises(KeyboardInterrupt):
            running.start(source, out)
    return source, out


def test_a_truncated_newest_checkpoint_falls_back_and_says_so(whole, tmp_path, monkeypatch, capsys):
    _, out = copied(whole, tmp_path, monkeypatch)
    newest = max((out / f"checkpoint-{i}" for i in range(2)), key=lambda p: p.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:-100])
    running.resume(out)
    assert f"{newest.name} is damaged or cut short: going back" in capsys.readouterr().out
    assert files(out) == files(whole[1])


def test_a_changed_input_is_refused_with_the_difference(whole, tmp_path, monkeypatch):
    source = write_input(tmp_path / "own")
    _, out = copied((source, None), tmp_path, monkeypatch, 2)
    source.write_text(TOML.replace("300 K", "310 K"))
    with pytest.raises(InputError) as error:
        running.resume(out)
    text = str(error.value)
    assert '-temperature = "300 K"' in text and '+temperature = "310 K"' in text and "--as-started" in text
    source.write_text(TOML)
    structure = out / "s4.pdb"
    before = structure.read_text()
    structure.write_text(before.replace("2.600", "2.700"))
    with pytest.raises(InputError, match="sha256"):
        running.resume(out)
    structure.write_text(before)
    resolved = out / "resolved.toml"
    kept = resolved.read_text()
    resolved.write_text(kept.replace("seed = 7", "seed = 8"))
    with pytest.raises(InputError, match=r"\+seed = 8"):
        running.resume(out)
    resolved.write_text(kept)
    source.write_text("nonsense")
    running.resume(out, as_started=True)
    ours, theirs = files(out), files(whole[1])
    assert {n for n in theirs if ours[n] != theirs[n]} == {"origin.json"}


def test_a_run_is_not_started_over_another(whole, capsys):
    source, out = whole
    before = files(out)
    assert exit_code("run", source, "--out", out) == 2
    assert "holds a run already" in capsys.readouterr().err and files(out) == before


def test_a_full_disk_is_told_and_the_run_goes_on_where_there_is_room(whole, tmp_path, monkeypatch):
    """The limit is on the size of a file: the trajectory meets it in the middle of the run."""
    source, there = whole
    out = tmp_path / "out"
    limit = (there / "trajectory.xtc").stat().st_size // 2
    monkeypatch.setattr("metastable.report.sinks.arrays_size", lambda observables, records: 0)

    def small(self, block):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            for_trajectory(self, block)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    from metastable.report.sinks import Trajectory

    for_trajectory = Trajectory.write
    with monkeypatch.context() as patch:
        patch.setattr(Trajectory, "write", small)
        with pytest.raises(DiskError, match=r"disk is full .*File too large.*last checkpoint is whole.*resume"):
            running.start(source, out)
    assert 0 < len(read_arrays(out / "arrays.h5")["time"]) < 600
    running.resume(out)
    assert files(out) == files(there)


def test_a_runaway_stops_with_the_last_good_state(tmp_path, capsys):
    toml = TOML.replace('timestep = "2 fs"', 'timestep = "20 fs"').replace('every = "0.02 ps"', 'every = "0.1 ps"')
    source = write_input(tmp_path / "hot", toml.replace("walkers = 4", "walkers = 3"))
    (source.parent / "s4.xml").write_text(XML.replace('k="100000"', 'k="300000"'))  # stable up to 14 fs
    with pytest.raises(RunawayError) as error:
        running.start(source, tmp_path / "out")
    assert 0 <= error.value.replica < 3 and error.value.step > 0
    assert error.value.term in ("bonds", "angles", "torsions") and "lower the time step" in str(error.value)
    assert (tmp_path / "out" / "checkpoint-0").exists()
    assert not (tmp_path / "out" / "results.json").exists()


def test_only_one_process_works_in_a_directory(whole, tmp_path):
    from metastable.cli.directory import held

    with held(tmp_path), pytest.raises(InputError, match="another process"), held(tmp_path):
        pass
    with held(tmp_path):
        pass


# ---- other commands


def test_a_report_is_made_again_and_of_a_run_that_is_not_done(whole, tmp_path, monkeypatch):
    _, there = whole
    before = (there / "report.html").read_bytes()
    (there / "report.html").unlink()
    assert running.report(there) == there / "report.html"
    assert (there / "report.html").read_bytes() == before
    _, out = copied(whole, tmp_path, monkeypatch)
    assert "<html" in running.report(out).read_text()
    assert not (out / "results.json").exists()
    with pytest.raises(InputError, match="no run directory"):
        running.report(tmp_path)


def test_check_tells_what_would_happen(source, capsys):
    before = sorted(source.parent.iterdir())
    assert exit_code("check", source, "--set", "dynamics.duration=12.1 ps") == 0
    said = capsys.readouterr().out
    for words in ("4 atoms", "bonds", "tau", "4 walkers", "rounded up", "ns/day", "Disk: about", "no problem found"):
        assert words in said, words
    assert sorted(source.parent.iterdir()) == before
    told = float(re.search(r"Disk: about ([\d.]+) MB", said)[1])
    assert told < 5


def test_bad_input_ends_with_2_and_sentences(source, capsys):
    assert exit_code("check", source, "--set", "dynamics.timestep=-1 fs", "--set", "molecule.structure=no.pdb",
                     "--set", "cv.tau.atoms=[1,2,3,9]", "--set", "bias.widht=3") == 2  # fmt: skip
    said = capsys.readouterr().err
    for words in ("problems:", "dynamics.timestep", "molecule.structure", "did you mean 'width'"):
        assert words in said
    assert "Traceback" not in said


def test_what_is_wrong_with_the_files_is_told_with_what_is_wrong_in_the_input(source, capsys):
    assert exit_code("check", source, "--set", "cv.tau.atoms=[1, 2, 3, 9]", "--set", "dynamics.walkers=-1") == 2
    said = capsys.readouterr().err
    assert "atom 9 is out of range: the structure has 4 atoms" in said and "dynamics.walkers" in said


MOLECULES = {
    "no hydrogens": (lambda lines: [x for x in lines if x[76:78].strip() != "H"], "has no hydrogens"),
    "unknown residue": (lambda lines: [x.replace("ALA", "ALX") for x in lines], "ALX 2 .chain A. is not in the force"),
    "no element": (lambda lines: [x[:12] + " Q  " + x[16:76] + " Q" if " CB " in x else x for x in lines], "no known"),
    "overlap": (lambda lines: [x[:30] + lines[2][30:54] + x[54:] if " HB1" in x else x for x in lines], "overlap"),
    "empty": (lambda lines: [], "cannot be read|has no atoms"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MOLECULES)
def test_a_bad_molecule_is_an_input_error(tmp_path, capsys, kind):
    change, words = MOLECULES[kind]
    shutil.copy(EXAMPLE, tmp_path)
    lines = EXAMPLE.with_suffix(".pdb").read_text().splitlines()
    atoms = [x for x in lines if x.startswith(("ATOM", "HETATM"))]
    (tmp_path / "alanine-dipeptide.pdb").write_text("\n".join([*change(atoms), "END\n"]))
    assert exit_code("check", tmp_path / EXAMPLE.name, "--set", "dynamics.seed=-1") == 2
    said = capsys.readouterr().err
    assert re.search(words, said) and "dynamics.seed" in said and "Traceback" not in said


def test_a_force_that_is_not_supported_is_named(source, capsys):
    xml = source.parent / "s4.xml"
    xml.write_text(xml.read_text().replace("</ForceField>", '<CustomExternalForce energy="x"/></ForceField>').replace(
        "</ForceField>", "<Script>import openmm; sys.addForce(openmm.CustomExternalForce('x'))</Script></ForceField>", 1
    ).replace('<CustomExternalForce energy="x"/>', ""))  # fmt: skip
    assert exit_code("check", source) == 2
    assert "CustomExternalForce" in capsys.readouterr().err


def test_init_writes_an_input_that_is_valid(tmp_path, capsys):
    shutil.copy(EXAMPLE.with_suffix(".pdb"), tmp_path / "ala.pdb")
    assert exit_code("init", tmp_path / "ala.pdb", "--out", tmp_path / "ala.toml") == 0
    tables = tomllib.loads((tmp_path / "ala.toml").read_text())
    example = tomllib.loads(EXAMPLE.read_text())
    assert tables["cv"] == {n: {"type": "torsion", "atoms": cv["atoms"]} for n, cv in example["cv"].items()}
    assert tables["molecule"]["structure"] == "ala.pdb"
    from metastable.cli.build import build
    from metastable.cli.input import read_input

    given, job = build(read_input(tmp_path / "ala.toml"), tmp_path)
    assert given.dynamics.walkers == job.plan.walkers == 64
    assert exit_code("init", tmp_path / "ala.pdb", "--out", tmp_path / "ala.toml") == 2
    capsys.readouterr()
    assert exit_code("init") == 0
    assert tomllib.loads(capsys.readouterr().out)["recipe"] == "metadynamics"


def test_init_says_what_every_key_means_and_its_default(tmp_path):
    from metastable.cli.input import read_tables
    from metastable.cli.models import DynamicsInput, MoleculeInput, OutputInput
    from metastable.cli.template import template

    text = template()
    for model in (MoleculeInput, DynamicsInput, OutputInput):
        for key in model.model_fields:
            assert re.search(rf"^(# )?{key} = ", text, re.M), key
    unset = re.sub(r"^# (\w+ = )(?!\.\.\.)", r"\1", text, flags=re.M)  # every default uncommented: it means the same
    assert read_tables(tomllib.loads(unset)).finish().toml() == read_tables(tomllib.loads(text)).finish().toml()


def test_init_proposes_the_torsions_of_a_chain_and_of_a_small_molecule(source):
    from metastable.cli.template import propose
    from metastable.core.system import Topology

    names = ("N", "CA", "C", "O") * 3
    ids = tuple(str(i // 4 + 5) for i in range(12))
    chain = Topology(names, ("GLY",) * 12, ids, ("A",) * 12)
    found = propose(chain)
    assert list(found) == ["psi5", "phi6", "psi6", "phi7"]
    assert found["phi6"] == ("GLY5:C", "GLY6:N", "GLY6:CA", "GLY6:C")
    small = Topology(("S1", "S2", "S3", "S4"), ("SSS",) * 4, ("1",) * 4, ("A",) * 4, np.array([[0, 1], [1, 2], [2, 3]]))
    assert propose(small) == {"torsion1": ("SSS1:S1", "SSS1:S2", "SSS1:S3", "SSS1:S4")}


def test_help_is_quick_and_needs_no_jax():
    program = "import sys; import metastable.cli.main; print('jax' in sys.modules, 'openmm' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "False False"
    )
    seconds = []
    for _ in range(3):
        before = os.times()
        code, out, _ = ended(command("--help"))
        after = os.times()
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert code == 0 and min(seconds) < 0.5, seconds
    for name in ("run", "resume", "check", "report", "init", "demo", "doctor"):
        assert name in out


def test_version(capsys):
    from metastable import __version__

    assert exit_code("--version") == 0
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.physics
def test_doctor_finds_this_installation_well(capsys):
    from metastable.cli.doctor import examine

    assert examine()
    assert capsys.readouterr().out.count("  ok  ") == 3


@pytest.mark.physics
def test_the_demo_in_miniature(tmp_path):
    from metastable.cli.demonstration import demo

    demo(tmp_path / "demo", ["dynamics.duration=8 ps", "dynamics.walkers=8"])
    results = json.loads((tmp_path / "demo" / "results.json").read_text())
    assert [a["label"] for a in results["landscape"]["axes"]] == ["phi", "psi"]
    assert (tmp_path / "demo" / "report.html").stat().st_size < 1_500_000
