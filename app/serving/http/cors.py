"""Answers for web pages of other origins (CORS), as `--rest_api_enable_cors_support` switches them on.

Source: the Fetch standard, "HTTP extensions: CORS protocol", https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from __future__ import annotations

import re

Headers = tuple[tuple[bytes, bytes], ...]

_API = re.compile(rb"/v1/.*", re.IGNORECASE | re.DOTALL)

# On every answer, errors too: without the first a page cannot even read why it was refused.
ANSWER_HEADERS: Headers = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"X-Request-Id"),
)
# `Authorization` has to be named: browsers do not take it to be meant by a star.
PREFLIGHT_HEADERS: Headers = (
    (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
    (b"access-control-allow-headers", b"Content-Type, Content-Encoding, Authorization, X-Request-Id"),
    (b"access-control-max-age", b"600"),
)


def is_preflight(method: str, raw_path: bytes) -> bool:
    """Whether a browser asks what it may send; it never sends the token with that."""
    return method == "OPTIONS" and _API.fullmatch(raw_path) is not None
