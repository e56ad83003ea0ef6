"""TorchScript archives: what ``torch.jit.save`` wrote."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.jit._recursive import wrap_cpp_module

from attnprof.core.errors import AttnprofError
from attnprof.saved import archives, script_graph
from attnprof.saved.forwards import taking_as
from attnprof.saved.loaded import Loaded
from attnprof.saved.scripted_checks import check_code, check_graphs, check_pickle


def load(path: Path) -> Loaded:
    """The model in a TorchScript archive, on the CPU. It keeps no example inputs.

    Raises :class:`AttnprofError` for a damaged file, and for code that reaches for files or other processes.
    """
    archives.check_same(path)
    for name in sorted(archives.names(path)):
        if name.startswith("code/") and name.endswith(".py"):
            check_code(path, archives.read(path, name))
        elif name in ("data.pkl", "constants.pkl"):
            check_pickle(path, archives.read(path, name))
    torch_c: Any = torch._C  # its stubs lack some arguments of what torch.jit.load calls, which is this
    unit = torch_c.CompilationUnit()
    try:
        module = wrap_cpp_module(torch_c.import_ir_module(unit, str(path), torch.device("cpu"), {}, False))
    except Exception as error:  # whatever PyTorch raises for what is no archive after all
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise AttnprofError(
            f"{path} is a TorchScript archive that PyTorch {torch.__version__} cannot load "
            f"(damaged, or with ops that are not registered here?): {lines[0][:200].rstrip('.')}."
        ) from None
    if not module._c._has_method("forward"):
        raise AttnprofError(f"{path} is a TorchScript archive of a {module.original_name}, which has no forward.")
    functions = {found.qualified_name: found for found in unit.get_functions()}
    check_graphs(path, functions.values())
    model = Script(module, functions, {})
    model.__class__ = cast(Any, taking_as(type(model), _signature(module)))
    return Loaded(model, notes=tuple(model._attnprof_notes()))


class ScriptPart(nn.Module):
    """A module of a TorchScript model, with its name, class and parameters; its methods run op by op."""

    def __init__(self, module: Any, functions: Mapping[str, Any], tied: dict[Any, nn.Parameter]) -> None:
        super().__init__()
        self._attnprof_script = (module,)  # in a tuple: it is not to be counted beside this one
        self._attnprof_functions = functions
        self.__class__ = _class(module, type(self))  # type: ignore[assignment]
        for name, loaded in module._parameters.items():
            self.register_parameter(name, tied.setdefault(_identity(loaded), _parameter(loaded)))
            module._c.setattr(name, self._parameters[name])
        for name, buffer in module._buffers.items():
            self.register_buffer(name, buffer)
        for name, child in module._modules.items():
            self.add_module(name, ScriptPart(child, functions, tied))
        if module._c.hasattr("training"):
            nn.Module.train(self, bool(module._c.getattr("training")))
        self._attnprof_can_run: dict[str, bool] = {}

    def forward(self, method: str, *args: Any) -> Any:
        found = self._attnprof_script[0]._c._get_method(method)
        if self._attnprof_runs(method):
            return script_graph.run(found.graph, self, args)
        return found(*args)

    def train(self, mode: bool = True) -> ScriptPart:
        super().train(mode)
        self._attnprof_script[0].train(mode)
        return self

    def _attnprof_runs(self, method: str) -> bool:
        """Whether a method runs op by op; if not it runs whole, and what is in it belongs to this module."""
        if method not in self._attnprof_can_run:
            graph = self._attnprof_script[0]._c._get_method(method).graph
            self._attnprof_can_run[method] = script_graph.can_run(graph, self._attnprof_has_function)
        return self._attnprof_can_run[method]

    def _attnprof_attribute(self, name: str) -> Any:
        for of_kind in (self._modules, self._parameters, self._buffers):
            if name in of_kind:
                return of_kind[name]
        if name == "training":
            return self.training
        return self._attnprof_script[0]._c.getattr(name)

    def _attnprof_set_attribute(self, name: str, value: Any) -> None:
        if name in self._buffers:
            self._buffers[name] = value
        self._attnprof_script[0]._c.setattr(name, value)

    def _attnprof_call(self, method: str, *args: Any) -> Any:
        """A method: a forward, which a trace numbers, as a call of this module; any other as part of its caller."""
        return self(method, *args) if method.startswith("forward") else ScriptPart.forward(self, method, *args)

    def _attnprof_call_function(self, name: str, args: Sequence[Any]) -> Any:
        return script_graph.run_function(self._attnprof_functions[name].graph, self, args)

    def _attnprof_has_function(self, name: str) -> bool:
        return name in self._attnprof_functions and script_graph.can_run(
            self._attnprof_functions[name].graph, self._attnprof_has_function
        )


class Script(ScriptPart):
    """A TorchScript model. Takes what its ``forward`` takes.

    Raises :class:`AttnprofError` for arguments that the forward has not.
    """

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return ScriptPart.forward(self, "forward", *self._attnprof_bound(args, kwargs))

    def _attnprof_notes(self) -> list[str]:
        """What a reader must know: how it was run."""
        whole = [
            name or "the model"
            for name, part in self.named_modules()
            if isinstance(part, ScriptPart)
            and not all(part._attnprof_runs(m) for m in part._attnprof_script[0]._c._method_names())
        ]
        notes = ["A TorchScript model is counted op by op as its graph states them, before the JIT fuses any."]
        if whole:
            shown = ", ".join(whole[:3]) + (", ..." if len(whole) > 3 else "")
            notes.append(f"What {shown} calls inside runs in one piece, and is not told apart by module.")
        return notes

    def _attnprof_bound(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        _, *expected = self._attnprof_script[0]._c._get_method("forward").schema.arguments
        names = [argument.name for argument in expected]
        taken = ", ".join(f"{a.name}: {a.type}" for a in expected) or "nothing"
        unknown = [name for name in kwargs if name not in names[len(args) :]]
        if unknown or len(args) > len(names):
            extra = unknown[0] if unknown else f"{len(args)} arguments"
            raise AttnprofError(f"the model does not take {extra}: its forward takes {taken}.")
        values = list(args)
        for argument in expected[len(args) :]:
            if argument.name in kwargs:
                values.append(kwargs[argument.name])
            elif argument.has_default_value():
                values.append(argument.default_value)
            else:
                raise AttnprofError(
                    f"a TorchScript file keeps no example inputs, and {argument.name} is missing: its forward takes "
                    f"{taken}. Give it with --input '{argument.name}=float32[...]'."
                )
        return values


def _signature(module: Any) -> inspect.Signature | None:
    _, *expected = module._c._get_method("forward").schema.arguments
    kind = inspect.Parameter
    try:
        return inspect.Signature(
            [
                kind(
                    a.name, kind.POSITIONAL_OR_KEYWORD, default=a.default_value if a.has_default_value() else kind.empty
                )
                for a in expected
            ]
        )
    except ValueError:  # names that are keywords of Python
        return None


def _parameter(loaded: Tensor) -> nn.Parameter:
    """A loaded tensor as the parameter it was, with the same storage."""
    return loaded if isinstance(loaded, nn.Parameter) else nn.Parameter(loaded.detach(), loaded.requires_grad)


def _identity(loaded: Tensor) -> Any:
    """Equal for parameters that were tied."""
    strided = loaded.layout is torch.strided and loaded.numel() > 0
    return (loaded.data_ptr(), loaded.dtype, tuple(loaded.shape), loaded.stride()) if strided else id(loaded)


def _class(module: Any, base: type[nn.Module]) -> type[nn.Module]:
    """A class with the name that the module's had, and defined where it was, where the archive says so."""
    full = str(module._c._type().qualified_name()).replace("__torch__.", "").replace("__torch__", "")
    parts = [part for part in full.split(".") if not part.startswith("___torch_mangle")]
    name = str(module.original_name)
    return type(name, (base,), {"__module__": ".".join(parts[:-1]) or "__torch__"})
