"""What each argument of a transformers model looks like, by its name: shape, dtype and values.

Symbols: B batch, T tokens, C channels, H and W height and width, P patches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from attnprof.saved.hugging_face_config import find, inner

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

#: Where a configuration names no size: that of most image processors, and a second of most speech.
USUAL_IMAGE, USUAL_SAMPLES = 224, 16_000
#: Frames of a second's spectrogram.
_USUAL_FRAMES = 100
#: Types whose spectrogram is [B, frames, mels], not [B, mels, frames]; whose sound has a channel of its own.
_FRAMES_FIRST = (
    *("speech_to_text", "wav2vec2-bert", "seamless_m4t", "seamless_m4t_v2", "univnet", "canary", "cohere_asr"),
    *("parakeet_ctc", "parakeet_encoder", "parakeet_rnnt", "parakeet_tdt", "xcodec2", "neucodec", "lasr_ctc"),
    *("nemotron_asr_streaming", "nemotron_asr_streaming_encoder", "nemotron3_5_asr", "lasr_encoder"),
    *("nemotron3_5_transcribe_asr_audio", "nemotron3_5_transcribe_audio", "nemotron3_diarization"),
    *("nemotron3_diarization_audio", "gemma4_audio", "audio-spectrogram-transformer", "clap", "clap_audio_model"),
    *("granite_speech", "granite_speech_plus", "granite_speech5_ctc", "granite_speech5_encoder"),
)
_WITH_CHANNEL = (
    *("dac", "encodec", "mimi", "mimi_encoder", "xcodec", "vibevoice_acoustic_tokenizer", "neucodec", "xcodec2"),
    *("vibevoice_acoustic_tokenizer_encoder", "pe_audio", "pe_audio_encoder", "pocket_tts_audio_tokenizer"),
    *("pocket_tts_audio_tokenizer_encoder",),
)
_VIDEO = ("timesformer", "videomae", "vivit", "vjepa2", "xclip", "videoprism", "videoprism_vision_model")
#: How many images one input has, of types that take several.
_SEVERAL = {"idefics": 1, "efficientloftr": 2, "lightglue": 2, "superglue": 2, "instructblipvideo": 4}


@dataclass(frozen=True, slots=True)
class Array:
    """A tensor to make: integers from ``low`` to below ``high``, or standard normal; or these values, repeated."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    low: int = 0
    high: int = 2
    values: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Sizes:
    """What inputs are sized by; ``images`` and ``sound`` are in pixels and samples, where no field says."""

    config: PreTrainedConfig
    batch: int
    seq: int
    image: tuple[int, int]
    asked_seq: int | None = None

    def tokens(self, field: str = "vocab_size") -> Array:
        """[B, T] of ids, none of them special."""
        low, high = ordinary_ids(self.config, find(self.config, field) or find(self.config, "vocab_size") or 2)
        return Array((self.batch, self.seq), "int64", low, high)

    @property
    def channels(self) -> int:
        return find(self.config, "num_channels", "in_channels", "in_chans") or 3

    def pixels(self) -> Array:
        """[B, C, H, W], [B, frames, C, H, W] of a video, or [B, images, C, H, W] where a text has several."""
        kind = self.config.model_type
        frames = find(self.config, "num_frames", "frames_per_clip") if kind in _VIDEO else None
        several = frames or _SEVERAL.get(kind)
        return Array((self.batch, *([several] if several else []), self.channels, *self.image))

    def frames(self) -> Array:
        """A spectrogram: [B, mels, frames] or [B, frames, mels]."""
        names = (
            "num_mel_bins",
            "input_feat_per_channel",
            "feature_projection_input_dim",
            "num_mels",
            "n_mels",
            "input_dim",
        )
        mels = find(self.config, *names) or 80
        fixed = find(self.config, "max_source_positions") if self.config.model_type != "speech_to_text" else None
        length = find(self.config, "max_length") if "spectrogram" in self.config.model_type else None
        frames = 2 * fixed if fixed else length or self.asked_seq or _USUAL_FRAMES
        if self.config.model_type.startswith("clap"):  # a picture of the sound
            side = find(self.config, "spec_size") or 256
            return Array((self.batch, 1, side * side // mels, mels))
        if self.config.model_type in _FRAMES_FIRST:
            return Array((self.batch, frames, mels))
        return Array((self.batch, mels, frames))

    def sound(self) -> Array:
        """A waveform: [B, samples], or [B, 1, samples]."""
        if "spectrogram" in self.config.model_type:
            return self.frames()
        samples = self.asked_seq or USUAL_SAMPLES
        return Array((self.batch, *([1] if self.config.model_type in _WITH_CHANNEL else []), samples))

    def series(self) -> Array:
        """[B, T, series] of measured values."""
        length = find(self.config, "context_length") or self.seq
        return Array((self.batch, length, find(self.config, "num_input_channels") or 1))

    def boxes(self) -> Array:
        """[B, T, 4]: left, top, right, bottom of each word."""
        return Array((self.batch, self.seq, 4), "int64", values=(1, 2, 5, 9))

    def patches(self) -> Array:
        """[P, C t p p]: patches of images as rows, all images one after the other."""
        patch = _patch(self.config)
        depth = find(self.config, "temporal_patch_size") or 1
        rows, columns = self._grid()
        return Array((self.batch * rows * columns, self.channels * depth * patch * patch))

    def grid(self) -> Array:
        """[images, 3]: how many patches in time, height and width."""
        return Array((self.batch, 3), "int64", values=(1, *self._grid()))

    def _grid(self) -> tuple[int, int]:
        merged = _patch(self.config) * (find(self.config, "spatial_merge_size") or 2)
        per_side = find(self.config, "spatial_merge_size") or 2
        return tuple(max(1, side // merged) * per_side for side in self.image)  # type: ignore[return-value]

    def mask(self) -> Array:
        """[B, T] of ones."""
        return Array((self.batch, self.seq), "int64", values=(1,))


#: argument -> what it looks like
ARRAYS: dict[str, Callable[[Sizes], Array]] = {
    "input_ids": Sizes.tokens,
    "decoder_input_ids": lambda s: s.tokens("decoder_vocab_size"),
    "qformer_input_ids": Sizes.tokens,
    "bbox": Sizes.boxes,
    "pixel_values": Sizes.pixels,
    "pixel_values_videos": Sizes.pixels,
    "images": Sizes.pixels,
    "input_features": Sizes.frames,
    "input_values": Sizes.sound,
    "past_values": Sizes.series,
    "hidden_states": Sizes.patches,
    "grid_thw": Sizes.grid,
    "image_grid_thw": Sizes.grid,
    "flattened_patches": lambda s: Array((s.batch, find(s.config, "seq_len") or 196, 2 + 3 * _patch(s.config) ** 2)),
    "pixel_mask": lambda s: Array((s.batch, *s.image), "int64", values=(1,)),
    "attention_mask": Sizes.mask,
}


def image_size(config: PreTrainedConfig) -> tuple[int, int] | None:
    """Height and width of the images that a configuration is for, if it says."""
    for name in ("image_size", "img_size", "crop_size", "input_size"):
        found = find(config, name, kind=(int, list, tuple, dict))
        if isinstance(found, dict):
            found = [found.get("height"), found.get("width")]
        if isinstance(found, int):
            found = [found, found]
        if found and len(found) == 2 and all(isinstance(side, int) and side > 0 for side in found):
            return found[0], found[1]
    return None


def ordinary_ids(config: PreTrainedConfig, vocabulary: int) -> tuple[int, int]:
    """The longest run of ids in which no special one is: from the first to before the second."""
    special = {-1, vocabulary}
    for one in inner(config):
        for name, value in vars(one).items():
            if name.endswith(("_token_id", "_token_index", "_token_ids")):
                special |= {v for v in (value if isinstance(value, list) else [value]) if isinstance(v, int)}
    ordered = sorted(i for i in special if -1 <= i <= vocabulary)
    _, low, high = max((after - before, before + 1, after) for before, after in pairwise(ordered))
    return (low, high) if low < high else (0, max(1, vocabulary))


def _patch(config: PreTrainedConfig) -> int:
    found = find(config, "patch_size", kind=(int, list, tuple))
    return found if isinstance(found, int) else found[-1] if found else 14
