"""A Hugging Face ``config.json`` as a configuration of transformers: from the file alone, without network or code."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnprof.core.errors import AttnprofError, closest
from attnprof.saved.hugging_face_offline import offline
from attnprof.saved.kinds import refuse_others

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

#: No configuration is larger than this.
_LARGEST_BYTES = 10_000_000
#: Counts of things that are made one by one when a model is built: more are a mistake in the file.
_MOST = {
    **dict.fromkeys(("layers", "n_layer", "depth", "blocks"), 10_000),
    "experts": 100_000,
    "labels": 1_000_000,
}
#: Says where code is to be had, or which kernels: none of it is followed.
_NOT_FOLLOWED = (
    *("auto_map", "quantization_config", "_name_or_path", "_commit_hash", "custom_pipelines"),
    *("return_dict", "use_return_dict", "torchscript"),
    *("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation"),
)


@dataclass(frozen=True)
class Read:
    """A configuration, and what the file says besides that a model is not built from.

    ``architectures``: the classes it was saved from. ``code``: it names code of its own. ``quantised``: how its
    weights were quantised, in words. ``image``: height and width of the images its processor makes.
    """

    where: str
    config: PreTrainedConfig
    architectures: tuple[str, ...]
    code: bool
    quantised: str | None
    image: tuple[int, int] | None


def read(path: str | Path) -> Read:
    """The configuration of a ``config.json``, or of the folder that holds one.

    Raises :class:`AttnprofError` in one sentence for a file that cannot be read, a model type that this transformers
    has not, and for values that its configuration refuses.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    file = path / "config.json" if path.is_dir() else path
    table = _table(file)
    named = table.get("model_type")
    code = bool(table.get("auto_map"))
    if not isinstance(named, str):
        refuse_others(file, table)
        raise AttnprofError(f"{file} names no model_type, such as llama: there is nothing to build.")
    try:
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    except ImportError:
        raise AttnprofError(
            f"{file} is a Hugging Face configuration: building it needs transformers; install attnprof[hf]."
        ) from None
    if named == "mistral" and "layer_types" in table:
        named = "ministral"  # as transformers reads it
    if named not in CONFIG_MAPPING:
        raise AttnprofError(f"{file} is of a {named!r}, {_unknown(named, code, list(CONFIG_MAPPING))}")
    _check_counts(file, table)
    try:
        with offline():
            config = CONFIG_MAPPING[named].from_dict(_without(table))
    except Exception as error:  # a validator of any of 800 classes
        raise AttnprofError(f"{file} is no configuration of a {named}: {first_line(error)}") from None
    listed = table.get("architectures")
    listed = [listed] if isinstance(listed, str) else listed
    architectures = tuple(a for a in listed if isinstance(a, str)) if isinstance(listed, list) else ()
    return Read(str(file), config, architectures, code, _quantised(table), _image(folder))


def first_line(error: BaseException) -> str:
    """What an exception says, on one line and with a point at its end."""
    said = f"it has no {error}" if isinstance(error, KeyError) else str(error)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    text = " ".join(lines[:2])[:300] if lines else type(error).__name__
    return text if text.endswith((".", "?", "!")) else f"{text}."


def inner(config: PreTrainedConfig) -> Iterator[PreTrainedConfig]:
    """A configuration and all inside it, the outermost first."""
    yield config
    for name in getattr(config, "sub_configs", None) or {}:
        found = getattr(config, name, None)
        if found is not None and hasattr(found, "to_dict"):
            yield from inner(found)


def find(config: PreTrainedConfig, *names: str, kind: type | tuple[type, ...] = int) -> Any:
    """The first of these fields that a configuration, or one inside it, has a value of this kind for; else None."""
    for name in names:
        for one in inner(config):
            found = getattr(one, name, None)
            if isinstance(found, kind) and not isinstance(found, bool):
                return found
    return None


def text_of(config: PreTrainedConfig) -> PreTrainedConfig:
    """The configuration of the decoder in one of a model of text and more; itself where there is none, or are two."""
    try:
        return config.get_text_config()
    except ValueError:  # an encoder and a decoder
        return config


def _table(file: Path) -> dict[str, Any]:
    try:
        if (size := file.stat().st_size) > _LARGEST_BYTES:
            raise AttnprofError(f"{file} has {size:,} bytes, more than any configuration.")
        table = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise AttnprofError(f"{file} cannot be read: {error.strerror or error}.") from None
    except (ValueError, RecursionError) as error:
        raise AttnprofError(f"{file} is not valid JSON: {error}.") from None
    if not isinstance(table, dict):
        raise AttnprofError(f"{file} is no table of names and values.")
    return table


def _unknown(named: str, code: bool, known: list[str]) -> str:
    import transformers

    if code:
        return (
            "which transformers has no code for; the code that it names itself (auto_map) is not run. Build the model "
            "in a file of yours: attnprof run file.py:build."
        )
    return f"which transformers {transformers.__version__} does not know.{closest(named, known)}"


def _check_counts(file: Path, table: Mapping[str, Any]) -> None:
    """Refuse what would take all memory before anything is counted."""
    for name, value in table.items():
        if isinstance(value, dict) and name not in _NOT_FOLLOWED:
            _check_counts(file, value)
        if isinstance(value, int) and not isinstance(value, bool):
            most = None if "vocab" in name else next((m for word, m in _MOST.items() if name.endswith(word)), None)
            if most is not None and (value > most or (value < 0 and name.startswith(("n_", "num_")))):
                raise AttnprofError(f"{file} has {name}={value:,}: from 0 to {most:,} are taken for real.")


def _without(table: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a model is built from, of the configurations inside too."""
    return {
        name: _without(value) if isinstance(value, dict) else value
        for name, value in table.items()
        if name not in _NOT_FOLLOWED and not (name in ("dtype", "torch_dtype") and value == "auto")
    }


def _quantised(table: Mapping[str, Any]) -> str | None:
    """How the weights are quantised: ``gptq, 4 bits``; None when they are not."""
    found = table.get("quantization_config")
    if found is None:
        found = next((v["quantization_config"] for v in table.values() if _is_quantised(v)), None)
    if not found:
        return None
    if not isinstance(found, dict):
        return "in a way it does not name"
    method = found.get("quant_method") or ("bitsandbytes" if any(k.startswith("load_in_") for k in found) else "")
    bits = found.get("bits") or found.get("w_bit") or found.get("nbits")
    if method == "bitsandbytes":
        bits = 4 if found.get("load_in_4bit") else 8 if found.get("load_in_8bit") else None
    named = str(method) if method else "in a way it does not name"
    return f"{named}, {bits} bits" if isinstance(bits, int) else named


def _is_quantised(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("quantization_config"), dict)


def _image(folder: Path) -> tuple[int, int] | None:
    """Height and width in the folder's ``preprocessor_config.json``, if there is one that says."""
    try:
        found = _table(folder / "preprocessor_config.json")
    except AttnprofError:
        return None
    for name in ("crop_size", "size"):
        size = found.get(name)
        if isinstance(size, int) and size > 0:
            return size, size
        if isinstance(size, dict):
            pair = (size.get("height"), size.get("width"))
            if not all(isinstance(n, int) and n > 0 for n in pair):
                pair = (size.get("shortest_edge"),) * 2
            if all(isinstance(n, int) and n > 0 for n in pair):
                return pair  # type: ignore[return-value]
    return None
