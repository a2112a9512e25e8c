"""What is kept of one tenant's prompts and answers is of no use to another."""

from typing import cast

import pytest
from auth_site import Keys
from scripted_model import ScriptedModel

from trivet.backends.api import GenerateRequest, GenerateSink, InvalidConfig, Sampling
from trivet.server.auth.keyring import Keyring
from trivet.server.auth.keys import parse_keys
from trivet.server.auth.metering import TenantsGenerator
from trivet.server.auth.scopes import Scope

HASH = "sha256:" + "0" * 64


def test_a_key_is_a_tenant_of_its_own_unless_it_says_otherwise(keys: Keys) -> None:
    keys.add("a", "infer", more='tenant = "both"')
    keys.add("b", "infer", more='tenant = "both"')
    ring = Keyring(keys.path)
    tenants = {
        name: ring.allowed(keys.secrets[name], Scope.INFER).key.tenant
        for name in ("infer", "a", "b")
    }
    assert tenants == {"infer": "infer", "a": "both", "b": "both"}


@pytest.mark.parametrize("tenant", ['""', '"a b"', "5", '"x\\ny"'])
def test_a_tenant_that_is_no_name_is_refused(tenant: str) -> None:
    table = f'[[keys]]\nname = "a"\nhash = "{HASH}"\nscopes = ["infer"]\ntenant = {tenant}\n'
    with pytest.raises(InvalidConfig, match="'tenant' must be"):
        parse_keys(table, "keys.toml")


def salt_of(tenant: str, salt: str) -> str:
    """What reaches the engine."""
    seen: list[GenerateRequest] = []

    class Recorder(ScriptedModel):
        def generate(self, request: GenerateRequest, sink: GenerateSink) -> None:
            seen.append(request)

    request = GenerateRequest("id", [1], Sampling(), cache_salt=salt)
    TenantsGenerator(Recorder(), tenant).generate(request, cast(GenerateSink, None))
    return seen[0].cache_salt


def test_no_salt_of_a_client_s_makes_it_another_tenant() -> None:
    tenants, salts = ("a", "b", "ab"), ("", "a", "b", " ", "b ", "a b", "\0")
    found = {(tenant, salt): salt_of(tenant, salt) for tenant in tenants for salt in salts}
    assert len(set(found.values())) == len(found)
