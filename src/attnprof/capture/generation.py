"""Greedy generation, one counted step per token: the prompt in one call, then a call for each further token.

N tokens take N calls, as N new tokens do in Hugging Face's ``generate``: the *prefill* on the whole prompt
yields the first, each of N - 1 *decode* steps the next. With a cache, a decode step gives the model one token
and the cache of the call before; without one, the whole sequence so far.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from attnprof.capture import kv_cache
from attnprof.capture.arguments import Arguments
from attnprof.capture.modules import unwrap
from attnprof.core.errors import AttnprofError

#: Places in the sequence: each new token is one further than the last.
_POSITIONS = ("position_ids", "decoder_position_ids", "positions", "cache_position", "input_pos")
#: The place of the first token of a call, as a number.
_OFFSETS = ("start_pos", "offset", "past_length")
#: Given by models that keep a cache of their own: they are told where in the sequence a call begins.
_KEEPS_OWN_CACHE = ("start_pos", "input_pos")
#: Marks of a token that the next one shares.
_REPEATED = ("token_type_ids", "mm_token_type_ids")
#: What only the prompt has: a decode step with a cache goes without.
_PROMPT_ONLY = ("pixel_", "image_", "images", "video_", "input_features", "input_values", "high_res_", "mm_encoder_")
#: What only the encoder reads: once it has run, its output takes their place.
_ENCODER_INPUTS = ("input_ids", "inputs_embeds", "input_features", "input_values", "pixel_values")
_NEEDED = "generation needs logits [batch, tokens, vocabulary], as the output, its first item or its .logits"


class Counting(Protocol):
    """A profile whose steps have names."""

    def __enter__(self) -> Any: ...
    def __exit__(self, *error: Any) -> None: ...
    def step(self, label: str | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class Generation:
    """The prompt (an encoder-decoder's start token) with the tokens after it, and whether a cache carried the past.

    ``notes`` are what a reader of the counts must know.
    """

    ids: Tensor
    cached: bool
    notes: tuple[str, ...] = ()


def generate(
    counting: Counting,
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    tokens: int,
    *,
    training: bool = False,
) -> Generation:
    """Generate ``tokens`` tokens from the prompt that ``args`` and ``kwargs`` hold, inside ``counting``.

    Runs without gradients and in evaluation mode (``training``: in training mode); flags are put back. The
    prompt is ``input_ids``, or else the first integer tensor [batch, tokens]; a model with ``decoder_input_ids``
    starts from them, or from its start token, and its encoder runs once, in the prefill. ``use_cache`` and
    ``logits_to_keep`` (the logits of the last token are all that is needed) are set where the model takes them
    and the caller did not; labels are left out. Masks [batch, tokens] grow by what marks a token as present,
    positions go on. A cache given by the caller is copied first.

    No end token is looked at: there are always so many tokens. Steps are named ``prefill``, ``decode 1``,
    ``decode 2``, ... Choosing the token (argmax), appending it where the next call needs the whole sequence,
    and growing masks belong to the step but to no module.

    Raises :class:`AttnprofError` for a model that cannot generate.
    """
    check(tokens)
    with _in_mode(model, training), torch.no_grad():
        sequence = _Sequence(model, Arguments(model, args, kwargs))
        with counting:
            for step in range(tokens):
                sequence.advance()
                counting.step(f"decode {step}" if step else "prefill")
        return Generation(torch.cat([sequence.prompt, *sequence.made], 1), sequence.cached, tuple(sequence.notes()))


def check(tokens: Any, differentiates: bool = False) -> None:
    """Raise unless ``tokens`` is a number of tokens, and nothing that needs a backward is wanted too."""
    if not isinstance(tokens, int) or isinstance(tokens, bool):
        raise AttnprofError(f"generate takes a whole number of tokens, not {tokens!r}.")
    if tokens < 1:
        raise AttnprofError(f"generating {tokens} tokens would run nothing: give 1 or more.")
    if differentiates:
        raise AttnprofError(
            "generation has no backward: leave out generate, or backward, loss, optimizer and checkpoint."
        )


class _Sequence:
    """A sequence being generated: its prompt, the tokens made, and the arguments of the next call."""

    def __init__(self, model: nn.Module, arguments: Arguments) -> None:
        self.model = model
        self.arguments = arguments
        self.name = type(unwrap(model)).__name__
        self.slot = kv_cache.slot_of(model)
        arguments.drop("labels")
        self.is_decoder_of_encoder = arguments.takes("decoder_input_ids")
        self.input = "decoder_input_ids" if self.is_decoder_of_encoder else self._prompt()
        if arguments.get(self.input) is None:
            arguments.set(self.input, self._start())
        self.prompt: Tensor = arguments.get(self.input)
        self.made: list[Tensor] = []
        self.cached = any(arguments.get(name) is not None for name in _KEEPS_OWN_CACHE)
        if self.slot is not None and (cache := arguments.get(self.slot.name)) is not None:
            arguments.set(self.slot.name, _copied(cache, self.slot.name))
        if self.slot is not None and arguments.takes("use_cache") and arguments.get("use_cache") is None:
            arguments.set("use_cache", True)
        self.keeps_last = arguments.takes("logits_to_keep") and arguments.get("logits_to_keep") is None
        if self.keeps_last:
            arguments.set("logits_to_keep", 1)
        self._check_masks()

    # The prompt

    def _prompt(self) -> str:
        """The argument that holds the ids."""
        given = self.arguments.items()
        for name, value in given:
            if name == "input_ids" and value is not None:
                if _is_ids(value):
                    return name
                raise AttnprofError(f"input_ids is {_described(value)}: a prompt is integers [batch, tokens].")
        for name, value in given:
            if _is_ids(value) and "mask" not in name and name not in (*_POSITIONS, *_REPEATED):
                return name
        raise AttnprofError(
            f"{self.name} was given no token ids ({', '.join(_described(v) for _, v in given) or 'no arguments'}): "
            "generation needs a prompt, an integer tensor [batch, tokens]."
        )

    def _start(self) -> Tensor:
        """The first id of a decoder, one for each item of the encoder's batch."""
        tensors = [value for _, value in self.arguments.items() if isinstance(value, Tensor) and value.dim()]
        inner = unwrap(self.model)
        for config in (getattr(inner, "generation_config", None), getattr(inner, "config", None)):
            start = getattr(config, "decoder_start_token_id", None)
            if isinstance(start, int) and tensors:
                return torch.full((tensors[0].shape[0], 1), start, dtype=torch.int64, device=tensors[0].device)
        raise AttnprofError(
            f"{self.name} needs decoder_input_ids to begin with: its config names no decoder_start_token_id."
            if tensors
            else f"{self.name} was given no tensor: generation needs the input of its encoder."
        )

    def _check_masks(self) -> None:
        for name, value in self.arguments.items():
            main = name in ("mask", "attention_mask", "decoder_attention_mask") and self._belongs_to_ids(name)
            if main and value is not None and not self._grows(name, value):
                raise AttnprofError(
                    f"{name} is {_described(value)}: generation needs a mask [batch, tokens], which can grow."
                )

    def _belongs_to_ids(self, name: str) -> bool:
        return name.startswith("decoder_") == self.is_decoder_of_encoder

    def _grows(self, name: str, value: Any) -> bool:
        """Whether a mask has a column for every token: a new token needs one more."""
        if "mask" not in name or "head" in name or not self._belongs_to_ids(name) or not isinstance(value, Tensor):
            return False
        batch, length = self.prompt.shape
        return value.dim() == 2 and value.shape[0] == batch and value.shape[1] >= length

    def notes(self) -> Iterator[str]:
        """What a reader of the counts must know."""
        if not self.cached:
            told = self.arguments.get("use_cache") is False
            why = f"{self.name} was given use_cache=False" if told else f"{self.name} returned no cache"
            yield f"{why}: every decode step ran the whole sequence so far."
        if self.keeps_last:
            yield "Each call made the logits of its last token only (logits_to_keep=1): generation needs no others."

    # One step

    def advance(self) -> None:
        """One call of the model, and the token it yields."""
        arguments = self.arguments
        output = self.model(*arguments.positional, **arguments.keywords)
        logits = self._logits(output)
        ids = arguments.get(self.input)
        new = logits[:, -1].argmax(-1, keepdim=True).to(ids.dtype)
        self.made.append(new)
        self._keep_past(output)
        for name, value in arguments.items():
            if name in _OFFSETS and isinstance(value, int):
                arguments.set(name, value + ids.shape[1])
            elif isinstance(value, Tensor):
                self._continue(name, value)
        arguments.set(self.input, new if self.cached else torch.cat([ids, new], 1))

    def _keep_past(self, output: Any) -> None:
        """Hand the cache, and what the encoder made, to the next call."""
        arguments = self.arguments
        cache = kv_cache.find(self.model, arguments.positional, arguments.keywords, output)
        if cache is not None and self.slot is not None:
            self.cached = True
            arguments.set(self.slot.name, cache)
            if self.slot.name == "cache_params":  # a recurrent state: it has taken the padding in already
                arguments.drop("attention_mask")
        encoded = kv_cache.members(output).get("encoder_last_hidden_state")
        if self.is_decoder_of_encoder and encoded is not None and arguments.takes("encoder_outputs"):
            arguments.set("encoder_outputs", (encoded,))
            for name in _ENCODER_INPUTS:
                arguments.drop(name)

    def _continue(self, name: str, value: Tensor) -> None:
        """An argument that has a column for every token, for the call with one token more."""
        if self.cached and name.startswith(_PROMPT_ONLY):
            self.arguments.drop(name)
        elif self._grows(name, value):
            shape = (value.shape[0], 1)
            padding = "padding" in name  # marks what is absent
            column = value.new_zeros(shape) if padding else value.new_ones(shape)
            self.arguments.set(name, torch.cat([value, column], 1))
        elif name in (*_POSITIONS, *_REPEATED):
            column = value[..., -1:] + 1 if name in _POSITIONS else value[..., -1:]
            self.arguments.set(name, column if self.cached else torch.cat([value, column], -1))

    def _logits(self, output: Any) -> Tensor:
        if isinstance(output, tuple | list) and not hasattr(output, "_fields"):
            found: Any = next((v for v in output if _is_logits(v)), None)
        else:
            found = output if isinstance(output, Tensor) else kv_cache.members(output).get("logits")
        # Fewer than one for each token are right where so many were asked for; one is what many models return.
        fewest = 1 if self.arguments.get("logits_to_keep") is not None else self.arguments.get(self.input).shape[1]
        if not _is_logits(found) or found.shape[0] != self.prompt.shape[0] or 1 < found.shape[1] < fewest:
            raise AttnprofError(f"{self.name} returned {_described(output)}: {_NEEDED}.")
        return found  # type: ignore[no-any-return]


def _is_ids(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype in (torch.int64, torch.int32) and value.dim() == 2


def _is_logits(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 3 and value.is_floating_point() and value.shape[1] > 0


def _described(value: Any) -> str:
    """``float32[2,10]``, ``BaseModelOutput(last_hidden_state)``, ``(float32[2,8,16], list)``."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}[{','.join(map(str, value.shape))}]"
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return f"({', '.join(_described(v) if isinstance(v, Tensor) else type(v).__name__ for v in value)})"
    fields = kv_cache.members(value) if not isinstance(value, list) else {}
    return f"{type(value).__name__}({', '.join(map(str, fields))})" if fields else type(value).__name__


def _copied(cache: Any, name: str) -> Any:
    try:
        return copy.deepcopy(cache)
    except (RuntimeError, TypeError) as error:
        raise AttnprofError(f"{name} cannot be copied, so that yours would stay as it is: {error}") from None


@contextmanager
def _in_mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Set the flags of every module, and no more: a ``train()`` of the user's may do anything."""
    changed = [module for module in model.modules() if module.training != training]
    try:
        for module in changed:
            module.training = training
        yield
    finally:
        for module in changed:
            module.training = not training
