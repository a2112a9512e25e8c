"""What the page tells of guessed tokens."""

from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from trivet.backends.api import GenerateStatistics
from trivet.server.core import Served
from trivet.server.metrics.speculating import write_speculation
from trivet.server.metrics.text import Page


@dataclass
class Model:
    statistics: GenerateStatistics = field(default_factory=lambda: GenerateStatistics(100, {}))
    stats: dict[str, float] = field(default_factory=dict)


def test_counters_by_place_and_tokens_that_steps_saved() -> None:
    guessing = Model(stats={
        "drafts": 10, "draft_tokens": 30, "accepted_tokens": 12,
        "accepted_at_0": 8, "accepted_at_1": 3, "accepted_at_2": 1,
    })  # fmt: skip
    guessing.statistics.num_generated_tokens = 32
    page = Page()
    write_speculation(page, {Served("m"): guessing, Served("plain"): Model(stats={"running": 1.0})})
    found = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.text())
        for sample in family.samples
    }
    assert not any("plain" in str(labels) for _, labels in found)
    vllm = (("engine", "0"), ("model_name", "m"))
    assert found["vllm:spec_decode_num_drafts_total", vllm] == 10
    assert found["vllm:spec_decode_num_draft_tokens_total", vllm] == 30
    assert found["vllm:spec_decode_num_accepted_tokens_total", vllm] == 12
    at_1 = (*vllm, ("position", "1"))
    assert found["vllm:spec_decode_num_accepted_tokens_per_pos_total", at_1] == 3
    # 20 steps of requests gave 32 tokens: 12 none beside their own, 5 one, 2 two, 1 three.
    skipped = {
        labels[0][1]: value
        for (name, labels), value in found.items()
        if name == "tgi_request_skipped_tokens_bucket"
    }
    assert skipped == {"0.0": 12, "1.0": 17, "2.0": 19, "+Inf": 20}
    assert found["tgi_request_skipped_tokens_sum", (("model_name", "m"),)] == 12


def test_where_nothing_is_guessed_nothing_is_told() -> None:
    page = Page()
    write_speculation(page, {Served("plain"): Model(stats={"running": 1.0})})
    assert page.text() == ""


def test_versions_of_a_model_are_told_apart_where_there_are_several() -> None:
    page = Page()
    counts = {"drafts": 1.0, "draft_tokens": 2.0, "accepted_tokens": 1.0}
    versions = {Served("m", each): Model(stats=counts) for each in ("1", "2")}
    write_speculation(page, versions)

    families = text_string_to_metric_families(page.text())
    found = {each.labels.get("version") for family in families for each in family.samples}
    assert found == {"1", "2"}
