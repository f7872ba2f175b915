"""From TOML to a validated input: all the problems of a file at once, each with its key and its cure."""

import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from metastable.cli.models import (
    BIAS_TYPES,
    CV_TYPES,
    CV_UNITS,
    LEARNING,
    OBSERVABLE_TYPES,
    RECIPES,
    BiasInput,
    CVInput,
    DynamicsInput,
    LearningInput,
    MoleculeInput,
    ObservableInput,
    OutputInput,
    Section,
)
from metastable.cli.quantities import Quantity, force_constant_of, of_unit, parse
from metastable.cli.schedule import Schedule, plan
from metastable.cli.toml import write_toml
from metastable.cli.wording import nearest_file, not_one_of, short, unknown_key
from metastable.core.errors import InputError, Problem

M = TypeVar("M", bound=Section)
_TABLES = ("recipe", "title", "molecule", "dynamics", "cv", "observable", "bias", "output")
_SECTIONS: dict[str, type[Section]] = {"molecule": MoleculeInput, "dynamics": DynamicsInput, "output": OutputInput}
_INNER = {key: f"{name}.{key}" for name, model in _SECTIONS.items() for key in model.model_fields}


@dataclass(frozen=True)
class Input:
    """A whole input, valid in itself; whether it fits its molecule is found out when that is read."""

    recipe: str
    title: str
    molecule: MoleculeInput
    dynamics: DynamicsInput
    cvs: dict[str, CVInput]
    observables: dict[str, ObservableInput]
    biases: tuple[BiasInput, ...]
    output: OutputInput
    schedule: Schedule

    def tables(self) -> dict[str, Any]:
        """What the file would hold if every default were written out."""
        tables: dict[str, Any] = {"recipe": self.recipe} | ({"title": self.title} if self.title else {})
        tables["molecule"] = self.molecule.model_dump(exclude_none=True)
        tables["dynamics"] = self.dynamics.model_dump() | {"duration": self.schedule.duration}
        for key, named in (("cv", self.cvs), ("observable", self.observables)):
            if named:
                tables[key] = {name: one.model_dump(exclude_none=True) for name, one in named.items()}
        if self.biases:
            tables["bias"] = [bias.model_dump(exclude_none=True) for bias in self.biases]
        tables["output"] = self.output.model_dump() | {"block": self.schedule.block}
        return tables

    def toml(self) -> str:
        """The resolved input: itself a valid input that means the same."""
        return write_toml(self.tables())


@dataclass
class Draft:
    """What could be read of an input, and the problems of the rest."""

    problems: list[Problem] = field(default_factory=list)
    recipe: str | None = None
    title: str = ""
    molecule: MoleculeInput | None = None
    dynamics: DynamicsInput | None = None
    cvs: dict[str, CVInput] = field(default_factory=dict)
    observables: dict[str, ObservableInput] = field(default_factory=dict)
    biases: list[BiasInput] = field(default_factory=list)
    output: OutputInput | None = None
    schedule: Schedule | None = None

    def finish(self) -> Input:
        """The input. Raises InputError with all problems where there are any."""
        if self.problems:
            raise InputError(*self.problems)
        parts: list[Any] = [self.recipe, self.molecule, self.dynamics, self.output, self.schedule]
        assert None not in parts, "an input without problems is complete"
        recipe, molecule, dynamics, output, schedule = parts
        named = self.cvs, self.observables
        return Input(recipe, self.title, molecule, dynamics, *named, tuple(self.biases), output, schedule)


