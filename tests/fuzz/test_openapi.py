"""Schemathesis reads our OpenAPI document and asks every route, rightly and wrongly."""

import json
import re
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from described_site import described
from fuzzing import EXAMPLES
from http_site import all_routes
from hypothesis import HealthCheck, given, settings
from patience import patience
from schemathesis.checks import CHECKS
from schemathesis.generation import GenerationMode

CHECKED = [
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
]
CASES = [
    (route.method, route.template, mode)
    for route in all_routes()
    for mode in GenerationMode
    # What takes no body takes nothing that could be wrong.
    if mode is GenerationMode.POSITIVE or route.operation.body
]


@pytest.fixture(scope="module")
def api() -> Iterator[Any]:
    with described() as url:
        # Its own reader waits for ten seconds, however busy the machine is.
        with urllib.request.urlopen(f"{url}/openapi.json", timeout=patience()) as answer:
            document = json.load(answer)
        schema = schemathesis.openapi.from_dict(document)
        schema.config.update(base_url=url)
        yield schema


@pytest.mark.parametrize(("method", "template", "mode"), CASES, ids=str)
def test_every_route_answers_as_it_says(
    api: Any, method: str, template: str, mode: GenerationMode
) -> None:
    operation = api[re.sub(r"\*}", "}", template)][method]

    @settings(
        max_examples=max(EXAMPLES // 15, 5),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        response = case.call(timeout=patience())
        # What is not offered is 501; nothing else is the server's fault.
        assert response.status_code < 500 or response.status_code == 501, response.text
        case.validate_response(response, checks=CHECKS.get_by_names(CHECKED))

    ask()
