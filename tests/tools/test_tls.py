"""TLS: the address is the one that was checked, the name is the one that was asked for."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.web_servers import Names, Outside, answer, redirect, refused

from palaver.tools.guard import Guard

NAME = "files.example"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """A server's side, the names it was asked for, and the side of a client that trusts its authority."""

    server: ssl.SSLContext
    asked: list[str | None]
    client: ssl.SSLContext


@pytest.fixture
def trust(tmp_path: Path) -> Trust:
    """A certificate for ``NAME`` by an authority of this test's own."""
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority")])
    root = _certificate(authority, issuer, issuer, authority).sign(authority, hashes.SHA256())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server")])
    leaf = _certificate(key, subject, issuer, authority).sign(authority, hashes.SHA256())
    held = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = tmp_path / "server.pem"
    file.write_bytes(held + leaf.public_bytes(serialization.Encoding.PEM))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    asked: list[str | None] = []

    def seen(_socket: object, name: str | None, _context: ssl.SSLContext) -> None:
        asked.append(name)

    server.sni_callback = seen
    client = ssl.create_default_context(cadata=root.public_bytes(serialization.Encoding.PEM).decode())
    return Trust(server=server, asked=asked, client=client)


def _certificate(
    key: ec.EllipticCurvePrivateKey, subject: x509.Name, issuer: x509.Name, authority: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=subject == issuer, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
    )


async def test_the_name_is_asked_for_and_verified_at_the_address_that_was_checked(trust: Trust) -> None:
    async with Outside.serving({"/": answer(b"x")}, tls=trust.server) as outside:
        names = Names(files_example=[["127.0.0.1"], ["127.0.0.2"]])
        guard = Guard(allow="127.0.0.1", resolve=names, tls=trust.client)
        assert (await guard.get(f"https://{NAME}:{outside.port}/")).content == b"x"
    assert (trust.asked, names.asked) == ([NAME], 1)
    assert outside.header("Host") == f"{NAME}:{outside.port}"


async def test_a_certificate_for_another_name_is_not_good(trust: Trust) -> None:
    async with Outside.serving({"/": answer(b"x")}, tls=trust.server) as outside:
        guard = Guard(allow="127.0.0.1", resolve=Names(other_example=[["127.0.0.1"]]), tls=trust.client)
        reason = await refused(guard, f"https://other.example:{outside.port}/")
        assert (await refused(guard, f"https://127.0.0.1:{outside.port}/")).reason == "connection"
    assert (reason.reason, outside.requests) == ("connection", [])
    assert "the certificate of 'other.example' is not good: Hostname mismatch" in reason.detail


async def test_a_certificate_by_an_authority_that_nobody_knows_is_not_good(trust: Trust) -> None:
    async with Outside.serving({"/": answer(b"x")}, tls=trust.server) as outside:
        guard = Guard(allow="127.0.0.1", resolve=Names(files_example=[["127.0.0.1"]]))
        reason = await refused(guard, f"https://{NAME}:{outside.port}/")
    assert (reason.reason, outside.requests) == ("connection", [])
    assert "the certificate of 'files.example' is not good" in reason.detail


async def test_a_server_without_tls_does_not_speak_it() -> None:
    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        reason = await refused(Guard(allow="127.0.0.1"), f"https://127.0.0.1:{port}/")
    assert (reason.reason, reason.detail) == ("connection", "'127.0.0.1' does not speak TLS that palaver can")


async def test_a_redirect_does_not_lead_out_of_tls(trust: Trust) -> None:
    async with (
        Outside.serving({"/": answer(b"x")}) as plain,
        Outside.serving({"/": redirect(f"{plain.url}/")}, tls=trust.server) as outside,
    ):
        guard = Guard(allow="127.0.0.1", resolve=Names(files_example=[["127.0.0.1"]]), tls=trust.client)
        reason = await refused(guard, f"https://{NAME}:{outside.port}/")
    assert (reason.reason, plain.connections) == ("redirects", 0)