def read_input(path: str | Path, overrides: Sequence[str] = ()) -> Draft:
    """Read a TOML file with ``key=value`` overrides. Raises InputError where it is no TOML file."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is no text file"
        raise InputError(Problem(str(path), f"cannot be read: {reason}{nearest_file(path)}")) from error
    return read_tables(override(load_toml(text, str(path)), overrides))


def load_toml(text: str, name: str) -> dict[str, Any]:
    """The tables of a TOML text. Raises InputError with the line where it is none."""
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        message, _, place = str(error).partition(" (at ")
        line = re.search(r"line (\d+)", place)
        where = f"{name}:{line[1]}" if line else name
        raise InputError(Problem(where, f"is not TOML: {message[:1].lower()}{message[1:]}")) from error


def override(tables: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Put ``dotted.key=value`` into the tables; a value that is not TOML is a string.

    Raises InputError where there is no ``=``, or the key leads through something that is no table.
    """
    problems = []
    for item in overrides:
        key, equals, text = item.partition("=")
        names = [n.strip() for n in key.split(".")]
        if not equals or not all(names):
            problems.append(Problem("--set", f"'{item}' is not of the form key=value, such as dynamics.walkers=8"))
            continue
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except (tomllib.TOMLDecodeError, RecursionError):
            value = text.strip()
        at: Any = tables
        for name in names[:-1]:
            if isinstance(at, list) and name.isdigit() and int(name) < len(at):
                at = at[int(name)]
            elif isinstance(at, dict):
                at = at.setdefault(name, {})
            else:
                at = None
        if isinstance(at, list) and names[-1].isdigit() and int(names[-1]) < len(at):
            at[int(names[-1])] = value
        elif isinstance(at, dict):
            at[names[-1]] = value
        else:
            problems.append(Problem(f"--set {key}", f"'{'.'.join(names[:-1])}' is no table of the input"))
    if problems:
        raise InputError(*problems)
    return tables


def read_tables(tables: Any) -> Draft:
    """Validate what a TOML file holds. Never raises: problems are gathered in the draft."""
    draft = Draft()
    problems = draft.problems
    if not isinstance(tables, dict):
        problems.append(Problem("input", "is no table"))
        return draft
    problems += [Problem(str(k), unknown_key(str(k), _TABLES, _INNER)) for k in tables if k not in _TABLES]
    draft.recipe = _one_of(tables, "recipe", RECIPES, problems)
    title = tables.get("title", "")
    if not isinstance(title, str) or "\n" in title:
        problems.append(Problem("title", f"{title!r} must be one line of text"))
    else:
        draft.title = title
    draft.molecule = _section(MoleculeInput, tables, "molecule", problems)
    draft.dynamics = _section(DynamicsInput, tables, "dynamics", problems)
    draft.output = _section(OutputInput, {"output": {}} | tables, "output", problems)
    draft.cvs = _cvs(tables.get("cv"), draft.recipe, problems)
    draft.observables = _observables(tables.get("observable", {}), tables.get("bias"), problems)
    draft.biases = _biases(tables.get("bias", []), tables.get("cv"), draft.recipe, problems)
    if draft.dynamics and draft.output:
        pace = next((b.pace for b in draft.biases if isinstance(b, LearningInput)), None)
        draft.schedule = plan(draft.dynamics, draft.output, pace, problems)
    return draft


def _section(model: type[M], tables: dict[str, Any], name: str, problems: list[Problem]) -> M | None:
    if name not in tables:
        keys = ", ".join(k for k, f in model.model_fields.items() if f.is_required())
        problems.append(Problem(name, f"the table [{name}] is missing; it needs {keys}"))
        return None
    return validate(model, tables[name], name, problems)


def validate(model: type[M], data: Any, where: str, problems: list[Problem]) -> M | None:
    """One table against its model; what is wrong is added to ``problems``."""
    return _validated(model, data, where, problems)[0]


def _validated(model: type[M], data: Any, where: str, problems: list[Problem]) -> tuple[M | None, dict[str, Any]]:
    """The model, None where something is wrong, and the values of the keys that are right in themselves."""
    if not isinstance(data, dict):
        problems.append(Problem(where, f"{short(data)} must be a table, [{where}]"))
        return None, {}
    try:
        return model.model_validate(data), data
    except ValidationError as error:
        errors = error.errors(include_url=False)
        problems += [_translated(model, where, e) for e in errors]
        wrong = {e["loc"][0] for e in errors if e["loc"]}
        return None, {k: v for k, v in data.items() if k not in wrong}


