"""Encoders as models of Triton's protocol."""

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from encoder_folders import TEXTS
from serving import RunningServer
from tritonclient.utils import InferenceServerException


def texts_input(module: object, name: str, *texts: str) -> object:
    values = np.array([[each.encode()] for each in texts], dtype=object)
    made = module.InferInput(name, list(values.shape), "BYTES")  # type: ignore[attr-defined] # either module
    made.set_data_from_numpy(values)
    return made


def test_text_goes_in_and_vectors_come_out(encoders: RunningServer) -> None:
    answers = []
    for module, url in ((httpclient, encoders.http), (grpcclient, encoders.grpc)):
        with module.InferenceServerClient(url) as client:
            result = client.infer("vectors", [texts_input(module, "text", *TEXTS)])
            answers.append(result.as_numpy("embedding"))
            assert result.as_numpy("num_tokens").tolist() == [[4], [15], [5], [9]]
            assert result.as_numpy("token_embeddings") is None
    np.testing.assert_array_equal(*answers)


def test_pairs_and_parameters_go_in(encoders: RunningServer) -> None:
    with httpclient.InferenceServerClient(encoders.http) as client:
        pair = [
            texts_input(httpclient, "text", "a"),
            texts_input(httpclient, "text_pair", "b " * 90),
        ]
        result = client.infer("pairs", pair, parameters={"truncate": True, "max_tokens": 9})
        assert result.as_numpy("num_tokens").tolist() == [[9]]
        assert result.as_numpy("scores").shape == (1, 1)
        with pytest.raises(InferenceServerException, match="has 94 tokens, and the model takes 40"):
            client.infer("pairs", pair)
        with pytest.raises(InferenceServerException, match="takes either text or input_ids"):
            client.infer("vectors", [])


def test_metadata_and_config_tell_what_it_is(encoders: RunningServer) -> None:
    with httpclient.InferenceServerClient(encoders.http) as client:
        metadata = client.get_model_metadata("labels")
        config = client.get_model_config("labels")

    assert [each["name"] for each in metadata["inputs"]] == ["text", "input_ids", "text_pair"]
    outputs = {each["name"]: each["shape"] for each in metadata["outputs"]}
    assert outputs["scores"] == [-1, 3]
    assert config["backend"] == "encoder"
    assert (
        '"labels":["good","bad","neither"]' in config["parameters"]["encoder_info"]["string_value"]
    )
