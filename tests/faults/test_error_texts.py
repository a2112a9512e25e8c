"""The words of errors that a user can cause: each says what is wrong, where, and, where that is not
plain, what would be right. Clients and runbooks quote them, so they are pinned whole."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from fault_room import Room, json_input
from scripted_model import ScriptedModel, served

from trivet.backends.api import ServingError
from trivet.server.repository.check import check
from trivet.server.repository.config import normalise, read_config

INFER = "/v2/models/simple/infer"
CHAT_PATH = "/v1/chat/completions"
CHAT = {"model": "m", "messages": [{"role": "user", "content": "a"}]}
ONES = [1.0] * 16
ONE_A = "name: 'A' data_type: TYPE_FP32 dims: [1]"


@dataclass(frozen=True)
class Row:
    """A mistake and what it is answered with."""

    mistake: str
    path: str
    document: Any
    status: int
    text: str

    def __str__(self) -> str:
        return self.mistake


def pair(more: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A request to `simple`, whose first input has some fields changed."""
    return {"inputs": [json_input(**changes), json_input("INPUT1")]} | (more or {})


def one(datatype: str, *data: Any) -> dict[str, Any]:
    """A request with one input of these values."""
    return {"inputs": [json_input(datatype=datatype, shape=[len(data)], data=list(data))]}


