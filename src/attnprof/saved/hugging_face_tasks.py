"""Which class of transformers a configuration is built as: by its task, or by the classes that it names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attnprof.core.errors import AttnprofError, closest
from attnprof.saved.hugging_face_config import text_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

#: task -> the tables of transformers' classes that serve it, the first that has the configuration is taken
TASKS: dict[str, tuple[str, ...]] = {
    "feature-extraction": ("MODEL",),
    "text-generation": ("MODEL_FOR_CAUSAL_LM",),
    "text2text-generation": ("MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM",),
    "fill-mask": ("MODEL_FOR_MASKED_LM",),
    "text-classification": ("MODEL_FOR_SEQUENCE_CLASSIFICATION",),
    "token-classification": ("MODEL_FOR_TOKEN_CLASSIFICATION",),
    "question-answering": ("MODEL_FOR_QUESTION_ANSWERING",),
    "multiple-choice": ("MODEL_FOR_MULTIPLE_CHOICE",),
    "table-question-answering": ("MODEL_FOR_TABLE_QUESTION_ANSWERING",),
    "image-classification": ("MODEL_FOR_IMAGE_CLASSIFICATION",),
    "image-feature-extraction": ("MODEL_FOR_IMAGE",),
    "image-segmentation": (
        "MODEL_FOR_SEMANTIC_SEGMENTATION",
        "MODEL_FOR_UNIVERSAL_SEGMENTATION",
        "MODEL_FOR_INSTANCE_SEGMENTATION",
        "MODEL_FOR_IMAGE_SEGMENTATION",
    ),
    "object-detection": ("MODEL_FOR_OBJECT_DETECTION",),
    "depth-estimation": ("MODEL_FOR_DEPTH_ESTIMATION",),
    "masked-image-modeling": ("MODEL_FOR_MASKED_IMAGE_MODELING",),
    "image-to-image": ("MODEL_FOR_IMAGE_TO_IMAGE",),
    "video-classification": ("MODEL_FOR_VIDEO_CLASSIFICATION",),
    "keypoint-detection": ("MODEL_FOR_KEYPOINT_DETECTION",),
    "mask-generation": ("MODEL_FOR_MASK_GENERATION",),
    "audio-classification": ("MODEL_FOR_AUDIO_CLASSIFICATION",),
    "automatic-speech-recognition": ("MODEL_FOR_SPEECH_SEQ_2_SEQ", "MODEL_FOR_CTC", "MODEL_FOR_RNNT", "MODEL_FOR_TDT"),
    "audio-frame-classification": ("MODEL_FOR_AUDIO_FRAME_CLASSIFICATION",),
    "audio-xvector": ("MODEL_FOR_AUDIO_XVECTOR",),
    "text-to-audio": ("MODEL_FOR_TEXT_TO_WAVEFORM", "MODEL_FOR_TEXT_TO_SPECTROGRAM"),
    "zero-shot-image-classification": ("MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION",),
    "zero-shot-object-detection": ("MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION",),
    "image-text-to-text": ("MODEL_FOR_IMAGE_TEXT_TO_TEXT",),
    "visual-question-answering": ("MODEL_FOR_VISUAL_QUESTION_ANSWERING",),
    "document-question-answering": ("MODEL_FOR_DOCUMENT_QUESTION_ANSWERING",),
    "time-series-prediction": ("MODEL_FOR_TIME_SERIES_PREDICTION",),
}
#: Other names of tasks, as people write them.
_ALIASES = {
    "causal-lm": "text-generation",
    "masked-lm": "fill-mask",
    "seq2seq-lm": "text2text-generation",
    "summarization": "text2text-generation",
    "translation": "text2text-generation",
    "sequence-classification": "text-classification",
    "sentiment-analysis": "text-classification",
    "zero-shot-classification": "text-classification",
    "ner": "token-classification",
    "embeddings": "feature-extraction",
    "sentence-similarity": "feature-extraction",
    "semantic-segmentation": "image-segmentation",
    "asr": "automatic-speech-recognition",
    "text-to-speech": "text-to-audio",
}


def check(task: str | None) -> None:
    """Raise for a task that is not known; needs nothing of transformers."""
    if task is not None:
        _canonical(task)


def class_for(where: str, config: PreTrainedConfig, task: str | None, named: tuple[str, ...]) -> type[PreTrainedModel]:
    """The class to build: the task's, or else the first that the file names, or else the bare model.

    Raises :class:`AttnprofError` where there is none, with the tasks that there are.
    """
    if task is not None:
        wanted = _canonical(task)
        found = next((c for table in TASKS[wanted] if (c := _in_table(table, config)) is not None), None)
        if found is None:
            raise AttnprofError(
                f"a {config.model_type} has no model for {wanted} in transformers; it has {_listed(tasks_of(config))}."
            )
        return found
    if named:
        return _named(where, config, named[0])
    tables = ("MODEL", *(table for tables in TASKS.values() for table in tables))
    found = next((c for table in tables if (c := _in_table(table, config)) is not None), None)
    if found is None:
        raise AttnprofError(f"{where} names no architectures, and transformers has no model of a {config.model_type}.")
    return found


def tasks_of(config: PreTrainedConfig) -> list[str]:
    """The tasks that transformers has a model of this configuration for."""
    return [task for task, tables in TASKS.items() if any(_in_table(table, config) for table in tables)]


def _canonical(task: str) -> str:
    word = task.strip().lower().replace("_", "-")
    word = _ALIASES.get(word, word)
    if word not in TASKS:
        hint = closest(word, [*TASKS, *_ALIASES]) or f" There are {', '.join(TASKS)}."
        raise AttnprofError(f'no task "{task[:100]}".{hint}')
    return word


def _in_table(table: str, config: PreTrainedConfig) -> type[PreTrainedModel] | None:
    from transformers.models.auto import modeling_auto

    mapping: Any = getattr(modeling_auto, f"{table}_MAPPING", None)
    if mapping is None or type(config) not in mapping:
        return None
    try:
        found = mapping[type(config)]
    except (ImportError, ValueError):  # of a package that is not installed, or named and not there
        return None
    if isinstance(found, tuple | list):  # which one depends on the configuration; the first is the usual one
        wanted = getattr(config, "architectures", None) or []
        found = next((c for c in found if c.__name__ in wanted), found[0])
    return found  # type: ignore[no-any-return]


def _named(where: str, config: PreTrainedConfig, name: str) -> type[PreTrainedModel]:
    """A class that a file names: one of transformers' own, for such a configuration."""
    import transformers
    from transformers import PreTrainedModel

    try:
        found = getattr(transformers, name, None) if name.isidentifier() else None
    except ImportError as error:
        raise AttnprofError(f"{where} is of a {name}, which needs more than is installed: {error}") from None
    if not (isinstance(found, type) and issubclass(found, PreTrainedModel)):
        found = _in_module(config, name)
    if found is None:
        raise AttnprofError(
            f"{where} is of a {name[:100]!r}, which transformers {transformers.__version__} has not; with --task it is "
            f"built as another class: {_listed(tasks_of(config))}."
        )
    wanted = found.config_class or object
    fits = isinstance(config, wanted) or isinstance(text_of(config), wanted)
    if not fits and not any(_in_table(table, config) is found for tables in TASKS.values() for table in tables):
        raise AttnprofError(f"{where} names the class {name}, but a {config.model_type} is not configured like one.")
    return found


def _in_module(config: PreTrainedConfig, name: str) -> Any:
    """A class in the file of the configuration's model that transformers does not export."""
    import importlib

    from transformers import PreTrainedModel

    place = type(config).__module__.replace(".configuration_", ".modeling_")
    try:
        found = getattr(importlib.import_module(place), name, None)
    except ImportError:
        return None
    return found if isinstance(found, type) and issubclass(found, PreTrainedModel) else None


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"
