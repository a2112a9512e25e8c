"""Fields of other servers' APIs that change an output and are not offered: refused, not ignored."""

from collections.abc import Mapping
from typing import Any

from trivet.backends.api import Unsupported

Refusals = Mapping[str, tuple[Any, str]]
"""By name: a value that asks for nothing, and what to do instead."""


def refuse_known(extra: Mapping[str, Any], of_api: Refusals | None = None) -> None:
    """Raises Unsupported for the first field that asks for what is not here. A field that asks for
    nothing, such as `"best_of": 1`, is taken. `of_api`: what one API does not offer besides."""
    refused = _REFUSED if of_api is None else {**_REFUSED, **of_api}
    for name, value in extra.items():
        if name in refused and value is not None and value is not False:
            harmless, instead = refused[name]
            if value != harmless:
                raise Unsupported(f"{name}: it is not offered here{instead}")


_REFUSED: Refusals = {
    # OpenAI
    "best_of": (1, ""),
    "suffix": ("", ""),
    "functions": ([], "; use tools"),
    "function_call": ("none", "; use tool_choice"),
    "audio": (None, ""),
    "modalities": (["text"], ""),
    "prediction": (None, ""),
    "web_search_options": (None, ""),
    # vLLM
    "use_beam_search": (None, ""),
    "length_penalty": (1, ", for it belongs to beam search"),
    "guided_json": (None, "; use structured_outputs.json"),
    "guided_regex": (None, "; use structured_outputs.regex"),
    "guided_choice": (None, "; use structured_outputs.choice"),
    "guided_grammar": (None, "; use structured_outputs.grammar"),
    "prompt_embeds": (None, ""),
    "chat_template": (None, ", for a template is code; the model's own is used"),
    "spaces_between_special_tokens": (True, ""),
    "watermarking": (None, ""),
    "repetition_detection": (None, ""),
    "return_token_offsets": (None, ""),
    "return_prompt_text": (None, ""),
    "return_weight_versions": (None, ""),
    "media_io_kwargs": ({}, ""),
    "mm_processor_kwargs": ({}, ""),
    "mm_payload": (None, ""),
    "kv_transfer_params": (None, ""),
    "ec_transfer_params": (None, ""),
    "vllm_xargs": ({}, ""),
    # SGLang
    "regex": (None, "; use structured_outputs.regex"),
    "ebnf": (None, "; use structured_outputs.grammar"),
    "stop_regex": (None, ""),
    "no_stop_trim": (None, "; use include_stop_str_in_output"),
    "lora_path": (None, "; name the adapter as the model"),
    "session_params": (None, ""),
    "custom_logit_processor": (None, ""),
    "return_hidden_states": (None, ""),
}
