"""`agentflow secret` and `agentflow keys`: good key material."""

import os
import secrets
from pathlib import Path

import typer
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from agentflow_server.cli.failures import fail

_CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
_RSA_BITS = 3072


def print_secret() -> None:
    typer.echo(make_secret())


def make_secret() -> str:
    # 64 bytes are enough for HS512, and more does not help.
    return secrets.token_urlsafe(64)


def write_key_pair(algorithm: str, folder: Path) -> None:
    """Write both halves, or nothing when a file is in the way."""
    private, public = folder / "jwt-private.pem", folder / "jwt-public.pem"
    if taken := [file for file in (private, public) if file.exists() or file.is_symlink()]:
        fail(*(f"{file}: exists already; move it away first" for file in taken))
    private_pem, public_pem = _make_pair(algorithm)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_new(private, private_pem, mode=0o600)
        _write_new(public, public_pem, mode=0o644)
    except OSError as exc:
        fail(f"{exc.filename}: cannot be written: {exc.strerror}")
    in_one_line = public_pem.decode().replace("\n", "\\n")
    typer.echo(
        f"{private} (keep it secret; it signs: agentflow token --key {private} …)\n{public}\n\n"
        "For the environment or the env file; the server needs the public half alone:\n\n"
        f'JWT_ALGORITHM={algorithm}\nJWT_SECRET_KEY="{in_one_line}"'
    )


def _make_pair(algorithm: str) -> tuple[bytes, bytes]:
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    if algorithm in _CURVES:
        key = ec.generate_private_key(_CURVES[algorithm])
    else:
        key = rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)
    return (
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )


def _write_new(file: Path, content: bytes, *, mode: int) -> None:
    # The mode is set as the file comes into being: there is no moment when others can read it.
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "wb") as opened:  # noqa: PTH123 - a descriptor, not a path
        opened.write(content)
