"""Picks the passage whose embedding is nearest to the question's, and writes the prompt."""

from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

PROMPT = (
    "<|im_start|>user\nUse this text: {passage}\nQuestion: {question}<|im_end|>\n"
    "<|im_start|>assistant\n"
)


class TritonPythonModel:
    def initialize(self, args):
        folder = Path(args["model_repository"]) / args["model_version"]
        self.passages = (folder / "passages.txt").read_text(encoding="utf-8").splitlines()
        self.embeddings = np.load(folder / "passages.npy", allow_pickle=False)

    def execute(self, requests):
        return [self._pick(request) for request in requests]

    def _pick(self, request):
        embedding = pb_utils.get_input_tensor_by_name(request, "embedding").as_numpy()
        question = pb_utils.get_input_tensor_by_name(request, "question").as_numpy().ravel()[0]
        passage = self.passages[int(np.argmax(self.embeddings @ embedding))]
        prompt = PROMPT.format(passage=passage, question=question.decode())
        texts = {"passage": passage, "prompt": prompt}
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor(name, np.array([text.encode()], dtype=np.object_))
                for name, text in texts.items()
            ]
        )
