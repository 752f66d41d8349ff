"""What kind of model a configuration describes, and which class of ``transformers`` loads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autolora.bases.errors import ModelError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

HEADS = {
    "ForSequenceClassification": "a classification or reward model",
    "ForTokenClassification": "a model that labels each token",
    "ForQuestionAnswering": "a model that marks answers in a text",
    "ForMultipleChoice": "a multiple-choice model",
    "ForNextSentencePrediction": "an encoder",
    "ForMaskedLM": "a masked language model, an encoder",
    "ForPreTraining": "an encoder",
    "ForTextEncoding": "an encoder",
    "EncoderModel": "an encoder",
    "ForImageClassification": "an image classifier",
    "ForAudioClassification": "an audio classifier",
    "ForObjectDetection": "an object detector",
    "ForCTC": "a speech recognizer",
}
"""What a class of ``transformers`` is, by the end of its name."""
CAUSAL, MULTIMODAL = "AutoModelForCausalLM", "AutoModelForImageTextToText"
WANTED = "autolora tunes causal language models: give one, such as a base or chat model."


def check(config: PretrainedConfig, where: str) -> None:
    """Raise ``ModelError`` unless the configuration is that of a causal language model, saying what it is instead."""
    kind = _sequence_to_sequence(config) or _by_architectures(config) or _by_type(config)
    if kind is not None:
        architectures = _architectures(config)
        raise ModelError(
            f"model: {where} holds {kind} ({architectures[0] if architectures else config.model_type}). {WANTED}"
        )


def check_object(model: PreTrainedModel) -> None:
    """:func:`check` of a model object, by its class."""
    name, config = type(model).__name__, model.config
    kind = _sequence_to_sequence(config) or _encoder(config)
    if kind is None and type(model).__module__.startswith("transformers."):
        kind = _by_class(name)
    if kind is not None:
        raise ModelError(f"model: the {name} given is {kind}. {WANTED}")


def auto_class(config: PretrainedConfig) -> str:
    """Name of the ``transformers`` class that loads the model: of text, or of images and text where there is none."""
    from transformers import AutoModelForImageTextToText

    multimodal = type(config) in AutoModelForImageTextToText._model_mapping and not _is_causal(config)
    return MULTIMODAL if multimodal and not _remote(config) else CAUSAL


def _sequence_to_sequence(config: PretrainedConfig) -> str | None:
    return "a sequence-to-sequence model" if getattr(config, "is_encoder_decoder", False) else None


def _by_architectures(config: PretrainedConfig) -> str | None:
    if _remote(config):
        return None
    kinds = [_by_class(name) for name in _architectures(config)]
    return kinds[0] if kinds and None not in kinds else None


def _architectures(config: PretrainedConfig) -> list[str]:
    """Names of the classes that a configuration says it is of; empty if it names none."""
    named = getattr(config, "architectures", None) or []
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise ModelError(f"model: its configuration names {named!r} as architectures, which is not a list of classes")
    return named


def _by_class(name: str) -> str | None:
    """What a class is if it is not a causal language model."""
    for ending, kind in HEADS.items():
        if name.endswith(ending):
            return kind
    if name.endswith("Model") and not name.endswith(("HeadModel", "HeadsModel")):
        return "a model without a language-model head, as embedding models are"
    return None


def _by_type(config: PretrainedConfig) -> str | None:
    from transformers import AutoModelForImageTextToText

    if _remote(config) or type(config) in AutoModelForImageTextToText._model_mapping:
        return None
    if not _is_causal(config):
        return _encoder(config) or "no language model that writes text"
    return _encoder(config)


def _encoder(config: PretrainedConfig) -> str | None:
    """BERT and its kin look in both directions; some become decoders by ``is_decoder``."""
    from transformers import AutoModelForMaskedLM

    if type(config) not in AutoModelForMaskedLM._model_mapping:
        return None
    is_decoder = getattr(config, "is_decoder", None)
    if is_decoder or (is_decoder is None and _is_causal(config)):
        return None
    return "an encoder, which reads in both directions"


def _is_causal(config: PretrainedConfig) -> bool:
    from transformers import AutoModelForCausalLM

    return type(config) in AutoModelForCausalLM._model_mapping


def _remote(config: PretrainedConfig) -> bool:
    """Whether the repository brings a causal language model of its own."""
    return CAUSAL in (getattr(config, "auto_map", None) or {})
