"""What OpenAI's answers say of who computed them."""

from trivet.server.http.openai.documents import FINGERPRINT, Head, cost_in, fingerprint_of
from trivet.server.models.routing import COST_HEADER, NOTHING_TOLD, VERSION_HEADER


def test_the_fingerprint_is_another_with_another_version() -> None:
    told = {VERSION_HEADER: "3"}

    assert fingerprint_of(NOTHING_TOLD) == FINGERPRINT
    assert fingerprint_of(told) == f"{FINGERPRINT}-v3"
    head = Head("id", 0, "model", told)
    assert head.fields("x")["system_fingerprint"] == f"{FINGERPRINT}-v3"


def test_what_an_answer_cost_stands_beside_its_tokens_where_it_has_a_price() -> None:
    assert cost_in(NOTHING_TOLD) == {}
    assert cost_in({COST_HEADER: "0.000001500"}) == {"cost": 1.5e-6}
