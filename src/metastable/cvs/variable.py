"""What every collective variable can do: say its components, and be computed with."""

import math
import operator
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from metastable.core.frame import Frame


class Component(NamedTuple):
    """One number that a CV gives.

    label: for people. unit: its unit, "" for none.
    period: the value is defined modulo this and lies within half of it from 0; None where it is not periodic.
    """

    label: str
    unit: str = ""
    period: float | None = None


class Variable(eqx.Module):
    """A CV that knows its components and can be computed with: ``phi - 2 * psi``, ``distance**2``, ``position[0]``.

    Sums, differences and multiples of periodic CVs are periodic, and are brought within half a period of 0;
    other functions are not, unless ``Function(..., components=...)`` says so. In arithmetic a plain function
    of a frame stands for the CV that it is.
    """

    components: eqx.AbstractVar[tuple[Component, ...]]

    @abstractmethod
    def __call__(self, frame: Frame) -> Float[Array, " cvs"]: ...

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the components."""
        return tuple(c.label for c in self.components)

    @property
    def units(self) -> tuple[str, ...]:
        """The units of the components, "" for a plain number."""
        return tuple(c.unit for c in self.components)

    @property
    def periods(self) -> tuple[float | None, ...]:
        """The periods of the components in their units, None for one that is not periodic."""
        return tuple(c.period for c in self.components)

    def __add__(self, other):
        return _sum(operator.add, "+", self, other)

    def __radd__(self, other):
        return _sum(operator.add, "+", other, self)

    def __sub__(self, other):
        return _sum(operator.sub, "-", self, other)

    def __rsub__(self, other):
        return _sum(operator.sub, "-", other, self)

    def __mul__(self, other):
        return _product(operator.mul, "*", self, other)

    def __rmul__(self, other):
        return _product(operator.mul, "*", other, self)

    def __truediv__(self, other):
        return _product(operator.truediv, "/", self, other)

    def __rtruediv__(self, other):
        return _product(operator.truediv, "/", other, self)

    def __pow__(self, exponent: float):
        labels = [f"{label}^{exponent:g}" for label in self.labels]
        return Function(_Power(exponent), self, components=list(map(Component, labels)))

    def __neg__(self):
        return Function(operator.neg, self, components=[c._replace(label=f"-{c.label}") for c in self.components])

    def __getitem__(self, index):
        chosen = self.components[index]
        return Function(operator.itemgetter(index), self, components=chosen)


class Constant(Variable):
    """The same number for every frame: what ``2`` becomes in ``2 * psi``."""

    value: float = eqx.field(static=True)

    def __init__(self, value: float):
        self.value = float(value)

    @property
    def components(self):
        """One, a plain number, with the number as its label."""
        return (Component(f"{self.value:g}"),)

    def __call__(self, frame: Frame) -> Float[Array, " 1"]:
        return jnp.full(1, self.value, frame.positions.dtype)


class Function(Variable):
    """A function of other CVs, or, where none is given, of the frame: ``Function(jnp.sin, phi)``.

    function: takes the value, (cvs,), of each of ``variables``, or else the frame; gives a number or a vector.
        It may be a module with parameters of its own, e.g. a network.
    components: what comes out, one Component or several. Without it there are as many as go in, or one for
        a function of a frame; they have no period and no unit.

    Raises ValueError, when called, where the result is not as long as ``components``.
    """

    function: Callable[..., Any]
    variables: tuple[Variable, ...]
    components: tuple[Component, ...] = eqx.field(static=True)

    def __init__(
        self,
        function: Callable[..., Any],
        *variables: Callable[[Frame], Any],
        components: Component | Sequence[Component] | None = None,
    ):
        self.function = function
        self.variables = tuple(map(as_variable, variables))
        if components is None:
            name = getattr(function, "__name__", type(function).__name__)
            rows = _rows(self.variables)
            labels = [f"{name}({', '.join(c.label for c in row)})" for row in rows] if rows else [name]
            components = [Component(label) for label in labels]
        self.components = (components,) if isinstance(components, Component) else tuple(components)

    def __call__(self, frame: Frame) -> Float[Array, " cvs"]:
        arguments = [v(frame) for v in self.variables] if self.variables else [frame]
        s = jnp.atleast_1d(self.function(*arguments))
        if s.shape != (len(self.components),):
            raise ValueError(
                f"the CV {self.labels[0]!r} gives an array of shape {s.shape}, but has {len(self.components)} "
                "component(s): give Function(..., components=[Component(label, unit, period), ...])"
            )
        return wrap(s, self.periods)


class _Power(eqx.Module):
    exponent: float = eqx.field(static=True)

    def __call__(self, s):
        return s**self.exponent


class Stack(Variable):
    """Several CVs as one vector, in the order given; ``Stack()`` is none."""

    variables: tuple[Variable, ...]

    def __init__(self, *variables: Callable[[Frame], Any]):
        self.variables = tuple(map(as_variable, variables))

    @property
    def components(self):
        """Those of all the CVs, one after the other."""
        return tuple(c for v in self.variables for c in v.components)

    def __call__(self, frame: Frame) -> Float[Array, " cvs"]:
        return jnp.concatenate([jnp.zeros(0, frame.positions.dtype), *(v(frame) for v in self.variables)])


def as_variable(cv: Any) -> Variable:
    """The CV itself, a plain function of a frame as ``Function``, a number as ``Constant``."""
    if isinstance(cv, Variable):
        return cv
    return Function(cv) if callable(cv) else Constant(cv)


def wrap(delta: Float[Array, " cvs"], periods: Sequence[float | None]) -> Float[Array, " cvs"]:
    """Bring each component that has a period within half of it from 0; its derivative is 1."""
    if all(p is None for p in periods):
        return delta
    period = jnp.asarray([p or 0.0 for p in periods], delta.dtype)
    inverse = jnp.asarray([1 / p if p else 0.0 for p in periods], delta.dtype)
    return delta - period * jnp.round(delta * inverse)


def _rows(variables: Sequence[Variable]) -> list[tuple[Component, ...]]:
    """The components of several CVs side by side; a CV of one component goes with every one of the others."""
    if not variables:
        return []
    length = max(len(v.components) for v in variables)
    for v in variables:
        if len(v.components) not in (1, length):
            raise ValueError(f"CVs of {len(v.components)} and {length} components cannot be combined: {v.labels}")
    return [tuple(v.components[i % len(v.components)] for v in variables) for i in range(length)]


def _sum(function, sign, left, right) -> Function:
    variables = as_variable(left), as_variable(right)
    components = [
        Component(f"({a.label} {sign} {b.label})", a.unit or b.unit, _common_period(a, b)) for a, b in _rows(variables)
    ]
    return Function(function, *variables, components=components)


def _common_period(a: Component, b: Component) -> float | None:
    if a.period is None or b.period is None:
        return a.period or b.period
    short, long = sorted((a.period, b.period))
    if not math.isclose(long / short, round(long / short), rel_tol=1e-9):
        raise ValueError(
            f"the periods {a.period:g} of {a.label} and {b.period:g} of {b.label} have no simple common one: "
            "use Function(f, a, b, components=Component(label, unit, period))"
        )
    return short


def _product(function, sign, left, right) -> Function:
    variables = left, right = as_variable(left), as_variable(right)
    components = []
    for a, b in _rows(variables):
        unit, period = "", None
        if isinstance(right, Constant) and sign in "*/":
            unit, period = a.unit, a.period and a.period * abs(function(1.0, right.value))
        elif isinstance(left, Constant) and sign == "*":
            unit, period = b.unit, b.period and b.period * abs(left.value)
        components.append(Component(f"{a.label} {sign} {b.label}", unit, period))
    return Function(function, *variables, components=components)
