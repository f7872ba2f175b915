"""The command line. Nothing heavy is imported before a command needs it, so that ``--help`` answers at once."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from metastable import __version__

app = typer.Typer(
    name="metastable",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    epilog="A first run:  metastable demo.  A molecule of your own:  metastable init molecule.pdb > run.toml, "
    "then  metastable check run.toml,  then  metastable run run.toml --out runs/first.",
)

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the input, e.g. [b]dynamics.walkers=8[/b]. "
                                                    "May be given many times."),
]  # fmt: skip
Source = Annotated[Path, typer.Argument(metavar="INPUT", help="The input, a TOML file.")]
Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A run directory.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which one.")
    ] = False,
) -> None:
    """From a molecule to its free energy landscape, its metastable states and their rates."""


@app.command()
def run(
    source: Source,
    out: Annotated[Path, typer.Option(help="The run directory, made if need be.")],
    set_: Set = None,
) -> None:
    """Run an input into a directory.

    The directory then holds everything: results.json (every estimate with its error), report.html, log.csv,
    trajectory.xtc and topology.pdb, arrays.h5 (H5MD), the resolved input, versions, and two checkpoints. A kill costs
    one block at most; SIGTERM and Ctrl-C finish the block first (exit 75 and 130). Go on with [b]resume[/b].
    """
    from metastable.cli.running import start

    start(source, out, set_ or ())


@app.command()
def resume(
    directory: Directory,
    as_started: Annotated[
        bool, typer.Option(help="Go on as it was started, even if the input file has changed since.")
    ] = False,
) -> None:
    """Go on with a run that was stopped or killed: the files become what they would have been, bit for bit."""
    from metastable.cli import running

    running.resume(directory, as_started=as_started)


@app.command()
def check(source: Source, set_: Set = None) -> None:
    """Read everything and run nothing: what would happen, how long it would take, how much disk.

    All the problems of the input are told at once, each with its key and what is allowed.
    """
    from metastable.cli.checking import check

    check(source, set_ or ())


@app.command()
def report(directory: Directory) -> None:
    """Make report.html again, from the files of the run directory alone."""
    from metastable.cli import running

    print(running.report(directory))


@app.command()
def init(
    structure: Annotated[
        Path | None, typer.Argument(metavar="[PDB]", help="The molecule: torsions are proposed.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write to this file and not to the terminal.")] = None,
) -> None:
    """Write an input with every key, its default and what it means."""
    from metastable.cli.template import template

    text = template(structure, Path() if out is None else out.parent)
    if out is None:
        print(text, end="")
    elif out.exists():
        from metastable.core.errors import InputError, Problem

        raise InputError(Problem(str(out), "is there already: give another --out"))
    else:
        out.write_text(text, encoding="utf-8")
        print(f"{out}: edit it, then 'metastable check {out}'")


@app.command()
def demo(out: Annotated[Path, typer.Option(help="The run directory.")] = Path("runs/demo"), set_: Set = None) -> None:
    """Alanine dipeptide: 64 walkers, F(phi, psi), its minima and their errors, in about two minutes on two cores."""
    from metastable.cli.demonstration import demo

    demo(out, set_ or ())


@app.command()
def doctor() -> None:
    """Devices, versions, and a self-test of ten seconds: energy conservation, forces, a known answer."""
    from metastable.cli.doctor import examine

    raise typer.Exit(0 if examine() else 1)


def main() -> None:
    """The command, with errors as sentences: 2 for a wrong input, 1 for a run that failed, 75 and 130 when stopped."""
    from metastable.cli.endings import DiskError, Stopped
    from metastable.core.errors import InputError, RunawayError

    try:
        app()
    except InputError as error:
        count = len(error.problems)
        print(f"{count} problem{'s' if count > 1 else ''}:", file=sys.stderr)
        for problem in error.problems:
            print(f"  {problem}", file=sys.stderr)
        sys.exit(2)
    except RunawayError as error:
        print(f"error: {error}\nThe last good state is in the newest checkpoint.", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped at once: go on with 'metastable resume'", file=sys.stderr)
        sys.exit(130)
    except DiskError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except Stopped as stop:
        print(f"{stop}: go on with 'metastable resume'", file=sys.stderr)
        sys.exit(stop.code)


if __name__ == "__main__":
    main()
