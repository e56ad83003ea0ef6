"""TARGET on the command line: ``file.py:callable`` or ``package.module:callable``, and what it returns."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

from attnprof.core.errors import AttnprofError, closest

if TYPE_CHECKING:
    from torch import nn

_FORMS = "write file.py:callable or package.module:callable"
Found: TypeAlias = "Callable[[], Any] | nn.Module"
_RETURNS = "it must return a module, (module, args) or (module, args, kwargs)"


@dataclass(slots=True)
class Target:
    """What a target returned: a module and the arguments of one call."""

    model: nn.Module
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()  # what a reader of the report must know, of a model from a file
    fake: bool = False  # built on fake tensors: it has no values to run with


def find(text: str) -> Callable[[], Any] | nn.Module:
    """The callable (or module) that TARGET names; its file is imported, as ``python file.py`` would.

    Raises :class:`AttnprofError` when there is no such thing. An exception of the imported code passes through.
    """
    found = _named(text, "target")
    _check(found, text)
    return found  # type: ignore[no-any-return]


def find_builder(text: str) -> Callable[..., Any]:
    """The callable that makes a model from sizes, which are its arguments; its file is imported as for :func:`find`."""
    found = _named(text, "target")
    if not callable(found):
        raise AttnprofError(f"{text} is {_described(found)}, which cannot be called: {_FORMS}.")
    return found  # type: ignore[no-any-return]


def find_loss(text: str) -> Callable[[Any], Any]:
    """The callable that ``--loss`` names; a file that the target imported is not imported again."""
    found = _named(text, "loss")
    if not callable(found):
        raise AttnprofError(f"{text} is {_described(found)}, which cannot be called: {_FORMS}.")
    return found  # type: ignore[no-any-return]


def _named(text: str, kind: str) -> Any:
    place, colon, path = text.rpartition(":")
    if not colon or not place or not path or os.sep in path:
        raise AttnprofError(f'{kind} "{text}" names no callable: {_FORMS}.')
    found: Any = _import(place, again=kind == "target")
    walked = place
    for part in path.split("."):
        if not hasattr(found, part):
            names = _callables(found)
            known = closest(part, names) or (f" It has {', '.join(names[:6])}." if names else "")
            raise AttnprofError(f'{walked} has no "{part}".{known}')
        found = getattr(found, part)
        walked = f"{walked}:{part}" if walked == place else f"{walked}.{part}"
    return found


def build(target: Callable[[], Any] | nn.Module, text: str) -> Target:
    """Call the target and look at what it returned. An exception of its own passes through."""
    from torch import nn

    made = target if isinstance(target, nn.Module) else target()
    if isinstance(made, nn.Module):
        return Target(made)
    if inspect.iscoroutine(made):
        made.close()  # else Python warns that nobody awaited it
    parts = made if isinstance(made, tuple) else ()
    if not parts or not isinstance(parts[0], nn.Module) or len(parts) > 3:
        raise AttnprofError(f"{text} returned {_described(made)}; {_RETURNS}.")
    args = parts[1] if len(parts) > 1 else ()
    kwargs = parts[2] if len(parts) > 2 else None
    if not isinstance(args, tuple | list):
        hint = "(model, (), kwargs)" if isinstance(args, Mapping) else "(model, (x,))"
        raise AttnprofError(f"{text} returned {_described(made)}; args is a tuple: write {hint}.")
    if kwargs is not None and not (isinstance(kwargs, Mapping) and all(isinstance(name, str) for name in kwargs)):
        raise AttnprofError(f"{text} returned {_described(made)}; kwargs is a dict of argument names.")
    return Target(parts[0], tuple(args), kwargs)


def _import(place: str, again: bool) -> ModuleType:
    if place.endswith(".py") or os.sep in place:
        return _import_file(Path(place), again)
    if not all(part.isidentifier() for part in place.split(".")):
        raise AttnprofError(f'"{place}" is neither a Python file nor a module: {_FORMS}.')
    sys.path.insert(0, os.getcwd())
    try:
        spec = importlib.util.find_spec(place)
    except ModuleNotFoundError as error:
        if error.name is None or not (place == error.name or place.startswith(f"{error.name}.")):
            raise  # a package on the way was found, and its own import failed
        spec = None
    except ValueError:
        if place not in sys.modules:
            raise  # from the import of a package on the way
        spec = None  # loaded, but not from anywhere: __main__
    if spec is None:
        hint = f" There is a file {place}.py: write {place}.py:callable." if _exists(Path(f"{place}.py")) else ""
        raise AttnprofError(f'no module "{place}" can be imported from {os.getcwd()}.{hint}')
    return importlib.import_module(place)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise AttnprofError(f"{path} cannot be read: {error.strerror}.") from None


def _import_file(path: Path, again: bool) -> ModuleType:
    if not _exists(path):
        folder = path.parent
        names = [str(folder / found.name) for found in folder.glob("*.py")] if folder.is_dir() else []
        raise AttnprofError(f"{path} does not exist.{closest(str(path), names)}")
    if path.is_dir() or path.suffix != ".py":
        raise AttnprofError(f"{path} is not a Python file: {_FORMS}.")
    loaded = [sys.modules.get(name) for name in (f"_target_{path.stem}", path.stem)]
    for module in () if again else loaded:
        if module is not None and getattr(module, "__file__", None) == str(path.resolve()):
            return module
    sys.path.insert(0, str(path.resolve().parent))
    name = path.stem if path.stem.isidentifier() and path.stem not in sys.modules else f"_target_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise AttnprofError(f"{path} is not a Python file: {_FORMS}.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up there
    spec.loader.exec_module(module)
    return module


def _check(found: Any, text: str) -> None:
    from torch import nn

    if isinstance(found, nn.Module):
        return
    if not callable(found):
        raise AttnprofError(f"{text} is {_described(found)}, which cannot be called: {_FORMS}.")
    try:
        needed = [
            p.name
            for p in inspect.signature(found).parameters.values()
            if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
    except (TypeError, ValueError):  # a builtin without a signature: the call will tell
        return
    if needed:
        raise AttnprofError(
            f"{text} needs {', '.join(needed)}, but a target is called without arguments; "
            f"name a function that makes the model."
        )


def _callables(place: Any) -> list[str]:
    """The names of what can be called in a module or class, those it merely imported left out."""
    home = place.__name__ if isinstance(place, ModuleType) else None
    found = {name: getattr(place, name, None) for name in dir(place) if not name.startswith("_")}
    return [n for n, v in found.items() if callable(v) and (home is None or getattr(v, "__module__", home) == home)]


def _described(value: Any) -> str:
    """``a dict``, ``(Linear, Tensor)``: the kind of a value, never its contents."""
    if isinstance(value, tuple):
        return f"({', '.join(type(item).__name__ for item in value)})"
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
