"""TLS as clients see it: HTTP, gRPC with grpcio, client certificates, renewal, what is no TLS."""

import asyncio
import io
import logging
import os
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import grpc
import grpc.aio
import pytest
import requests
import trustme
from auth_site import Certificates, GuardedSite
from cryptography import x509
from grpc_site import rows
from heard import hear_bytes
from patience import patience

from trivet.backends.api import InvalidConfig
from trivet.server.auth.file_watch import FileWatch
from trivet.server.auth.tls import Tls, TlsFiles
from trivet.server.grpc.http2.options import Http2Options
from trivet.server.grpc.http2.server import Http2Transport
from trivet.server.grpc.transport import Call


def http_files(certificates: Certificates, *, mutual: bool = False) -> TlsFiles:
    client_ca = certificates.ca if mutual else None
    return TlsFiles("HTTP", certificates.cert, certificates.key, client_ca)


@pytest.fixture
async def grpc_port(certificates: Certificates) -> AsyncIterator[Callable[..., object]]:
    """Starts a transport with an echo; returns its port."""
    transports: list[Http2Transport] = []

    async def begin(*, mutual: bool = False) -> int:
        held: list[Call] = []
        tls = Tls(http_files(certificates, mutual=mutual), "h2")
        options = Http2Options(64 * 2**20, max_connections=4)
        transports.append(
            Http2Transport(rows([], held), host="127.0.0.1", port=0, options=options, tls=tls)
        )
        return await transports[-1].start()

    yield begin
    for transport in transports:
        await transport.drain(0)


# -- HTTP ----------------------------------------------------------------------------------------


async def test_https_is_served_to_those_who_trust_the_authority(certificates: Certificates) -> None:
    async with GuardedSite(tls=Tls(http_files(certificates), "http/1.1")) as site:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await site.session.get("/v2")
        found = await asyncio.to_thread(
            requests.get, f"{site.url}/v2", verify=str(certificates.ca), timeout=patience()
        )
        assert found.json()["name"] == "trivet"


async def test_large_bodies_and_answers_pass_through_tls_unharmed(
    certificates: Certificates,
) -> None:
    data = os.urandom(8 * 2**20)
    async with (
        GuardedSite(tls=Tls(http_files(certificates), "http/1.1")) as site,
        site.session.post(
            "/v2/models/ident_uint8/infer",
            data=io.BytesIO(data),
            headers={"Inference-Header-Content-Length": "0"},
            ssl=certificates.client_context(),
        ) as answer,
    ):
        body = await answer.read()
        assert answer.status == 200
        # Not compared by assert, which would explain a difference for minutes.
        is_unharmed = body[int(answer.headers["Inference-Header-Content-Length"]) :] == data
        assert is_unharmed


@pytest.mark.rows("G18")
async def test_only_clients_with_a_certificate_of_ours_come_in(
    certificates: Certificates, tmp_path: Path
) -> None:
    certificates.write("client", "client@example.com")
    (tmp_path / "other").mkdir()
    other = Certificates(tmp_path / "other", trustme.CA())
    other.write("client", "client@example.com")
    strange = other.client_context("client")
    strange.load_verify_locations(certificates.ca)
    async with GuardedSite(tls=Tls(http_files(certificates, mutual=True), "http/1.1")) as site:
        for context in (certificates.client_context(), strange):
            with pytest.raises(aiohttp.ClientError):
                await site.session.get("/v2", ssl=context)
        known = certificates.client_context("client")
        async with site.session.get("/v2", ssl=known) as answer:
            assert answer.status == 200


@pytest.mark.rows("G18")
async def test_an_expired_client_certificate_is_refused(certificates: Certificates) -> None:
    from datetime import UTC, datetime

    past = datetime(2020, 1, 1, tzinfo=UTC)
    issued = certificates.authority.issue_cert("client@example.com", not_after=past)
    folder = certificates.folder
    (folder / "old.key").write_bytes(issued.private_key_pem.bytes())
    (folder / "old.pem").write_bytes(issued.cert_chain_pems[0].bytes())
    async with GuardedSite(tls=Tls(http_files(certificates, mutual=True), "http/1.1")) as site:
        with pytest.raises(aiohttp.ClientError):
            await site.session.get("/v2", ssl=certificates.client_context("old"))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls_1_2_and_1_3_are_spoken(
    certificates: Certificates, version: ssl.TLSVersion
) -> None:
    context = certificates.client_context()
    context.minimum_version = context.maximum_version = version
    async with (
        GuardedSite(tls=Tls(http_files(certificates), "http/1.1")) as site,
        site.session.get("/v2", ssl=context) as answer,
    ):
        assert answer.status == 200


