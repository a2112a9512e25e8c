"""Folders of models that read images, as transformers writes them, with random weights; and what
transformers itself makes of a conversation."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image, ImageOps
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""SmolVLM's own."""
_SPECIAL = (
    "<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>", "<image>", "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4)),
)  # fmt: skip
TILE, LONGEST, ROWS_PER_TILE = 32, 64, 4
KINDS: dict[str, tuple[Any, Any, Any]] = {
    "smolvlm": (
        transformers.SmolVLMConfig,
        transformers.SmolVLMForConditionalGeneration,
        SmolVLMImageProcessorPil,
    ),
    "idefics3": (
        transformers.Idefics3Config,
        transformers.Idefics3ForConditionalGeneration,
        Idefics3ImageProcessorPil,
    ),
}


def make_vision_model(folder: Path, kind: str = "smolvlm", **processing: Any) -> Path:
    """A folder with a model of that kind, its tokenizer, processor and chat template."""
    make_config, make_model, make_image_processor = KINDS[kind]
    settings = {"size": {"longest_edge": LONGEST}, "max_image_size": {"longest_edge": TILE}}
    tokenizer = make_tokenizer()
    transformers.Idefics3Processor(
        make_image_processor(**{**settings, **processing}),
        tokenizer,
        image_seq_len=ROWS_PER_TILE,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = make_config(
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        tie_word_embeddings=False,
        vision_config={**sizes, "hidden_size": 16, "image_size": TILE, "patch_size": 8},
        text_config={
            **sizes,
            **ends,
            "model_type": "llama",
            "hidden_size": 32,
            "num_key_value_heads": 1,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 512,
        },
    )
    torch.manual_seed(3)
    model = make_model(config)
    # Freshly made weights are so small that all prompts would be alike.
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4)
    model.generation_config = transformers.GenerationConfig(**ends)
    model.save_pretrained(folder)
    return folder


def make_tokenizer() -> Any:
    """Of bytes and marks."""
    inner = Tokenizer(
        models.BPE(
            {letter: at for at, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))},
            [],
        )
    )
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(each, special=True) for each in _SPECIAL])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<|im_start|>", eos_token="<end_of_utterance>"
    )


@dataclass(frozen=True)
class Reference:
    """A folder's model in transformers."""

    folder: Path

    @cached_property
    def model(self) -> Any:
        kind: Any = transformers.AutoModelForImageTextToText
        return kind.from_pretrained(self.folder).eval()

    @cached_property
    def processor(self) -> Any:
        return transformers.Idefics3Processor.from_pretrained(self.folder)

    def inputs(self, messages: Sequence[Any], files: Sequence[bytes]) -> Any:
        """Of a conversation in transformers' form."""
        text = self.processor.apply_chat_template(messages, add_generation_prompt=True)
        images = [_loaded(file) for file in files] or None
        return self.processor(
            text=text, images=images, add_special_tokens=False, return_tensors="pt"
        )

    def generate(
        self, messages: Sequence[Any], files: Sequence[bytes], count: int
    ) -> tuple[list[int], list[int], list[float]]:
        """The prompt, the likeliest next tokens and their log probabilities."""
        inputs = self.inputs(messages, files)
        with torch.no_grad():
            found = self.model.generate(
                **inputs,
                max_new_tokens=count,
                do_sample=False,
                eos_token_id=None,
                return_dict_in_generate=True,
                output_logits=True,
            )
        prompt = inputs["input_ids"][0].tolist()
        tokens = found.sequences[0][len(prompt) :].tolist()
        logprobs = [
            float(torch.log_softmax(logits[0].float(), -1)[token])
            for logits, token in zip(found.logits, tokens, strict=True)
        ]
        return prompt, tokens, logprobs


def _loaded(file: bytes) -> Image.Image:
    """As transformers' load_image does."""
    image = Image.open(BytesIO(file))
    transposed = ImageOps.exif_transpose(image) or image
    return transposed.convert("RGB")
