"""From a recorded module to its closed form with values: classes are looked up by where they are defined.

A formula is bound to a class and is asked once for each kind of call that was recorded. It sees what a saved run
has: hyperparameters, parameter shapes, which parameters are trained, the shapes of tensor arguments and whether
they need a gradient. Nothing that was measured, but for the names of the ops, which say what kernel ran.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from math import prod
from pkgutil import iter_modules

from attnprof.analytic.prediction import Prediction
from attnprof.core.errors import AttnprofError
from attnprof.core.trace import Call, ModuleRecord, ParameterRecord


class UnpredictableError(AttnprofError):
    """A run does not say enough to predict a call; the message is the reason, without a full stop."""


#: What a recorded tensor can be beside an argument: an output, one in a tuple or list, one in a cache.
_MARKS = ("->", "*", "cache", "cache?", "seen")


@dataclass(frozen=True)
class Input:
    """A tensor argument: its name where it was given by one (empty else), shape, dtype, need of a gradient."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    needs_grad: bool


@dataclass(frozen=True)
class Given:
    """One kind of call: its tensor arguments, its output where that is a single tensor, and tensors ``inside`` of
    tuples and lists among the arguments.

    ``cached``: the keys [batch, heads, tokens, width] that a cache among the arguments held for the module after the
    call; ``seen``: how many tokens went through that cache, where it keeps fewer. ``stopped``: a checkpoint repeated
    the call until all that was saved was there again; a formula has then what ran until the last op that saves.
    """

    inputs: tuple[Input, ...]
    output: Input | None = None
    inside: tuple[Input, ...] = ()
    cached: Input | None = None
    seen: int | None = None
    stopped: bool = False

    @classmethod
    def of(cls, call: Call) -> Given:
        """A recorded call, read back from its text."""
        found = [_parsed(text, needed) for text, needed in zip(call.tensors, call.gradients, strict=True)]
        marked = {f.name: f for f in found if f.name in _MARKS}
        inputs = tuple(f for f in found if f.name not in _MARKS)
        inside = tuple(f for f in found if f.name == "*")
        cached, seen = marked.get("cache", marked.get("cache?")), marked.get("seen")
        return cls(inputs, marked.get("->"), inside, cached, seen.shape[0] if seen is not None else None)

    def find(self, position: int, *names: str) -> Input | None:
        """The tensor given by one of these names, or else the one at this position among those without a name."""
        for name in names:
            for given in self.inputs:
                if given.name == name:
                    return given
        plain = [given for given in self.inputs if not given.name]
        return plain[position] if position < len(plain) else None

    def input(self, position: int, *names: str) -> Input:
        """The same, where there has to be one."""
        found = self.find(position, *names)
        if found is None:
            what = names[0] if names else f"argument {position + 1}"
            raise UnpredictableError(f"its {what} is no tensor")
        return found


