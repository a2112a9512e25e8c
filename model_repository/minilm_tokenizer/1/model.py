"""Sentences to token ids and masks, padded to the longest sentence of each request."""

from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils
from tokenizers import Tokenizer

MAX_TOKENS = 256  # what the encoder was trained with
# The tokenizer reads all of a text before it cuts it, and takes 300 times its bytes meanwhile.
MAX_CHARACTERS = 128 * MAX_TOKENS


class TritonPythonModel:
    def initialize(self, args):
        folder = Path(args["model_repository"]) / args["model_version"]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.tokenizer.no_padding()  # the file has some; ours is up to the longest of the request

    def execute(self, requests):
        return [self._tokenize(request) for request in requests]

    def _tokenize(self, request):
        texts = pb_utils.get_input_tensor_by_name(request, "text").as_numpy().ravel()
        texts = [text.decode() for text in texts]
        longest = max(map(len, texts))
        if longest > MAX_CHARACTERS:
            reason = f"text: {longest} characters; at most {MAX_CHARACTERS} may be"
            error = pb_utils.TritonError(reason, pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(error=error)
        return self._padded([ids for part in parts(texts) for ids in self._ids(part)])

    def _ids(self, texts):
        return [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]

    def _padded(self, rows):
        ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, found in enumerate(rows):
            ids[row, : len(found)] = found
            mask[row, : len(found)] = 1
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("input_ids", ids), pb_utils.Tensor("attention_mask", mask)]
        )


def parts(texts):
    """The texts in turn, no more characters at a time than one alone may have."""
    part, size = [], 0
    for text in texts:
        if part and size + len(text) > MAX_CHARACTERS:
            yield part
            part, size = [], 0
        part.append(text)
        size += len(text)
    yield part
