"""The certificate and key of the REST side, looked at before anything listens."""

from __future__ import annotations

import ssl
from pathlib import Path

from app.errors import RequestError


def check_tls(certificate: Path | None, key: Path | None) -> None:
    """Check that both files are given or neither, can be read, and belong together; raises `RequestError`."""
    if certificate is None and key is None:
        return
    if certificate is None or key is None:
        given, missing = (
            ("--tls_key", "--tls_certificate") if certificate is None else ("--tls_certificate", "--tls_key")
        )
        raise RequestError(f"{given} was given without {missing}; TLS takes both")
    for flag, path in (("--tls_certificate", certificate), ("--tls_key", key)):
        _check_readable(flag, path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=_refuse_to_ask)
    except _EncryptedKeyError as error:
        raise RequestError(f"--tls_key {key} is encrypted; give it without a passphrase") from error
    except ssl.SSLError as error:
        raise RequestError(_explain(error, certificate, key)) from error


class _EncryptedKeyError(Exception):
    """OpenSSL wants a passphrase."""


def _refuse_to_ask() -> str:
    # Without this OpenSSL would ask on the terminal, and a server started by a machine would wait for ever.
    raise _EncryptedKeyError


def _check_readable(flag: str, path: Path) -> None:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise RequestError(f"{flag} {path}: {error.strerror or error}; it takes a file in PEM form") from error


def _explain(error: ssl.SSLError, certificate: Path, key: Path) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"--tls_key {key} is not the key of --tls_certificate {certificate}"
    detail = (error.reason or "no certificate and key in PEM form").replace("_", " ").lower()
    return f"--tls_certificate {certificate} and --tls_key {key} cannot be used: {detail}"