@dataclass(frozen=True)
class Recorded:
    """A module of a run as formulas see it.

    ``parameters`` are its own and those of the modules in it, by dotted name, ``parts`` the hyperparameters of those
    modules. ``ops`` are the names of the ops that it
    ran itself, ``called`` the names of the modules in it that were called, ``stopped`` of those in which the
    recomputation of a checkpoint stopped early, ``idle`` of those with a call of no rows, as an expert that no token
    chose.
    """

    class_name: str
    home: str
    hyperparameters: Mapping[str, object]
    parameters: Mapping[str, ParameterRecord]
    parts: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    ops: frozenset[str] = frozenset()
    called: frozenset[str] = frozenset()
    stopped: frozenset[str] = frozenset()
    idle: frozenset[str] = frozenset()
    training: bool | None = None
    calls: Mapping[Call, int] = field(default_factory=dict)

    @classmethod
    def of(cls, record: ModuleRecord, below: Mapping[str, ModuleRecord], ops: frozenset[str]) -> Recorded:
        """A record, the records below it by their names relative to it, and the names of its own ops."""
        parameters = {
            f"{name}.{p.name}" if name else p.name: p
            for name, part in {"": record, **below}.items()
            for p in part.parameters
        }
        called = frozenset(name for name, part in below.items() if part.call_count)
        stopped = {name for name, p in below.items() if any(k.recomputed and not k.returned for k in p.call_kinds)}
        idle = {name for name, part in below.items() if any(_is_empty(call) for call in part.call_kinds)}
        return cls(
            record.class_name,
            record.home,
            record.hyperparameters,
            parameters,
            {name: part.hyperparameters for name, part in below.items()},
            ops,
            called,
            frozenset(stopped),
            frozenset(idle),
            record.training,
            record.call_kinds,
        )

    def size(self, name: str) -> int:
        """A hyperparameter that is a whole number."""
        value = self.hyperparameters.get(name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise UnpredictableError(f"it has no whole number {name}")
        return value

    def flag(self, name: str) -> bool:
        """A hyperparameter that is True or False; one that is not there is False."""
        return self.hyperparameters.get(name) is True

    def weight(self, name: str) -> ParameterRecord:
        """The parameter of this dotted name."""
        if name not in self.parameters:
            raise UnpredictableError(f"it has no parameter {name}")
        return self.parameters[name]

    def matrix(self, name: str) -> tuple[int, int]:
        """The two sizes of a parameter that is a matrix: a flattened or sharded one is none."""
        shape = self.weight(name).shape
        if len(shape) != 2:
            raise UnpredictableError(f"its {name} is no matrix")
        return shape[0], shape[1]

    def of_part(self, part: str) -> list[ParameterRecord]:
        """The parameters of this name or below it."""
        return [p for name, p in self.parameters.items() if name == part or name.startswith(f"{part}.")]

    def trains(self, part: str) -> bool:
        """Whether a part (a parameter, or a module with its own) has something to train."""
        return any(p.trainable for p in self.of_part(part))

    def trains_weight(self, part: str) -> bool:
        """Whether a matrix of a part is trained: a bias takes no contraction."""
        return any(p.trainable for p in self.of_part(part) if len(p.shape) > 1)

    @property
    def elements(self) -> int:
        """How many numbers its parameters are; a shared one counts once."""
        return sum({p.ident: prod(p.shape) for p in self.parameters.values()}.values())


#: What one call of a module costs; None for no formula after all.
Write = Callable[[Recorded, Given], Prediction | None]


@dataclass(frozen=True)
class Binding:
    """A formula of a class. ``own``: it has the ops of the module itself, not those of the modules in it.

    ``stops``: it can tell what a call that stopped early ran. ``users``: a user wrote it.
    """

    write: Write
    own: bool = False
    stops: bool = True
    users: bool = False


_known: dict[tuple[str, str], Binding] = {}
_homes: dict[str, Binding] = {}


def binds(home: str, *class_names: str, own: bool = False) -> Callable[[Write], Write]:
    """Bind a formula to classes that a Python module (``torch.nn.modules.linear``) defines; without names, to all."""

    def enter(write: Write) -> Write:
        for class_name in class_names:
            _known[home, class_name] = Binding(write, own)
        if not class_names:
            _homes[home] = Binding(write, own)
        return write

    return enter


def predicts(kind: type | str) -> Callable[[Write], Write]:
    """Say what a module of yours costs: ``@attnprof.predicts(MyAttention)`` above a function of two arguments.

    It is called with the module as it was recorded (:class:`Recorded`: ``hyperparameters``, ``parameters``, ``trains``)
    and one kind of call (:class:`Given`: ``input(0).shape``, ``.needs_grad``), and gives the :class:`Prediction` of
    one such call with everything inside, or None where it knows none. The class may be given by its full name,
    ``"package.MyAttention"``.
    """
    if isinstance(kind, str):
        home, _, class_name = kind.rpartition(".")
        if not home:
            raise AttnprofError(f"predicts() takes a class or its full name, as package.{kind}, not {kind!r}.")
    elif isinstance(kind, type):
        home, class_name = kind.__module__, kind.__name__
    else:
        raise AttnprofError(f"predicts() takes a class or its full name, not {kind!r}.")

    def enter(write: Write) -> Write:
        if not callable(write):
            raise AttnprofError(f"predicts() goes above a function of a module and a call, not {write!r}.")
        _users[home, class_name] = Binding(write, stops=False, users=True)
        return write

    return enter


_users: dict[tuple[str, str], Binding] = {}


def binding(home: str, class_name: str) -> Binding | None:
    """The formula of a class: the user's, or ours; None where there is none."""
    _load()
    key = home, class_name
    return _users.get(key) or _known.get(key) or _homes.get(home)


def _is_empty(call: Call) -> bool:
    """Whether the first argument has no rows."""
    return bool(call.tensors) and "[0," in call.tensors[0]


def _parsed(text: str, needs_grad: bool) -> Input:
    """``x=float32[2,3]`` as it was recorded."""
    name = ""
    mark, _, rest = text.partition(" ")
    if mark in _MARKS:
        name, text = mark, rest
    elif "=" in text:
        name, _, text = text.rpartition("=")
    dtype, _, sizes = text.removesuffix("]").partition("[")
    return Input(name, tuple(int(size) for size in sizes.split(",") if size), dtype, needs_grad)


@cache
def _load() -> None:
    """Import every file of bound formulas: each enters its own."""
    package = import_module("attnprof.analytic.bound")
    for found in iter_modules(package.__path__):
        import_module(f"{package.__name__}.{found.name}")