async def test_older_tls_is_refused(certificates: Certificates) -> None:
    async with GuardedSite(tls=Tls(http_files(certificates), "http/1.1")) as site:
        # Python's ssl warns of the old versions; openssl's own client does not.
        client = await asyncio.create_subprocess_exec(
            "openssl", "s_client", "-connect", f"127.0.0.1:{site.port}", "-tls1_1",
            "-cipher", "ALL:@SECLEVEL=0",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await client.communicate()
    assert b"Cipher is (NONE)" in output
    assert client.returncode != 0


@pytest.mark.rows("H26")
@pytest.mark.parametrize(
    "data",
    [b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0" * 99],
)
async def test_plain_text_is_closed_and_leaves_no_trace(
    certificates: Certificates, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with GuardedSite(tls=Tls(http_files(certificates), "http/1.1")) as site:
        answer = await answer_to(site.port, data)
        async with site.session.get("/v2", ssl=certificates.client_context()) as after:
            assert after.status == 200
    # An alert of TLS at most, never HTTP.
    assert b"HTTP" not in answer
    assert caplog.records == []


# -- gRPC ----------------------------------------------------------------------------------------

GrpcPort = Callable[..., "asyncio.Future[int]"]


def credentials(certificates: Certificates, name: str | None = None) -> grpc.ChannelCredentials:
    folder, root = certificates.folder, certificates.ca.read_bytes()
    if name is None:
        return grpc.ssl_channel_credentials(root)
    return grpc.ssl_channel_credentials(
        root, (folder / f"{name}.key").read_bytes(), (folder / f"{name}.pem").read_bytes()
    )


OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.enable_retries", 0)]


async def echo(port: int, given: grpc.ChannelCredentials, message: bytes = b"hello") -> bytes:
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", given, OPTIONS) as channel:
        answer: bytes = await channel.unary_unary("/t.T/Echo")(message, timeout=patience())
        return answer


async def test_grpcio_calls_over_tls(certificates: Certificates, grpc_port: GrpcPort) -> None:
    port = await grpc_port()
    assert await echo(port, credentials(certificates)) == b"hello"


async def test_large_messages_pass_through_tls_unharmed(
    certificates: Certificates, grpc_port: GrpcPort
) -> None:
    message = os.urandom(24 * 2**20)
    assert await echo(await grpc_port(), credentials(certificates), message) == message


async def test_h2_is_agreed_on(certificates: Certificates, grpc_port: GrpcPort) -> None:
    context = certificates.client_context()
    context.set_alpn_protocols(["http/1.1", "h2"])
    _, writer = await asyncio.open_connection("127.0.0.1", await grpc_port(), ssl=context)
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
    writer.close()


@pytest.mark.rows("G18")
async def test_grpc_asks_for_client_certificates_where_told(
    certificates: Certificates, grpc_port: GrpcPort
) -> None:
    certificates.write("client", "client@example.com")
    port = await grpc_port(mutual=True)
    assert await echo(port, credentials(certificates, "client")) == b"hello"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await echo(port, credentials(certificates))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_failed_handshakes_do_not_use_up_the_connections(
    certificates: Certificates, grpc_port: GrpcPort
) -> None:
    port = await grpc_port()  # at most 4 connections
    for _ in range(10):
        assert b"HTTP" not in await answer_to(port, b"GET / HTTP/1.1\r\n\r\n")
    assert await echo(port, credentials(certificates)) == b"hello"


async def test_a_client_that_trusts_another_authority_leaves(
    certificates: Certificates, grpc_port: GrpcPort
) -> None:
    other = trustme.CA().cert_pem.bytes()
    with pytest.raises(grpc.aio.AioRpcError):
        await echo(await grpc_port(), grpc.ssl_channel_credentials(other))


# -- renewal -------------------------------------------------------------------------------------


async def serial_number(port: int, certificates: Certificates) -> int:
    """Of the certificate that a new connection is shown."""
    context = certificates.client_context()
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(shown).serial_number


async def test_new_connections_are_shown_the_new_certificate_and_open_ones_go_on(
    certificates: Certificates,
) -> None:
    tls = Tls(http_files(certificates), "http/1.1")
    watch = FileWatch(tls.files.paths, tls.reload)
    async with GuardedSite(tls=tls) as site:
        before = await serial_number(site.port, certificates)
        async with site.session.get("/v2", ssl=certificates.client_context()) as answer:
            assert answer.status == 200
        after = certificates.renew()
        watch.look()
        watch.look()
        assert await serial_number(site.port, certificates) == after != before
        async with site.session.get("/v2", ssl=certificates.client_context()) as answer:
            assert answer.status == 200


async def test_grpc_is_shown_the_new_certificate_too_and_open_calls_go_on(
    certificates: Certificates,
) -> None:
    tls = Tls(http_files(certificates), "h2")
    watch = FileWatch(tls.files.paths, tls.reload)
    held: list[Call] = []
    options = Http2Options(2**20)
    transport = Http2Transport(rows([], held), host="127.0.0.1", port=0, options=options, tls=tls)
    port = await transport.start()
    before = await serial_number(port, certificates)
    target = f"127.0.0.1:{port}"
    async with grpc.aio.secure_channel(target, credentials(certificates), OPTIONS) as channel:
        assert await channel.unary_unary("/t.T/Echo")(b"a") == b"a"
        after = certificates.renew()
        watch.look()
        watch.look()
        assert await serial_number(port, certificates) == after != before
        assert await channel.unary_unary("/t.T/Echo")(b"b") == b"b"
    assert await echo(port, credentials(certificates)) == b"hello"
    await transport.drain(0)


async def test_files_that_do_not_fit_leave_the_old_certificate_and_are_told_once(
    certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    tls = Tls(http_files(certificates), "http/1.1")
    watch = FileWatch(tls.files.paths, tls.reload)
    async with GuardedSite(tls=tls) as site:
        before = await serial_number(site.port, certificates)
        certificates.write("strange", "127.0.0.1")
        strange_key = certificates.folder / "strange.key"
        certificates.key.write_bytes(strange_key.read_bytes())
        with caplog.at_level(logging.ERROR):
            for _ in range(5):
                watch.look()
        assert await serial_number(site.port, certificates) == before
    (record,) = caplog.records
    assert "the certificate read before stays in use" in record.getMessage()
    assert tls.reload(), "no disk is at fault, so nothing is to be read again before it changes"


async def test_clients_of_an_authority_that_was_taken_away_are_refused(
    certificates: Certificates,
) -> None:
    certificates.write("client", "client@example.com")
    client_ca = certificates.folder / "clients.pem"
    client_ca.write_bytes(certificates.ca.read_bytes())
    tls = Tls(TlsFiles("HTTP", certificates.cert, certificates.key, client_ca), "http/1.1")
    known = certificates.client_context("client")
    async with GuardedSite(tls=tls) as site:
        async with site.session.get("/v2", ssl=known, headers={"Connection": "close"}) as answer:
            assert answer.status == 200
        trustme.CA().cert_pem.write_to_path(str(client_ca))
        tls.reload()
        with pytest.raises(aiohttp.ClientError):
            await site.session.get("/v2", ssl=known)


def test_a_change_is_told_when_it_is_over(tmp_path: Path) -> None:
    told: list[str] = []
    cert, key = tmp_path / "cert", tmp_path / "key"
    cert.write_text("1")

    def read() -> bool:
        told.append(cert.read_text())
        return True

    watch = FileWatch([cert, key], read)
    watch.look()
    cert.write_text("22")
    watch.look()
    key.write_text("2")
    watch.look()
    assert told == []
    watch.look()
    watch.look()
    assert told == ["22"]


def test_files_that_could_not_be_read_are_told_again_until_they_can(tmp_path: Path) -> None:
    """Nothing of them changes when the disk is mended."""
    path, answers = tmp_path / "keys", [False, False, True]
    told: list[bool] = []
    path.write_text("1")

    def read() -> bool:
        told.append(answers[len(told)])
        return told[-1]

    watch = FileWatch([path], read)
    path.write_text("22")
    for _ in range(6):
        watch.look()
    assert told == answers


# -- files ---------------------------------------------------------------------------------------


def test_files_that_cannot_be_used_are_named(certificates: Certificates, tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    cert, key, gone = certificates.cert, certificates.key, tmp_path / "gone.pem"
    for files, text in (
        (TlsFiles("gRPC", gone, key), "gone.pem"),
        (TlsFiles("gRPC", cert, gone), "gone.pem"),
        (TlsFiles("gRPC", cert, empty), "empty.pem"),
        (TlsFiles("gRPC", key, cert), "must be PEM files that belong together"),
        (TlsFiles("gRPC", cert, key, gone), "certificate authority"),
        (TlsFiles("gRPC", cert, key, empty), "certificate authority"),
    ):
        with pytest.raises(InvalidConfig) as caught:
            Tls(files, "h2")
        assert caught.value.message.startswith("gRPC: ")
        assert text in caught.value.message


def test_a_key_with_a_password_is_refused_and_nothing_is_asked(certificates: Certificates) -> None:
    locked = certificates.folder / "locked.key"
    subprocess.run(
        ["openssl", "pkey", "-in", certificates.key, "-aes256", "-passout", "pass:x", "-out",
         locked],
        check=True,
    )  # fmt: skip
    with pytest.raises(InvalidConfig, match="the key without a password"):
        Tls(TlsFiles("HTTP", certificates.cert, locked), "http/1.1")


async def answer_to(port: int, data: bytes) -> bytes:
    """All that a server sends after some bytes, until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        async with asyncio.timeout(patience()):
            received = await reader.read()
    except ConnectionResetError:
        received = b""
    finally:
        writer.close()
    hear_bytes(received, is_closed=True)
    return received
