"""The whole in one server: keys, models, streams, rotation, TLS; and what must not start."""

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from auth_site import Certificates, Keys
from click.testing import CliRunner
from heard import hear
from patience import patience
from serving import RunningServer, write_identity
from tritonclient.utils import InferenceServerException

from trivet.server.auth.exposure import is_loopback
from trivet.server.cli import main

Serve = Callable[..., RunningServer]


@dataclass
class Site:
    """A server with keys."""

    server: RunningServer
    keys: Keys

    def call(self, path: str, key: str = "", body: object = None) -> tuple[int, Any]:
        """Status and JSON of a request over HTTP."""
        return call(f"http://{self.server.http}{path}", self.keys.header(key) if key else {}, body)


def call(url: str, headers: dict[str, str], body: object = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=patience()) as answer:
            text = answer.read()
            return answer.status, json.loads(text) if text[:1] in (b"{", b"[") else text.decode()
    except urllib.error.HTTPError as error:
        with error:
            text = error.read()
        hear(error.code, text=text)
        return error.code, json.loads(text)


@pytest.fixture(scope="module")
def site(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("guarded")
    keys = Keys(folder / "keys.toml")
    for scope in ("infer", "admin", "metrics"):
        keys.add(scope, scope)
    keys.add("team-a", "infer", "admin", more='models = ["a-*"]')
    keys.add("slow", "infer", more="requests_per_day = 3")
    repository = folder / "models"
    for name in ("a-1", "a-2", "b-1"):
        write_identity(repository, name, dims="2")
    flags = ("--model-control-mode=explicit", "--load-model=*")
    return Site(serve(repository, f"--auth-keys-file={keys.path}", *flags), keys)


def infer_body() -> dict[str, object]:
    row = {"name": "INPUT0", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
    return {"inputs": [row]}


def grpc_input() -> grpcclient.InferInput:
    given = grpcclient.InferInput("INPUT0", [1, 2], "FP32")
    given.set_data_from_numpy(np.zeros((1, 2), np.float32))
    return given


# -- keys ----------------------------------------------------------------------------------------


def test_tritonclient_over_http_sends_its_key_in_a_header(site: Site) -> None:
    given = httpclient.InferInput("INPUT0", [1, 2], "FP32")
    given.set_data_from_numpy(np.zeros((1, 2), np.float32))
    with httpclient.InferenceServerClient(site.server.http) as client:
        assert client.is_server_ready()
        with pytest.raises(InferenceServerException, match="asks for a key"):
            client.infer("a-1", [given])
        client.infer("a-1", [given], headers=site.keys.header("infer"))


def test_tritonclient_over_grpc_sends_its_key_as_metadata(site: Site) -> None:
    header = {"authorization": f"Bearer {site.keys.secrets['infer']}"}
    with grpcclient.InferenceServerClient(site.server.grpc) as client:
        assert client.is_server_ready()
        with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
            client.infer("a-1", [grpc_input()])
        client.infer("a-1", [grpc_input()], headers=header)
        with pytest.raises(InferenceServerException, match="PERMISSION_DENIED"):
            client.unload_model("a-1", headers=header)


def test_the_metrics_page_wants_its_scope(site: Site) -> None:
    url = f"http://127.0.0.1:{site.server.metrics_port}/metrics"
    assert call(url, {})[0] == 401
    assert call(url, {"x-api-key": "wrong"})[0] == 401
    assert call(url, site.keys.header("infer"))[0] == 403
    status, page = call(url, site.keys.header("metrics"))
    assert status == 200
    assert "nv_inference_count" in page


# -- models of a key -----------------------------------------------------------------------------


@pytest.mark.rows("O02")
def test_a_key_asks_its_own_models_only(site: Site) -> None:
    assert site.call("/v2/models/a-1/infer", "team-a", infer_body())[0] == 200
    for path in ("b-1", "gone"):
        status, answer = site.call(f"/v2/models/{path}/infer", "team-a", infer_body())
        assert status == 403
        assert f"key 'team-a' may not use model '{path}'" in answer["error"]
    for part in ("", "/config", "/stats"):
        assert site.call(f"/v2/models/a-1{part}", "team-a")[0] == 200
        assert site.call(f"/v2/models/b-1{part}", "team-a")[0] == 403


def test_a_key_sees_its_own_models_only(site: Site) -> None:
    seen = {entry["name"] for entry in site.call("/v2/repository/index", "team-a", {})[1]}
    assert seen == {"a-1", "a-2"}
    assert site.call("/v2/models", "team-a")[1] == {"models": ["a-1", "a-2"]}
    stats = site.call("/v2/models/stats", "team-a")[1]["model_stats"]
    assert {each["name"] for each in stats} == {"a-1", "a-2"}
    assert len(site.call("/v2/repository/index", "infer", {})[1]) == 3


def test_a_key_loads_its_own_models_only(site: Site) -> None:
    assert site.call("/v2/repository/models/a-2/unload", "team-a", {})[0] == 200
    assert site.call("/v2/repository/models/a-2/load", "team-a", {})[0] == 200
    assert site.call("/v2/repository/models/b-1/unload", "team-a", {})[0] == 403
    assert site.call("/v2/models/b-1/ready")[0] == 200


def test_models_of_other_keys_are_refused_within_a_stream(site: Site) -> None:
    found: list[Any] = []
    header = {"authorization": f"Bearer {site.keys.secrets['team-a']}"}
    with grpcclient.InferenceServerClient(site.server.grpc) as client:
        client.start_stream(lambda result, error: found.append(error or result), headers=header)
        for name in ("a-1", "b-1", "a-1"):
            client.async_stream_infer(name, [grpc_input()])
        client.stop_stream()
    assert [isinstance(each, InferenceServerException) for each in found] == [False, True, False]
    assert "may not use model 'b-1'" in found[1].message()


def test_every_request_of_a_stream_counts(site: Site) -> None:
    found: list[Any] = []
    header = {"authorization": f"Bearer {site.keys.secrets['slow']}"}
    with grpcclient.InferenceServerClient(site.server.grpc) as client:
        client.start_stream(lambda result, error: found.append(error), headers=header)
        for _ in range(5):
            client.async_stream_infer("a-1", [grpc_input()])
        client.stop_stream()
        assert [error is None for error in found] == [True, True, True, False, False]
        with pytest.raises(InferenceServerException, match="RESOURCE_EXHAUSTED"):
            client.infer("a-1", [grpc_input()], headers=header)
    assert site.call("/v2/models/a-1/infer", "slow", infer_body())[0] == 429


# -- rotation ------------------------------------------------------------------------------------


def test_keys_come_and_go_while_the_server_runs(site: Site) -> None:
    site.keys.add("late", "infer")
    site.server.wait_until(
        lambda: site.call("/v2/models/a-1/infer", "late", infer_body())[0] == 200, "took the key"
    )
    text = site.keys.path.read_text()
    site.keys.path.write_text(text[: text.index('[[keys]]\nname = "late"')])
    site.server.wait_until(
        lambda: site.call("/v2/models/a-1/infer", "late", infer_body())[0] == 401, "dropped the key"
    )
    assert site.call("/v2/models/a-1/infer", "infer", infer_body())[0] == 200


def test_no_key_is_ever_logged(site: Site) -> None:
    site.call("/v2/models/gone/infer", "infer", infer_body())
    log = "".join(site.server.output)
    assert not any(secret in log for secret in site.keys.secrets.values())


# -- TLS -----------------------------------------------------------------------------------------


def test_all_ports_speak_tls_to_known_clients_only(
    serve: Serve, tmp_path: Path, certificates: Certificates
) -> None:
    write_identity(tmp_path / "models", "a-1", dims="2")
    certificates.write("client", "client@example.com")
    cert, key, ca = certificates.cert, certificates.key, certificates.ca
    server = serve(
        tmp_path / "models",
        f"--http-tls-cert={cert}", f"--http-tls-key={key}", f"--http-tls-client-ca={ca}",
        f"--metrics-tls-cert={cert}", f"--metrics-tls-key={key}", f"--metrics-tls-client-ca={ca}",
        "--grpc-use-ssl-mutual=true", f"--grpc-server-cert={cert}", f"--grpc-server-key={key}",
        f"--grpc-root-cert={ca}",
        wait=False,
    )  # fmt: skip
    server.wait_until(lambda: any("model control" in line for line in server.output), "ready")
    context = certificates.client_context("client")
    for url in (f"https://{server.http}/v2", f"https://127.0.0.1:{server.metrics_port}/metrics"):
        with urllib.request.urlopen(url, context=context, timeout=patience()) as answer:
            assert answer.status == 200
        with pytest.raises(OSError, match=r"(?i)certificate|closed|reset|EOF"):
            urllib.request.urlopen(url, context=certificates.client_context(), timeout=patience())
    with grpcclient.InferenceServerClient(
        server.grpc, ssl=True, root_certificates=str(ca),
        private_key=str(tmp_path / "client.key"), certificate_chain=str(tmp_path / "client.pem"),
    ) as client:  # fmt: skip
        assert client.is_server_ready()
        client.infer("a-1", [grpc_input()])
    assert not [line for line in server.output if "Traceback" in line]
    # Connections that clients keep open do not hold up the end.
    with (
        context.wrap_socket(
            socket.create_connection(("127.0.0.1", server.http_port)), server_hostname="127.0.0.1"
        ),
        context.wrap_socket(
            socket.create_connection(("127.0.0.1", server.grpc_port)), server_hostname="127.0.0.1"
        ),
    ):
        assert server.stop() == 0


# -- what must not start -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--http-address=0.0.0.0",), "--http-address 0.0.0.0 lets other machines in"),
        (("--grpc-address=::",), "--grpc-address :: lets other machines in"),
        (("--metrics-address=0.0.0.0",), "start with --allow-unauthenticated"),
        (("--http-tls-cert=a.pem",), "--http-tls-cert and --http-tls-key go together"),
        (("--http-tls-client-ca=a.pem",), "--http-tls-cert and --http-tls-key go together"),
        (("--http-tls-cert=a.pem", "--http-tls-key=a.key"), "'a.pem' and key 'a.key' cannot be"),
        (("--grpc-use-ssl=true",), "--grpc-use-ssl needs --grpc-server-cert and"),
        (
            ("--grpc-use-ssl-mutual=true", "--grpc-server-cert=a", "--grpc-server-key=b"),
            "--grpc-use-ssl-mutual needs --grpc-root-cert",
        ),
        (("--auth-keys-file=/gone.toml",), "the keys file '/gone.toml' cannot be read"),
        (("--http-cors-origins=example.com",), "an origin is scheme, host and port"),
    ],
)
def test_an_insecure_or_impossible_start_is_refused_and_explained(
    flags: tuple[str, ...], text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trivet.server.app.setup_logging", lambda settings: None)
        result = CliRunner().invoke(main, ["serve", str(tmp_path), *flags])
    assert result.exit_code == 1
    assert text in caplog.text


@pytest.mark.parametrize(
    ("address", "is_own"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("localhost", True), ("::1", True),
        ("[::1]", True), ("0.0.0.0", False), ("::", False), ("", False), ("10.0.0.1", False),
        ("example.com", False),
    ],
)  # fmt: skip
def test_loopback_is_told_from_the_rest(address: str, is_own: bool) -> None:
    assert is_loopback(address) is is_own


def test_a_server_for_all_addresses_starts_when_told_that_it_is_guarded(
    serve: Serve, tmp_path: Path
) -> None:
    write_identity(tmp_path / "models", "a-1")
    addresses = [f"--{room}-address=0.0.0.0" for room in ("http", "grpc", "metrics")]
    server = serve(tmp_path / "models", *addresses, "--allow-unauthenticated", wait=False)
    server.wait_until(lambda: any("0.0.0.0" in line for line in server.output), "listening")
    assert server.stop() == 0


# -- our own commands ----------------------------------------------------------------------------


def test_the_commands_send_a_key(site: Site) -> None:
    url = f"--url=http://{site.server.http}"
    arguments = ["infer", "a-1", "--input=INPUT0=1,2", url]
    assert "asks for a key" in CliRunner().invoke(main, arguments).output
    env = {"TRIVET_API_KEY": site.keys.secrets["infer"]}
    assert CliRunner().invoke(main, arguments, env=env).exit_code == 0
    listed = CliRunner().invoke(main, ["models", url, "list"], env=env)
    assert "READY" in listed.output
    refused = CliRunner().invoke(main, ["models", url, "unload", "a-1"], env=env)
    assert "lacks the scope 'admin'" in refused.output