V2_ROWS = [
    Row(
        "too few values",
        INFER,
        pair(data=[1.0]),
        400,
        ("unable to parse 'data' of input 'INPUT0': expected 16 elements for shape [1, 16], got 1"),
    ),
    Row(
        "a batch too large",
        INFER,
        pair(shape=[9, 16], data=ONES * 9),
        400,
        (
            "[request id: <id_unknown>] inference request batch-size must be <= 8 for "
            "'simple', got 9 (max_batch_size of its config.pbtxt; else --default-max-batch-size)"
        ),
    ),
    Row(
        "batches that differ",
        INFER,
        pair(shape=[2, 16], data=ONES * 2),
        400,
        (
            "[request id: <id_unknown>] input 'INPUT1' batch size does not match other inputs"
            " for 'simple': expected 2, got 1"
        ),
    ),
    Row(
        "another shape",
        INFER,
        pair(shape=[1, 17], data=[*ONES, 1.0]),
        400,
        (
            "[request id: <id_unknown>] unexpected shape for input 'INPUT0' for model "
            "'simple'. Expected [-1,16], got [1,17]. NOTE: Setting a non-zero max_batch_size "
            "in the model config requires a batch dimension to be prepended to each input "
            "shape. If you want to specify the full shape including the batch dim in your "
            "input dims config, try setting max_batch_size to zero. See the model "
            "configuration docs for more info on max_batch_size."
        ),
    ),
    Row(
        "a negative dimension",
        INFER,
        pair(shape=[1, -16]),
        400,
        (
            "'shape' of input 'INPUT0' has dimension -16: each must be positive, or 0 for a "
            "tensor without elements"
        ),
    ),
    Row(
        "a shape as text",
        INFER,
        pair(shape="1,16"),
        400,
        "'shape' of input 'INPUT0' must be an array, not a string",
    ),
    Row(
        "another datatype",
        INFER,
        pair(datatype="FP64"),
        400,
        (
            "[request id: <id_unknown>] inference input 'INPUT0' data-type is 'FP64', but "
            "model 'simple' expects 'FP32'"
        ),
    ),
    Row(
        "no datatype of ours",
        INFER,
        pair(datatype="FLOAT"),
        400,
        (
            "invalid datatype 'FLOAT' of input 'INPUT0'; it must be one of BOOL, UINT8, "
            "UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, BF16, FP32, FP64, BYTES"
        ),
    ),
    Row(
        "an unknown input",
        INFER,
        pair(name="INPUT7"),
        400,
        (
            "[request id: <id_unknown>] unexpected inference input 'INPUT7' for model "
            "'simple'; its inputs are ['INPUT0','INPUT1']"
        ),
    ),
    Row("an input without name", INFER, pair(name=...), 400, "inputs[0] has no 'name'"),
    Row("an input without shape", INFER, pair(shape=...), 400, "input 'INPUT0' has no 'shape'"),
    Row(
        "an input without datatype",
        INFER,
        pair(datatype=...),
        400,
        "input 'INPUT0' has no 'datatype'",
    ),
    Row(
        "an input without values",
        INFER,
        pair(data=...),
        400,
        (
            "Input must set only one of the following fields: 'data', 'binary_data_size' in "
            "'parameters', 'shared_memory_region' in 'parameters'. But no field was set "
            "(input 'INPUT0')"
        ),
    ),
    Row(
        "texts as numbers",
        INFER,
        pair(data=["x"] * 16),
        400,
        ("unable to parse 'data' of input 'INPUT0': element 0 is a string, which is no FP32"),
    ),
    Row(
        "an input too few",
        INFER,
        {"inputs": [json_input()]},
        400,
        (
            "[request id: <id_unknown>] expected 2 inputs but got 1 inputs for model "
            "'simple'. Got input(s) ['INPUT0'], but missing required input(s) ['INPUT1']. "
            "Please provide all required input(s)."
        ),
    ),
    Row(
        "an input twice",
        INFER,
        {"inputs": [json_input(), json_input(), json_input("INPUT1")]},
        400,
        "input 'INPUT0' already exists in request",
    ),
    Row(
        "inputs as a text",
        INFER,
        {"inputs": "INPUT0"},
        400,
        "'inputs' of the request must be an array, not a string",
    ),
    Row(
        "no object",
        INFER,
        [],
        400,
        "failed to parse the request JSON buffer: expected a JSON object, got an array",
    ),
    Row(
        "an unknown output",
        INFER,
        pair({"outputs": [{"name": "OUTPUT9"}]}),
        400,
        (
            "[request id: <id_unknown>] unexpected inference output 'OUTPUT9' for model "
            "'simple'; its outputs are ['OUTPUT0','OUTPUT1']"
        ),
    ),
    Row(
        "an output twice",
        INFER,
        pair({"outputs": [{"name": "OUTPUT0"}, {"name": "OUTPUT0"}]}),
        400,
        "output 'OUTPUT0' already exists in request",
    ),
    Row(
        "a negative number of classes",
        INFER,
        pair({"outputs": [{"name": "OUTPUT0", "parameters": {"classification": -1}}]}),
        400,
        ("parameter 'classification' of output 'OUTPUT0' must be a positive integer, got -1"),
    ),
    Row(
        "a number as id",
        INFER,
        pair({"id": 7}),
        400,
        "'id' of the request must be a string, not an integer",
    ),
    Row(
        "a negative priority",
        INFER,
        pair({"parameters": {"priority": -1}}),
        400,
        "parameter 'priority' must be an integer from 0 to 9223372036854775807, got -1",
    ),
    Row(
        "a timeout as text",
        INFER,
        pair({"parameters": {"timeout": "soon"}}),
        400,
        "parameter 'timeout' must be an integer from 0 to 9223372036854775807, got 'soon'",
    ),
    Row(
        "a reserved parameter",
        INFER,
        pair({"parameters": {"triton_x": 1}}),
        400,
        (
            "parameter 'triton_x' is not allowed: parameter keys starting with 'triton_' are "
            "reserved for Triton usage"
        ),
    ),
    Row(
        "a nested parameter",
        INFER,
        pair({"parameters": {"x": [1]}}),
        400,
        "parameter 'x' must be a boolean, a number or a string, not an array",
    ),
    Row(
        "a region that nobody registered",
        INFER,
        pair(parameters={"shared_memory_region": "gone", "shared_memory_byte_size": 64}, data=...),
        400,
        "Unable to find shared memory region: 'gone'",
    ),
    Row(
        "values twice",
        INFER,
        pair(parameters={"binary_data_size": 64}),
        400,
        (
            "Input must set only one of the following fields: 'data', 'binary_data_size' in "
            "'parameters', 'shared_memory_region' in 'parameters'. But it sets data and "
            "binary_data_size (input 'INPUT0')"
        ),
    ),
    Row(
        "binary values that are not there",
        INFER,
        pair(parameters={"binary_data_size": 64}, data=...),
        400,
        ("unexpected size for input 'INPUT0', expecting 64 additional bytes for model 'simple'"),
    ),
    Row(
        "an unknown model",
        "/v2/models/absent/infer",
        pair(),
        400,
        "Request for unknown model: 'absent' is not found",
    ),
    Row(
        "an unknown version",
        "/v2/models/simple/versions/7/infer",
        pair(),
        404,
        "Request for unknown model: 'simple' version 7 is not found",
    ),
    Row(
        "a version that is none",
        "/v2/models/simple/versions/x/infer",
        pair(),
        400,
        (
            "failed to get model version from specified version string 'x': a version is a "
            "positive decimal number of at most 19 digits without a leading zero"
        ),
    ),
    Row(
        "an integer out of range",
        "/v2/models/ident_int8/infer",
        one("INT8", 1, 300),
        400,
        (
            "unable to parse 'data' of input 'INPUT0': element 1 is 300, which is out of "
            "range for INT8 (-128 to 127)"
        ),
    ),
    Row(
        "a float out of range",
        "/v2/models/ident_fp32/infer",
        one("FP32", 1e39),
        400,
        (
            "unable to parse 'data' of input 'INPUT0': element 0 is 1e+39, which is out of "
            "range for FP32 (-3.4028234663852886e+38 to 3.4028234663852886e+38)"
        ),
    ),
    Row(
        "a fraction as integer",
        "/v2/models/ident_int32/infer",
        one("INT32", 1.5),
        400,
        ("unable to parse 'data' of input 'INPUT0': element 0 is a number, which is no INT32"),
    ),
    Row(
        "a number as boolean",
        "/v2/models/ident_bool/infer",
        one("BOOL", 2),
        400,
        ("unable to parse 'data' of input 'INPUT0': element 0 is an integer, which is no BOOL"),
    ),
    Row(
        "ragged rows",
        "/v2/models/ident_2d/infer",
        {"inputs": [json_input(shape=[2, 2], data=[[1.0, 2.0], [3.0]])]},
        400,
        "unable to parse 'data' of input 'INPUT0': arrays of one level differ in length",
    ),
    Row(
        "a datatype that JSON has not",
        "/v2/models/ident_fp16/infer",
        one("FP16", 1.0),
        400,
        (
            "receiving FP16 data via JSON is not supported. Please use the binary data format"
            " for input INPUT0"
        ),
    ),
    Row(
        "what the model says to its client",
        "/v2/models/refusing/infer",
        {"inputs": [json_input(shape=[4], data=[1.0] * 4)]},
        500,
        "no more ink",
    ),
    Row(
        "what the model did not mean to say",
        "/v2/models/failing/infer",
        {"inputs": [json_input(shape=[4], data=[1.0] * 4)]},
        500,
        "model 'failing' failed while executing; the server log has the details",
    ),
    Row(
        "several answers where one has room",
        "/v2/models/decoupled/infer",
        {"inputs": [{"name": "IN", "shape": [2], "datatype": "INT32", "data": [1, 2]}]},
        400,
        (
            "HTTP end point doesn't support models with decoupled transaction policy unless "
            "they send one response; use gRPC streaming or generate_stream: expected a single"
            " response, got 2"
        ),
    ),
    Row(
        "generate with a value of another type",
        "/v2/models/ident_str/generate",
        {"INPUT0": [[1]]},
        400,
        ("unable to parse 'data' of input 'INPUT0': element 0 is an integer, which is no BYTES"),
    ),
    Row(
        "generate without the input",
        "/v2/models/ident_str/generate",
        {},
        400,
        (
            "[request id: <id_unknown>] expected 1 inputs but got 0 inputs for model "
            "'ident_str'. Got input(s) [], but missing required input(s) ['INPUT0']. Please "
            "provide all required input(s)."
        ),
    ),
    Row(
        "a load of what is nowhere",
        "/v2/repository/models/absent/load",
        {},
        400,
        "failed to load 'absent', failed to poll from model repository",
    ),
    Row(
        "a region whose memory does not exist",
        "/v2/systemsharedmemory/region/r/register",
        {"key": "/k", "offset": 0, "byte_size": 4},
        400,
        "Unable to open shared memory region 'r': key '/k': No such file or directory",
    ),
    Row(
        "a trace level that is none",
        "/v2/trace/setting",
        {"trace_level": ["LOUD"]},
        400,
        "unknown trace level 'LOUD'; known are OFF, TIMESTAMPS, TENSORS",
    ),
    Row(
        "a log format that is none",
        "/v2/logging",
        {"log_format": "novel"},
        400,
        "log setting 'log_format' must be one of default, ISO8601, json, got 'novel'",
    ),
]
LLM_ROWS = [
    Row(
        "no model and no messages",
        CHAT_PATH,
        {},
        400,
        "model: Field required; messages: Field required",
    ),
    Row("an unknown model", CHAT_PATH, CHAT | {"model": "x"}, 404, "The model `x` does not exist."),
    Row(
        "messages as a text",
        CHAT_PATH,
        CHAT | {"messages": "hi"},
        400,
        "messages: Input should be a valid list (got 'hi')",
    ),
    Row(
        "no message",
        CHAT_PATH,
        CHAT | {"messages": []},
        400,
        "messages: List should have at least 1 item after validation, not 0",
    ),
    Row(
        "an unknown role",
        CHAT_PATH,
        CHAT | {"messages": [{"role": "king", "content": "a"}]},
        400,
        "messages[0].role: it must be one of assistant, developer, system, tool, user",
    ),
    Row(
        "a message without content",
        CHAT_PATH,
        CHAT | {"messages": [{"role": "user"}]},
        400,
        "messages[0].content: it is missing",
    ),
    Row(
        "a temperature as text",
        CHAT_PATH,
        CHAT | {"temperature": "hot"},
        400,
        "temperature: Input should be a valid number (got 'hot')",
    ),
    Row(
        "a negative temperature",
        CHAT_PATH,
        CHAT | {"temperature": -1},
        400,
        "temperature: Input should be greater than or equal to 0 (got '-1')",
    ),
    Row(
        "a share above 1",
        CHAT_PATH,
        CHAT | {"top_p": 2},
        400,
        "top_p: Input should be less than or equal to 1 (got '2')",
    ),
    Row(
        "a negative number of tokens",
        CHAT_PATH,
        CHAT | {"max_tokens": -5},
        400,
        "max_tokens: Input should be greater than or equal to 0 (got '-5')",
    ),
    Row(
        "too many outputs",
        CHAT_PATH,
        CHAT | {"n": 1000},
        400,
        "n: Input should be less than or equal to 128 (got '1000')",
    ),
    Row(
        "a number as stop",
        CHAT_PATH,
        CHAT | {"stop": 7},
        400,
        "stop: it must be a text or a list of texts",
    ),
    Row(
        "a bias without token",
        CHAT_PATH,
        CHAT | {"logit_bias": {"a": 1}},
        400,
        "logit_bias: its keys must be token ids in digits",
    ),
    Row(
        "an unknown form of answer",
        CHAT_PATH,
        CHAT | {"response_format": {"type": "poem"}},
        400,
        (
            "response_format.type: Input should be 'text', 'json_object', 'json_schema', "
            "'structural_tag', 'json' or 'regex' (got 'poem')"
        ),
    ),
    Row(
        "a tool choice without tools",
        CHAT_PATH,
        CHAT | {"tool_choice": "required"},
        400,
        "tool_choice: it is allowed only with tools",
    ),
    Row(
        "a field of old",
        CHAT_PATH,
        CHAT | {"functions": [{"name": "f"}]},
        400,
        "functions: it is not offered here; use tools",
    ),
    Row("no prompt", "/v1/completions", {"model": "m"}, 400, "prompt: Field required"),
    Row(
        "a number as prompt",
        "/v1/completions",
        {"model": "m", "prompt": 5},
        400,
        (
            "prompt: it must be a text, a list of texts, a list of token ids (0 or more), or "
            "a list of such lists"
        ),
    ),
    Row(
        "a field that is not offered",
        "/v1/completions",
        {"model": "m", "prompt": "a", "best_of": 3},
        400,
        "best_of: it is not offered here",
    ),
    Row(
        "a text as switch",
        "/v1/completions",
        {"model": "m", "prompt": "a", "echo": "yes"},
        400,
        "echo: Input should be a valid boolean (got 'yes')",
    ),
    Row(
        "no new token, TGI",
        "/generate",
        {"inputs": "a", "parameters": {"max_new_tokens": 0}},
        422,
        "parameters.max_new_tokens: Input should be greater than 0 (got '0')",
    ),
    Row("no text, TGI", "/generate", {}, 422, "inputs: Field required"),
]
CONFIGS = [
    (
        "max_batch_sise: 3",
        (
            "m/config.pbtxt:1:1: unknown field 'max_batch_sise' in ModelConfig; did you mean "
            "'max_batch_size'?"
        ),
    ),
    ("max_batch_size: 'x'", "m/config.pbtxt:1:17: Couldn't parse integer: 'x'"),
    (
        "input [{ name: 'A' data_type: TYPE_FP33 }]",
        'm/config.pbtxt:1:31: Enum type "inference.DataType" has no value named TYPE_FP33',
    ),
    (
        "backend: 'identity' max_batch_size: -1",
        "model 'm': max_batch_size must be 0 or more, got -1",
    ),
    (
        "backend: 'identity' input [{ name: 'A' data_type: TYPE_FP32 dims: [0] }]",
        ("model 'm': input 'A' has dimension 0; dimensions are positive, or -1 for any size"),
    ),
    (
        "backend: 'identity' input [{ name: 'A' dims: [1] }]",
        "model 'm': input 'A' must specify a data_type",
    ),
    (
        f"backend: 'identity' input [{{ {ONE_A} }}, {{ {ONE_A} }}]",
        "model 'm': input 'A' is configured twice",
    ),
    (
        "backend: 'identity' instance_group [{ count: -1 }]",
        "model 'm': instance_group 'm' has count -1; it must be 1 or more",
    ),
    (
        "backend: 'identity' max_batch_size: 4 dynamic_batching { preferred_batch_size: [8] }",
        (
            "model 'm': dynamic batching preferred size must be positive and <= "
            "max_batch_size 4, got 8"
        ),
    ),
    (
        "max_batch_size: 4 dynamic_batching { priority_levels: 2 default_priority_level: 3 }",
        "model 'm': default_priority_level must be from 1 to priority_levels 2, got 3",
    ),
    (
        "name: 'other'",
        (
            "m/config.pbtxt: name is 'other' but the model's folder is 'm'; make them equal "
            "or leave `name` out"
        ),
    ),
    (
        "input [{ name: 'A' data_type: TYPE_FP32 dims: [4] reshape { shape: [3] } }]",
        "model 'm': input 'A' has reshape [3] of another size than dims [4]",
    ),
]


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("row", V2_ROWS, ids=str)
def test_a_mistake_in_a_v2_request_is_explained(room: Room, row: Row) -> None:
    answer = room.post(row.path, json.dumps(row.document).encode())
    assert (answer.error, answer.status) == (row.text, row.status)


@pytest.mark.parametrize("row", LLM_ROWS, ids=str)
async def test_a_mistake_in_a_request_to_a_language_model_is_explained(row: Row) -> None:
    async with (
        served({"m": ScriptedModel()}) as url,
        aiohttp.ClientSession() as session,
        session.post(url + row.path, json=row.document) as answer,
    ):
        error = (await answer.json())["error"]
        text = error if isinstance(error, str) else error["message"]
        assert (text, answer.status) == (row.text, row.status)


@pytest.mark.parametrize(("config", "text"), CONFIGS, ids=[config for config, _ in CONFIGS])
def test_a_mistake_in_a_config_is_explained(tmp_path: Path, config: str, text: str) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.pbtxt").write_text(config)
    with pytest.raises(ServingError) as refused:
        check(normalise(read_config(tmp_path / "m")))
    assert refused.value.message == text


def test_no_fewer_than_sixty_texts_are_pinned_here() -> None:
    texts = [row.text for row in V2_ROWS + LLM_ROWS] + [text for _, text in CONFIGS]
    assert len(set(texts)) >= 60
