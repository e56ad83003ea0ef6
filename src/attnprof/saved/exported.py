"""Programs that ``torch.export.save`` wrote."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch._export.serde.schema import SCHEMA_VERSION
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind

from attnprof.core.errors import AttnprofError
from attnprof.saved import archives
from attnprof.saved.exported_checks import check, check_tensors
from attnprof.saved.exported_trees import UnsafeError
from attnprof.saved.loaded import Loaded
from attnprof.saved.mapped import mapped
from attnprof.saved.program import Program
from attnprof.saved.restricted import bounded

#: The graph in an archive of PyTorch 2.7 and before.
_OLD_GRAPH = "serialized_exported_program.json"


def load(path: Path, dims: Mapping[str, int], *, trust_pickle: bool = False) -> Loaded:
    """The program in a file, with its example inputs, sized as ``dims`` says.

    Raises :class:`AttnprofError` for a file that is damaged, that would run code when it is loaded, for ops that are
    not registered, and for sizes that the program has not or does not allow.
    """
    exported = read(path, trust_pickle=trust_pickle)
    program = Program(exported)
    notes = []
    if exported.example_inputs is None:
        args, kwargs = program._attnprof_taking.made()
        notes.append(
            "The program keeps no example inputs: random numbers stand in for floating ones, zeros for the others."
        )
    else:
        args, kwargs = exported.example_inputs
    if dims:
        args, kwargs = program._attnprof_taking.with_sizes(args, kwargs, dims)
    return Loaded(program, tuple(args), dict(kwargs), (*notes, *_notes(exported)))


def read(path: Path, *, trust_pickle: bool) -> ExportedProgram:
    """What ``torch.export.load`` returns, once it is known that loading it runs nothing."""
    try:
        _check(path, trust_pickle)
        with _quiet(), _restricted(trust_pickle), bounded(), mapped(path):
            return torch.export.load(path)
    except AttnprofError as error:
        message = str(error)
        raise AttnprofError(message if message.startswith(str(path)) else _told(path, error)) from None
    except (Exception, RecursionError) as error:  # whatever PyTorch raises for what is no program after all
        raise AttnprofError(
            f"{path} is a torch.export program that PyTorch {torch.__version__} cannot load "
            f"(damaged, or of another version?): {_first_line(error)}"
        ) from None


def _told(path: Path, error: AttnprofError) -> str:
    if isinstance(error, UnsafeError):
        return f"{path} is refused: {error}, and loading it might run code. No program of torch.export is like that."
    return f"{path} is a torch.export program, but {error}."


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{lines[0][:200].rstrip('.') if lines else type(error).__name__}."


def _check(path: Path, trust_pickle: bool) -> None:
    """Refuse a file that would run code when it is loaded, and one that would take more memory than it has bytes."""
    names = archives.names(path)
    if "archive_format" in names:
        archives.check_same(path)
    if any(name.startswith("data/aotinductor/") for name in names):
        raise AttnprofError(f"{path} holds machine code beside the program; save the program alone.")
    graphs = [name for name in names if name.startswith("models/") or name == _OLD_GRAPH]
    if not {"models/model.json", _OLD_GRAPH} & set(graphs):
        raise AttnprofError(f"{path} holds no program named model, as torch.export.save writes.")
    for name in graphs:
        _check_version(path, check(archives.read(path, name)))
    sizes = archives.sizes(path)
    for name in names:
        folder, _, last = name.rpartition("/")
        if folder in ("data/weights", "data/constants") and last.endswith("_config.json"):
            empty = {below.removeprefix(f"{folder}/") for below, size in sizes.items() if size == 0}
            check_tensors(archives.read(path, name), empty, trust_pickle)
        elif last.endswith(".pt"):
            archives.check_nested(path, name)


def _check_version(path: Path, program: Mapping[str, Any]) -> None:
    """PyTorch reads programs of its own schema's number alone."""
    version = program.get("schema_version")
    written = version.get("major") if isinstance(version, dict) else None
    if isinstance(written, int) and written != SCHEMA_VERSION[0]:
        raise AttnprofError(
            f"{path} is a torch.export program of schema {written}, and PyTorch {torch.__version__} reads schema "
            f"{SCHEMA_VERSION[0]}: export the model with this version."
        )


@contextlib.contextmanager
def _restricted(trust_pickle: bool) -> Iterator[None]:
    """Inside, torch.load never unpickles more than tensors and plain containers, whatever its callers ask for."""
    if trust_pickle:
        yield
        return
    names = ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ[names[0]] = "1"
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Inside, what PyTorch would say of its own formats goes nowhere: a failure is said once, by us."""
    loggers = [
        logging.getLogger(name) for name in ("torch.export", "torch.export.pt2_archive._package", "torch._export")
    ]
    before = [logger.disabled for logger in loggers]
    try:
        for logger in loggers:
            logger.disabled = True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


def _notes(exported: ExportedProgram) -> Iterator[str]:
    kinds = {spec.kind for spec in exported.graph_signature.output_specs}
    if kinds & {OutputKind.GRADIENT_TO_PARAMETER, OutputKind.GRADIENT_TO_USER_INPUT}:
        yield "The program computes its own gradients: its forward phase holds the backward too."
    mutated = sum(spec.kind is OutputKind.BUFFER_MUTATION for spec in exported.graph_signature.output_specs)
    if mutated:
        yield (
            f"The program writes {mutated} buffer{'s' * (mutated > 1)} back at its end, as exported programs do: those "
            "copies are at the root."
        )
