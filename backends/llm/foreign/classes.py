"""Which of transformers' classes a config.json is of. Code that lies in a folder is never run, and
nothing is asked of the network."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trivet.backends.api import LoadFailed
from trivet.backends.llm.about import SEEING
from trivet.backends.llm.families.registry import hub_class

INSTALL = "pip install 'trivet[llm-transformers]'"
_OURS_TO_CHOOSE = frozenset({
    "auto_map", "attn_implementation", "_attn_implementation", "_attn_implementation_internal",
    "experts_implementation", "_experts_implementation", "_experts_implementation_internal",
})  # fmt: skip
"""Keys by which a file would have code fetched, or choose what computes."""


@dataclass(frozen=True, slots=True)
class Found:
    """A class of transformers and the config that it is made with."""

    kind: Any
    config: Any

    @property
    def name(self) -> str:
        """The class' name."""
        name: str = self.kind.__name__
        return name


def find_class(values: Mapping[str, Any]) -> Found:
    """The class that transformers has for a config.json's language model. Raises LoadFailed."""
    named = hub_class(values)
    try:
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING
        from transformers.models.auto.modeling_auto import (
            MODEL_FOR_CAUSAL_LM_MAPPING,
            MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        )

        from trivet.backends.hugging_face.library import transformers
    except ImportError as error:
        raise LoadFailed(
            f"config.json names the architecture '{named}', for which trivet has no family of its "
            f"own, and transformers, whose classes compute all others, is missing: {INSTALL}"
        ) from error
    model_type = str(values.get("model_type"))
    sees = named in SEEING
    has = f"transformers {transformers.__version__} has"
    if model_type not in CONFIG_MAPPING:
        raise LoadFailed(
            f"config.json names the architecture '{named}' of model_type '{model_type}', which "
            f"neither trivet nor {has}; code that lies in a folder is not run"
        )
    _refuse_quantised(values)
    config_class = CONFIG_MAPPING[model_type]
    classes = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING if sees else MODEL_FOR_CAUSAL_LM_MAPPING
    if config_class not in classes:
        raise LoadFailed(
            f"config.json names the architecture '{named}' of model_type '{model_type}', for which "
            f"{has} no language model that generates text"
        )
    kind: Any = classes[config_class]
    if named not in ("?", kind.__name__):
        raise LoadFailed(
            f"config.json names the architecture '{named}'; of model_type '{model_type}' the "
            f"language model is '{kind.__name__}'"
        )
    config = _read(config_class, values)
    if kind.config_class is config.sub_configs.get("text_config"):
        config = config.get_text_config()
    return Found(kind, config)


def _read(kind: Any, values: Mapping[str, Any]) -> Any:
    from huggingface_hub.errors import StrictDataclassError

    try:
        # JSON has no infinity: transformers 5 writes an object for it.
        decoded = getattr(kind, "_decode_special_floats", dict)(values)
        return kind.from_dict(_without_choices(decoded))
    except (StrictDataclassError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise LoadFailed(
            f"config.json is none that transformers' {kind.__name__} can be made with: {error}"
        ) from error


def _refuse_quantised(values: Mapping[str, Any]) -> None:
    if given := values.get("quantization_config"):
        method = str(given.get("quant_method", "?") if isinstance(given, Mapping) else given)[:64]
        raise LoadFailed(
            f"the weights are quantised by '{method}' (config.json, quantization_config), which is "
            "not read for models that transformers' classes compute: take the unquantised weights"
        )


def _without_choices(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_choices(value) if isinstance(value, Mapping) else value
        for name, value in values.items()
        if name not in _OURS_TO_CHOOSE
    }
