"""Who may ask: a bearer token, and the rule that a server open to the network has one.

Source: RFC 6750, "The OAuth 2.0 Authorization Framework: Bearer Token Usage", for the header and the characters.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import re
import stat
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from app.errors import RequestError

logger = logging.getLogger(__name__)

TOKEN_VARIABLE = "VALENCE_TOKEN"
MIN_LENGTH, MAX_LENGTH = 16, 1024
# How often a token file is looked at for a change, in seconds.
RELOAD_SECONDS = 2.0

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_BEARER = re.compile(r"bearer +(\S+) *", re.ASCII | re.IGNORECASE)
_HOW_TO_MAKE_ONE = "`openssl rand -hex 32` makes one"


class Access:
    """The tokens that open the server; without any, everybody may ask.

    Only their digests are kept: neither a comparison's duration nor a printed object tells a token's length.
    With `file` the tokens are read from there again when it changes, so that a token can be replaced under way:
    write both, change the clients, take the old one out.
    """

    def __init__(self, tokens: Iterable[str] = (), *, file: Path | None = None) -> None:
        self._file = file
        self._digests = [_digest(token) for token in tokens]
        self._stamp = _stamp(file)
        self._next_look = time.monotonic() + RELOAD_SECONDS

    @property
    def is_open(self) -> bool:
        """Whether no token is asked for."""
        return not self._digests

    def allows(self, header: str | None) -> bool:
        """Whether a request with this `Authorization` header (None: with no such header) may pass."""
        if self._file is not None and time.monotonic() >= self._next_look:
            self._read_again()
        if not self._digests:
            return True
        match = _BEARER.fullmatch(header or "")
        if match is None:
            return False
        given = _digest(match[1])
        found = False
        for digest in self._digests:  # all of them: which one it was must not show in the time either
            found |= hmac.compare_digest(digest, given)
        return found

    def _read_again(self) -> None:
        """Take over a changed file; what cannot be read changes nothing, and never opens the server."""
        assert self._file is not None
        self._next_look = time.monotonic() + RELOAD_SECONDS
        stamp = _stamp(self._file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._digests = [_digest(token) for token in read_tokens(self._file)]
        except RequestError as error:
            logger.warning("the tokens stay as they are: %s", error)
        else:
            logger.info("read %d token(s) from %s", len(self._digests), self._file)


def read_access(token_file: Path | None, environment: Mapping[str, str]) -> Access:
    """The tokens of `token_file`, else the one in the variable VALENCE_TOKEN, else none.

    Raises `RequestError` when the file cannot be read or a token is unfit; its message never quotes a token.
    """
    if token_file is not None:
        return Access(read_tokens(token_file), file=token_file)
    token = environment.get(TOKEN_VARIABLE, "")
    if token:
        _check(token, f"the variable {TOKEN_VARIABLE}")
    return Access([token] if token else [])


def read_tokens(path: Path) -> list[str]:
    """The tokens in a file, one a line; blank lines and lines that begin with # are left out.

    Warns of a file that others may read. Raises `RequestError`.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        mode = path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"cannot read the token file {path}: {_reason(error)}") from error
    tokens = []
    for number, line in enumerate(lines, start=1):
        token = line.strip()
        if token and not token.startswith("#"):
            _check(token, f"{path}, line {number}")
            tokens.append(token)
    if not tokens:
        raise RequestError(f"the token file {path} holds no token; write one on a line of its own, {_HOW_TO_MAKE_ONE}")
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        logger.warning("others may read the token file %s; `chmod 600` keeps it to its owner", path)
    return tokens


def require_token(host: str, access: Access, *, no_auth: bool) -> None:
    """Refuse to listen beyond this machine without a token, unless that was asked for in so many words.

    Raises `RequestError` that says what to do.
    """
    if no_auth and not access.is_open:
        raise RequestError(f"--no-auth was given and a token too; leave out --no-auth, or the token ({TOKEN_VARIABLE})")
    if access.is_open and not no_auth and not is_loopback(host):
        raise RequestError(
            f"--host {host} can be reached from other machines, and no token protects it: set {TOKEN_VARIABLE}, or give"
            f" --token-file ({_HOW_TO_MAKE_ONE}); --no-auth if everybody who reaches the port may ask"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens there; a name other than localhost might be anywhere."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check(token: str, where: str) -> None:
    if not MIN_LENGTH <= len(token) <= MAX_LENGTH:
        raise RequestError(
            f"{where}: a token of {len(token)} characters; it takes {MIN_LENGTH} to {MAX_LENGTH}, {_HOW_TO_MAKE_ONE}"
        )
    if not _TOKEN.fullmatch(token):
        raise RequestError(
            f"{where}: the token holds characters that no bearer token has; letters, digits and . _ ~ + / - are"
            " allowed, and = at its end"
        )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _stamp(path: Path | None) -> tuple[int, int, int] | None:
    """What changes when a file is written anew or replaced by another."""
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is no UTF-8 text"
