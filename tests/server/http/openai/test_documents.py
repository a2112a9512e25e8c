"""What OpenAI's answers say of who computed them."""

from trivet.server.http.openai.documents import FINGERPRINT, Head, fingerprint_of
from trivet.server.models.routing import NOTHING_TOLD, VERSION_HEADER


def test_the_fingerprint_is_another_with_another_version() -> None:
    told = {VERSION_HEADER: "3"}

    assert fingerprint_of(NOTHING_TOLD) == FINGERPRINT
    assert fingerprint_of(told) == f"{FINGERPRINT}-v3"
    head = Head("id", 0, "model", told)
    assert head.fields("x")["system_fingerprint"] == f"{FINGERPRINT}-v3"
