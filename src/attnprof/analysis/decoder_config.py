"""A Hugging Face ``config.json`` of a decoder-only language model, read without its library."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attnprof.analysis.decoder import Decoder, Layer, Matrix
from attnprof.analysis.decoder_families import FAMILIES, Family, Flag
from attnprof.core.errors import AttnprofError, closest
from attnprof.core.sizes import at_most, divides

#: No size of a model or a batch is larger.
LARGEST = 10**12
#: More layers are a mistake in the file, and would take long.
_MOST_LAYERS = 10_000


def read(config: Mapping[str, Any] | str | os.PathLike[str], model_type: str | None = None) -> Decoder:
    """The decoder of a config: a mapping, the path of a ``config.json``, or of the folder that holds one.

    ``model_type`` stands in where the config names none. Raises :class:`AttnprofError` in one sentence for a file
    that cannot be read, an architecture that is not known, and fields that are missing or wrong.
    """
    where, table = _load(config)
    named = table.get("model_type", model_type)
    if named is None:
        raise AttnprofError(f"{where} names no model_type: it is one of {', '.join(FAMILIES)}.")
    if model_type is not None and model_type != named:
        raise AttnprofError(f"{where} is of a {_quoted(named)}, not of a {model_type}.")
    if not isinstance(named, str) or named not in FAMILIES:
        inner = table.get("text_config")
        if isinstance(inner, Mapping) and str(inner.get("model_type")) in FAMILIES:
            raise AttnprofError(
                f"{where} is of a {_quoted(named)}, which is more than a decoder: give its text_config, "
                f"a {inner['model_type']}, as a config of its own."
            )
        raise AttnprofError(
            f"no closed form of a {_quoted(named)}: there are {', '.join(FAMILIES)}.{closest(str(named), FAMILIES)}"
        )
    return _Config(where, named, FAMILIES[named], table).decoder()


def _load(config: Mapping[str, Any] | str | os.PathLike[str]) -> tuple[str, Mapping[str, Any]]:
    if isinstance(config, Mapping):
        return "the config", config
    if not isinstance(config, str | os.PathLike):
        raise AttnprofError(f"a config is a mapping or the path of a config.json, not a {type(config).__name__}.")
    path = Path(config)
    if path.is_dir():
        path = path / "config.json"
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AttnprofError(f"cannot read the config {path}: {error.strerror or error}.") from None
    except (ValueError, RecursionError) as error:
        raise AttnprofError(f"the config {path} is not valid JSON: {error}.") from None
    if not isinstance(table, dict):
        raise AttnprofError(f"the config {path} is no table of names and values.")
    return f"the config {path}", table


def _quoted(name: Any) -> str:
    return name if isinstance(name, str) and name.isidentifier() else repr(name)


class _Config:
    """The fields of one config, as its family names them."""

    def __init__(self, where: str, model_type: str, family: Family, table: Mapping[str, Any]) -> None:
        self.where = where
        self.model_type = model_type
        self.family = family
        self.table = table

    def decoder(self) -> Decoder:
        """All of it."""
        family = self.family
        self._require()
        field, expected = family.unusual or ("", None)
        if self.table.get(field, expected) != expected:
            raise AttnprofError(f"{self.where} has {field}={self.table[field]!r}: only {expected!r} has a closed form.")
        d, depth, vocabulary = (self._whole(family.names[s]) for s in "dLV")
        if depth > _MOST_LAYERS:
            raise AttnprofError(f"{self.where} has {depth:,} layers: at most {_MOST_LAYERS:,} are taken for real.")
        if self.table.get("word_embed_proj_dim", d) != d:
            raise AttnprofError(
                f"{self.where} has word_embed_proj_dim={self.table['word_embed_proj_dim']!r}: only {d}, its width, has "
                "a closed form."
            )
        longest = self._optional(family.names["N"])
        windows = self._windows(depth)
        layers = Counter(self._layer(d, windows[i], self._is_sparse(i)) for i in range(depth))
        positions = longest if family.extra_positions is not None else None
        if family.extra_positions is not None and positions is None:
            raise AttnprofError(f"{self.where} has no {family.names['N']}.")
        return Decoder(
            self.model_type,
            d,
            vocabulary,
            tuple((count, layer) for layer, count in layers.items()),
            Matrix(d, vocabulary, self._flag(family.head_bias)),
            self._truth("tie_word_embeddings", family.tied),
            family.norm * d,
            positions,
            0 if positions is None else (positions + (family.extra_positions or 0)) * d,
            longest,
            self._dtype(),
            self.table.get("quantization_config") is not None,
        )

    def _layer(self, d: int, window: int | None, sparse: bool) -> Layer:
        family = self.family
        heads = self._whole(family.names["H"])
        kv_heads = self._optional("num_key_value_heads") or heads
        divides(**{family.names["H"]: heads, "num_key_value_heads": kv_heads})
        head_dim = self._optional("head_dim", family.head_dim)
        if head_dim is None:
            divides(**{family.names["d"]: d, family.names["H"]: heads})
            head_dim = d // heads
        n, m = heads * head_dim, kv_heads * head_dim
        biased = self._flag(family.qkv_bias)
        projections = (
            Matrix(d, n, biased), Matrix(d, m, biased), Matrix(d, m, biased), Matrix(n, d, self._flag(family.out_bias))
        )  # fmt: skip
        vectors = family.norms * family.norm * d + (heads if family.sinks else 0)
        vectors += {"": 0, "head": 2 * head_dim, "width": n + m}[family.qk_norm]
        feed_forward, routed = self._experts(d) if sparse else (self._network(d, self._width(d)), ())
        return Layer(heads, kv_heads, head_dim, projections, feed_forward, routed, vectors, window)

    def _network(self, d: int, f: int, experts: int = 1, chosen: int = 1) -> tuple[Matrix, ...]:
        """Up (and a gate beside it) and down."""
        biased = self._flag(self.family.mlp_bias)
        up = Matrix(d, f, biased, experts, chosen)
        return (*([up] if self.family.gated else []), up, Matrix(f, d, biased, experts, chosen))

    def _experts(self, d: int) -> tuple[tuple[Matrix, ...], tuple[Matrix, ...]]:
        """The router and what all tokens share, and the experts."""
        assert self.family.experts is not None
        names, width = self.family.experts
        name = next(name for name in names if name in self.table)
        experts, chosen = self._whole(name), self._whole("num_experts_per_tok")
        at_most(**{name: experts, "num_experts_per_tok": chosen})
        feed_forward = [Matrix(d, experts, self.family.router_bias)]
        if self.model_type == "qwen2_moe":
            shared = self._network(d, self._whole("shared_expert_intermediate_size"))
            feed_forward += [*shared, Matrix(d, 1)]
        return tuple(feed_forward), self._network(d, self._whole(width), experts, chosen)

    def _is_sparse(self, layer: int) -> bool:
        """Whether a layer has experts."""
        if self.family.experts is None:
            return False
        step = self._optional("decoder_sparse_step") or 1
        dense = self.table.get("mlp_only_layers") or []
        if not isinstance(dense, list | tuple):
            raise AttnprofError(f"{self.where}: mlp_only_layers is a list of layers, not {dense!r}.")
        return layer not in dense and (layer + 1) % step == 0

    def _width(self, d: int) -> int:
        """The feed-forward width; models after GPT-2 have 4 d where they do not say."""
        name = self.family.names["f"]
        return 4 * d if name == "n_inner" and self.table.get(name) is None else self._whole(name)

    def _windows(self, depth: int) -> list[int | None]:
        """The window of each layer; None where it sees everything."""
        family = self.family
        if family.window == "none":
            return [None] * depth
        if family.window.endswith("asked") and not self._truth("use_sliding_window", False):
            return [None] * depth
        window = self._optional("sliding_window", family.usual_window)
        if window is None:
            return [None] * depth
        kinds = self.table.get("layer_types")
        if kinds is not None:
            if not isinstance(kinds, list | tuple) or len(kinds) != depth:
                raise AttnprofError(f"{self.where} has {depth} layers, and layer_types that are not of so many.")
            for kind in kinds:
                if kind not in ("full_attention", "sliding_attention"):
                    raise AttnprofError(
                        f"{self.where} has a layer of {kind!r}: only full_attention and sliding_attention."
                    )
            limited = [kind == "sliding_attention" for kind in kinds]
        elif family.window == "last asked":
            first = 28 if self.table.get("max_window_layers", 28) else 0
            if first:
                first = self._optional("max_window_layers", first) or 0
            limited = [i >= first for i in range(depth)]
        elif family.window == "most":
            every = self._optional("sliding_window_pattern") or family.period
            limited = [(i + 1) % every != 0 for i in range(depth)]
        else:
            limited = [family.window != "even" or i % 2 == 0 for i in range(depth)]
        return [window if is_limited else None for is_limited in limited]

    # Fields

    def _require(self) -> None:
        """Raise for the fields that are missing, all at once."""
        family = self.family
        needed: list[tuple[str, ...]] = [(family.names[s],) for s in "dLHV"]
        if family.names["f"] != "n_inner" and family.experts is None:
            needed.append((family.names["f"],))
        if family.experts is not None:
            needed += [family.experts[0], (family.experts[1],), ("num_experts_per_tok",)]
        missing = [names[0] for names in needed if all(self.table.get(name) is None for name in names)]
        if family.grouped and "num_key_value_heads" not in self.table:
            missing.append("num_key_value_heads")
        if missing:
            raise AttnprofError(f"{self.where}, of a {self.model_type}, has no {', '.join(missing)}.")

    def _whole(self, name: str) -> int:
        value = self.table.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise AttnprofError(f"{self.where}: {name} is a whole number above zero, not {value!r}.")
        if value > LARGEST:
            raise AttnprofError(f"{self.where}: {name} is larger than any, {float(LARGEST):.0e}.")
        return value

    def _optional(self, name: str, usual: int | None = None) -> int | None:
        """A field that may be missing or null: null says that there is none, even of a usual value."""
        if name not in self.table:
            return usual
        return None if self.table[name] is None else self._whole(name)

    def _flag(self, flag: Flag) -> bool:
        if isinstance(flag, bool):
            return flag
        name, _, usual = flag.partition("=")
        return self._truth(name, usual == "true")

    def _truth(self, name: str, usual: bool) -> bool:
        """A field that is true or false; null is as good as missing."""
        value = self.table.get(name)
        if value is not None and not isinstance(value, bool):
            raise AttnprofError(f"{self.where}: {name} is true or false, not {value!r}.")
        return usual if value is None else value

    def _dtype(self) -> str | None:
        for name in ("torch_dtype", "dtype"):
            if (value := self.table.get(name)) is not None and value != "auto":
                return str(value).removeprefix("torch.")  # one of torch is named so, too
        return None