def _translated(model: type[Section], where: str, error: Any) -> Problem:
    """A pydantic error in the words of the user: value, what is allowed, nearest name."""
    place = ".".join([where, *map(str, error["loc"])])
    kind, value, context = error["type"], short(error["input"]), error.get("ctx", {})
    at = _model_at(model, error["loc"][:-1])
    if kind == "extra_forbidden":
        return Problem(place, unknown_key(str(error["loc"][-1]), at.model_fields))
    if kind == "missing":
        description = at.model_fields[error["loc"][-1]].description
        return Problem(place, "is required" + (f": {description}" if description else ""))
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", context["expected"])
        return Problem(place, not_one_of(error["input"], allowed))
    if kind in ("quantity", "atom", "group"):
        return Problem(place, context["message"])
    if kind == "value_error":
        return Problem(place, str(context["error"]))
    message = error["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return Problem(place, f"{value} is not allowed: it should be {message[:1].lower()}{message[1:]}")


def _model_at(model: type[Section], loc: Iterable[Any]) -> Any:
    """The model that a place inside another model belongs to."""
    for name in loc:
        inner = model.model_fields.get(name)
        kinds = [] if inner is None else [inner.annotation, *getattr(inner.annotation, "__args__", ())]
        model = next((k for k in kinds if isinstance(k, type) and issubclass(k, Section)), model)
    return model


def _cvs(tables: Any, recipe: str | None, problems: list[Problem]) -> dict[str, CVInput]:
    if tables in (None, {}) and recipe == "dynamics":
        return {}
    if not isinstance(tables, dict) or not tables:
        problems.append(Problem("cv", "give at least one collective variable, as a table such as [cv.phi] with a type"))
        return {}
    found = {}
    for name, where, data in _named(tables, "cv", problems):
        before = len(problems)
        cv, values = _typed(CV_TYPES, data, where, problems)
        if "range" in values:
            _check_range(values["range"], values["type"], f"{where}.range", problems)
        if cv is not None and len(problems) == before:
            found[name] = cv
    return found


def _observables(tables: Any, biases: Any, problems: list[Problem]) -> dict[str, ObservableInput]:
    """biases: what the file says of them; no observable goes with one."""
    if not isinstance(tables, dict):
        problems.append(Problem("observable", f"{short(tables)} must be tables such as [observable.g] with a type"))
        return {}
    if tables and biases:
        problems.append(Problem("observable", "means of a run with a bias are not those of the liquid: take [bias] out "
                                              "(recipe = 'dynamics'), or the observables"))  # fmt: skip
    found = {n: _typed(OBSERVABLE_TYPES, data, where, problems)[0] for n, where, data in
             _named(tables, "observable", problems)}  # fmt: skip
    return {name: one for name, one in found.items() if one is not None}


def _named(tables: dict[str, Any], key: str, problems: list[Problem]) -> list[tuple[str, str, Any]]:
    """(name, where, data) of each table; what is no name is a problem."""
    problems += [Problem(f"{key}.{name}", f"{name!r} is no name: use letters, digits, - and _")
                 for name in tables if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", name)]  # fmt: skip
    return [(name, f"{key}.{name}", data) for name, data in tables.items()]


def _check_range(ends: list[Any], kind: str, where: str, problems: list[Problem]) -> None:
    if kind == "torsion":
        problems.append(Problem(where, "a torsion is periodic and has its whole period: leave range out"))
        return
    low, high = (_measured(x, of_unit(CV_UNITS[kind]), where, problems) for x in ends)
    if low is not None and high is not None and not low < high:
        problems.append(Problem(where, f"'{low.text}' must be below '{high.text}'"))


def _biases(tables: Any, cvs: Any, recipe: str | None, problems: list[Problem]) -> list[BiasInput]:
    """cvs: the table of collective variables as it stands in the file."""
    cvs = cvs if isinstance(cvs, dict) else {}
    rows = [("bias", tables)] if isinstance(tables, dict) else []
    if isinstance(tables, list):
        rows = [(f"bias.{i}" if len(tables) > 1 else "bias", data) for i, data in enumerate(tables)]
    elif not rows:
        problems.append(Problem("bias", f"{short(tables)} must be a table, [bias], or several, [[bias]]"))
    found = []
    for where, data in rows:
        before = len(problems)
        bias, values = _typed(BIAS_TYPES, data, where, problems)
        if values.get("type") in LEARNING:
            _check_learning(values, where, cvs, problems)
        elif values:
            _check_restraint(values, where, cvs, problems)
        if bias is not None and len(problems) == before:
            found.append(bias)
    kinds = [data.get("type") for _, data in rows if isinstance(data, dict)]
    others = [kind for kind in kinds if kind in LEARNING and kind != recipe]
    if recipe in LEARNING and kinds.count(recipe) != 1:
        problems.append(Problem("bias", f"the recipe {recipe} needs one bias of type = '{recipe}', "
                                        f"and there are {kinds.count(recipe)}"))  # fmt: skip
    if recipe in RECIPES and others:
        problems.append(Problem("bias", f"the recipe {recipe} has no {others[0]}: say recipe = '{others[0]}'"))
    return found


def _check_learning(bias: dict[str, Any], where: str, cvs: dict[str, Any], problems: list[Problem]) -> None:
    chosen = bias.get("cvs", list(cvs))
    for key in ("cvs", "width", "grid"):
        problems += [Problem(f"{where}.{key}", not_one_of(n, cvs)) for n in bias.get(key, ()) if n not in cvs]
    if len(set(chosen)) < len(chosen):
        problems.append(Problem(f"{where}.cvs", f"{chosen} names a CV twice"))
    if len(chosen) > 3:
        problems.append(Problem(f"{where}.cvs", f"{len(chosen)} CVs are too many for a grid: name at most 3 of them"))
    if "width" in bias:
        problems += [Problem(f"{where}.width.{n}", "is required: the width of the hills, or kernels, along this CV")
                     for n in chosen if n in cvs and n not in bias["width"]]  # fmt: skip
    for name, width in bias.get("width", {}).items():
        unit = _unit_of(cvs.get(name))
        width = None if unit is None else _measured(width, of_unit(unit), f"{where}.width.{name}", problems)
        if width is not None and not width > 0:
            problems.append(Problem(f"{where}.width.{name}", f"'{width.text}' must be above 0"))
    problems += [Problem(f"{where}.grid.{n}", f"{points} must be from 4 to 4096 points")
                 for n, points in bias.get("grid", {}).items() if not 4 <= points <= 4096]  # fmt: skip
    problems += [Problem(f"cv.{n}.range", "is required: a CV that is not periodic needs it for the grid of the bias")
                 for n in chosen if _unit_of(cvs.get(n)) is not None
                 and cvs[n]["type"] != "torsion" and "range" not in cvs[n]]  # fmt: skip


def _check_restraint(bias: dict[str, Any], where: str, cvs: dict[str, Any], problems: list[Problem]) -> None:
    if "cv" in bias and bias["cv"] not in cvs:
        problems.append(Problem(f"{where}.cv", not_one_of(bias["cv"], cvs)))
    cv = cvs.get(bias["cv"]) if "cv" in bias else None
    unit = _unit_of(cv)
    if bias["type"].endswith("wall") and isinstance(cv, dict) and cv.get("type") == "torsion":
        problems.append(
            Problem(f"{where}.type", "a torsion is periodic, a wall would be a cliff: use type = 'harmonic'")
        )
    if unit is None:
        return
    for key in ("center", "at", "start", "end", "force_constant"):
        dimension = force_constant_of(unit) if key == "force_constant" else of_unit(unit)
        if key in bias:
            _measured(bias[key], dimension, f"{where}.{key}", problems)


def _unit_of(cv: Any) -> str | None:
    """The unit of a collective variable by its table, None where that does not say."""
    kind = cv.get("type") if isinstance(cv, dict) else None
    return CV_UNITS.get(kind) if isinstance(kind, str) else None


def _typed(kinds: dict[str, type[Any]], data: Any, where: str, problems: list[Problem]) -> tuple[Any, dict[str, Any]]:
    """A table whose ``type`` says which model it follows, and those of its values that are right in themselves."""
    if not isinstance(data, dict):
        problems.append(Problem(where, f"{short(data)} must be a table with a type"))
        return None, {}
    kind = _one_of(data, "type", tuple(kinds), problems, f"{where}.type")
    return (None, {}) if kind is None else _validated(kinds[kind], data, where, problems)


def _measured(quantity: Quantity, dimension: str, where: str, problems: list[Problem]) -> Quantity | None:
    """The quantity where it has the dimension that its collective variable wants, else None and a problem."""
    try:
        return parse(quantity, (dimension,))
    except ValueError as error:
        problems.append(Problem(where, str(error)))
        return None


def _one_of(
    tables: dict[str, Any], key: str, allowed: Sequence[str], problems: list[Problem], where: str | None = None
) -> str | None:
    if key not in tables:
        problems.append(Problem(where or key, f"is required: one of {', '.join(allowed)}"))
        return None
    value = tables[key]
    if not isinstance(value, str) or value not in allowed:
        problems.append(Problem(where or key, not_one_of(value, allowed)))
        return None
    return value
