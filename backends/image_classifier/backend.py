"""The backend word "image_classifier": image classifiers of Hugging Face, as their folders lie."""

from trivet.backends.api import (
    DataType,
    Instance,
    InvalidConfig,
    ModelFiles,
    Placement,
    parameter,
)
from trivet.backends.api.completion import ModelTensor, complete_config
from trivet.backends.api.image_classifier import IMAGE
from trivet.backends.hugging_face.folder import compute_of, lacking
from trivet.backends.hugging_face.gpus import can_use_gpus
from trivet.backends.hugging_face.image_bounds import Bounds
from trivet.backends.image_classifier.about import ABOUT
from trivet.backends.image_classifier.folder import read_folder
from trivet.protos.model_config_pb2 import ModelConfig


class ImageClassifierBackend:
    """Knows version folders that transformers has written."""

    def can_use_gpus(self) -> bool:
        """See UsesGpus."""
        return can_use_gpus()

    def complete(self, config: ModelConfig, files: ModelFiles) -> ModelConfig:
        """Inputs, outputs and labels come from the folder's JSON. Raises InvalidConfig."""
        folder = read_folder(files.version_dir, files.name)
        compute_of(config, folder.path, folder.onnx)
        Bounds.of(config)
        if config.WhichOneof("scheduling_choice") not in (None, "dynamic_batching"):
            raise InvalidConfig(
                f"model '{config.name}': an image classifier batches its images by "
                "dynamic_batching; leave other schedulers out"
            )
        count = len(folder.labels)
        inputs = [ModelTensor(IMAGE, DataType.BYTES, (-1, 1))]
        outputs = [
            ModelTensor("scores", DataType.FP32, (-1, count)),
            ModelTensor("label", DataType.BYTES, (-1, 1)),
            ModelTensor("logits", DataType.FP32, (-1, count)),
        ]
        completed = complete_config(config, inputs, outputs)
        folder.info.write(completed)
        return completed

    def open(self, config: ModelConfig, files: ModelFiles, placement: Placement) -> Instance:
        """Raises LoadFailed, InvalidConfig."""
        folder = read_folder(files.version_dir, files.name)
        compute = compute_of(config, folder.path, folder.onnx)
        try:
            from trivet.backends.hugging_face.image_decoding import Decoder
            from trivet.backends.hugging_face.image_preprocessing import Preprocessor
            from trivet.backends.image_classifier.bodies import open_body
            from trivet.backends.image_classifier.instance import ImageClassifierInstance

            decoder, preprocessor = Decoder(Bounds.of(config)), Preprocessor(folder.path)
            body = open_body(compute, folder, placement, parameter(config, "dtype"))
        except ModuleNotFoundError as error:
            raise lacking(ABOUT, error) from error
        return ImageClassifierInstance(
            folder.info, decoder, preprocessor, body, placement.cpu_threads
        )


BACKEND = ImageClassifierBackend()
