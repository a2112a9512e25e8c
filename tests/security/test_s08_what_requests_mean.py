"""S8: what requests mean. Numbers are finite and within bounds wherever they go on to; one wrong
request costs none of those beside it.

Fields and bounds are rows O03-O35; wrong requests among good ones O37.
"""

import json
import math
from typing import Any

import pytest
from fault_room import Room, good_body, read
from hypothesis import given, settings
from hypothesis import strategies as st

from trivet.backends.api import InvalidRequest, Sampling, ServingError
from trivet.server.http.openai.chat_fields import ChatFields
from trivet.server.http.openai.fields import parse
from trivet.server.http.openai.sampling_fields import CompletionFields
from trivet.server.http.tgi.fields import GenerateFields, Parameters

NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0, 1, -1, 0.0, -0.0, 1e-320, 1e308, 2**31, 2**63, 2**64, True, "1", None]),
)
FIELDS = [
    "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty",
    "repetition_penalty", "n", "max_tokens", "min_tokens", "seed", "logprobs", "prompt_logprobs",
    "priority", "truncate_prompt_tokens",
]  # fmt: skip
TGI_FIELDS = [
    "temperature", "top_p", "top_k", "typical_p", "repetition_penalty", "frequency_penalty",
    "max_new_tokens", "best_of", "seed", "top_n_tokens", "truncate",
]  # fmt: skip


def require_finite(sampling: Sampling) -> None:
    """Every number that goes on to an engine is one, and in a range that it can compute with."""
    assert 0 <= sampling.temperature <= 100
    assert 0 < sampling.top_p <= 1
    assert 0 <= sampling.min_p <= 1
    assert 0 <= sampling.top_k < 2**64
    assert 0 < sampling.repetition_penalty < math.inf
    assert -2 <= sampling.frequency_penalty <= 2
    assert -2 <= sampling.presence_penalty <= 2
    assert all(-100 <= bias <= 100 for bias in sampling.logit_bias.values())
    assert sampling.seed is None or -(2**63) <= sampling.seed < 2**64
    assert sampling.max_tokens is None or sampling.max_tokens >= 0


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(FIELDS), NUMBERS, max_size=4))
def test_no_number_of_openai_s_fields_gets_through_that_is_none(given_: dict[str, Any]) -> None:
    for kind, base in (
        (CompletionFields, {"prompt": "a"}),
        (ChatFields, {"messages": [{"role": "user", "content": "a"}]}),
    ):
        text = json.dumps({"model": "m", **base, **given_}).encode()
        try:
            fields = parse(kind, text)
            sampling = fields.sampling(fields.max_tokens, None, {})
        except ServingError:
            continue
        require_finite(sampling)
        assert (fields.n or 1) <= 128


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(TGI_FIELDS), NUMBERS, max_size=4))
def test_no_number_of_tgi_s_fields_gets_through_that_is_none(given_: dict[str, Any]) -> None:
    text = json.dumps({"inputs": "a", "parameters": given_}).encode()
    try:
        fields = parse(GenerateFields, text)
    except InvalidRequest:
        return
    parameters = fields.parameters or Parameters()
    assert parameters.temperature is None or 0 < parameters.temperature < math.inf
    assert parameters.num_outputs <= 2


@pytest.mark.more_of("O08")
@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
@pytest.mark.parametrize("field", ["temperature", "top_p", "frequency_penalty", "min_p"])
def test_what_is_no_number_is_no_json_either(field: str, word: str) -> None:
    with pytest.raises(InvalidRequest):
        parse(CompletionFields, f'{{"model":"m","prompt":"a","{field}":{word}}}'.encode())


@pytest.mark.usefixtures("unharmed")
def test_one_wrong_request_among_many_costs_none_of_the_others(room: Room) -> None:
    """They reach the model in one batch, as far as they reach it."""
    wrong = b'{"inputs":[{"name":"INPUT0","shape":[4],"datatype":"FP32","data":[1,2,3]}]}'
    for place in range(8):
        connections = [room.http() for _ in range(8)]
        for number, connection in enumerate(connections):
            body = wrong if number == place else good_body([float(number), 1.0, 2.0, 3.0])
            connection.request("POST", "/v2/models/good/infer", body)
        for number, connection in enumerate(connections):
            answer = read(connection)
            assert answer.status == (400 if number == place else 200)
            if number != place:
                data = json.loads(answer.body)["outputs"][0]["data"]
                assert data == [float(number), 1.0, 2.0, 3.0]
            connection.close()
