"""Requests at random for hypothesis to draw: most nearly right, some far from it, each as the bytes on the wire."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from dataclasses import dataclass, field
from typing import Any

from fuzz_model import EXAMPLES, INPUTS, NAME
from hypothesis import strategies as st

MODEL = f"/v1/models/{NAME}"
Json = Any


def mostly(usual: st.SearchStrategy[Any], odd: st.SearchStrategy[Any], one_in: int = 12) -> st.SearchStrategy[Any]:
    """Draw from `odd` once in so many times."""
    return st.integers(1, one_in).flatmap(lambda number: odd if number == one_in else usual)


def repeated(*pairs: tuple[Any, int]) -> st.SearchStrategy[Any]:
    """One of the texts, so often; they are only made when they are drawn."""
    return st.sampled_from(pairs).map(lambda pair: pair[0] * pair[1])


TEXT = mostly(
    st.text(max_size=30) | st.sampled_from(["", "a great film", "ä€😀", "\x00"]), repeated(("x", 5_000), ("ab ", 500))
)
WHOLE = st.integers(-5, 5) | st.integers(-(2**65), 2**65) | st.sampled_from([2**31, 2**63, 2**64, -(2**63), 10**400])
FLOAT = st.floats() | st.floats(-10, 10) | st.sampled_from([1e38, 1e39, 1e308, 1e-320])
SCALAR = st.none() | st.booleans() | WHOLE | FLOAT | TEXT
BASE64 = st.binary(max_size=40).map(lambda data: base64.b64encode(data).decode()) | st.text(
    "AZaz09+/-_= \n", max_size=20
)
B64 = st.fixed_dictionaries({"b64": BASE64 | SCALAR}, optional={"more": SCALAR})
ANY: st.SearchStrategy[Json] = st.recursive(
    SCALAR | B64,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=15,
)


@dataclass(frozen=True)
class Wire:
    """A request: `target` and `headers` are sent as they are; Host and, unless given, Content-Length are added."""

    method: str
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes | None = field(default=None)

    def data(self) -> bytes:
        """The bytes to send."""
        lines = [self.method.encode() + b" " + self.target + b" HTTP/1.1", b"Host: 127.0.0.1"]
        lines += [name + b": " + value for name, value in self.headers]
        names = {name.lower() for name, _ in self.headers}
        if self.body is not None and not names & {b"content-length", b"transfer-encoding"}:
            lines.append(b"Content-Length: %d" % len(self.body))
        return b"\r\n".join(lines) + b"\r\n\r\n" + (self.body or b"")


def to_json(value: Json) -> bytes:
    """As text, lone surrogates and NaN included."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


# --- near-valid predictions ---

_FITTING = {
    "string": TEXT | B64,
    "bool": st.booleans(),
    "float32": FLOAT | st.integers(-9, 9),
    "float64": FLOAT | st.integers(-9, 9),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int16": st.integers(-(2**15), 2**15 - 1),
    "int8": st.integers(-(2**7), 2**7 - 1),
    "uint8": st.integers(0, 2**8 - 1),
    "uint32": st.integers(0, 2**32 - 1),
    "uint64": st.integers(0, 2**64 - 1),
}


def _row(dtype: str, shape: tuple[int | None, ...] | None) -> st.SearchStrategy[Json]:
    """One row of an input, mostly of its type and shape."""
    row = mostly(_FITTING[dtype], SCALAR, 30)
    for size in reversed((shape or (None,))[1:]):
        row = st.lists(row, min_size=1 if size is None else size, max_size=3 if size is None else size)
    return mostly(row, ANY, 30)


def _rows(signature: str) -> st.SearchStrategy[Json]:
    inputs = {name: _row(*declared) for name, declared in INPUTS[signature].items()}
    usual = st.fixed_dictionaries(inputs)
    if len(inputs) == 1:
        usual |= next(iter(inputs.values()))
    row = mostly(usual, st.fixed_dictionaries({}, optional={**inputs, "more": SCALAR}), 20)
    return mostly(st.lists(row, min_size=1, max_size=5), ANY)


def _columns(signature: str) -> st.SearchStrategy[Json]:
    inputs = {
        name: _row(dtype, shape) if shape == () else st.lists(_row(dtype, shape), max_size=5)
        for name, (dtype, shape) in INPUTS[signature].items()
    }
    whole = st.fixed_dictionaries(inputs)
    if len(inputs) == 1:
        whole |= next(iter(inputs.values()))
    return mostly(whole, ANY)


def _document(signature: str) -> st.SearchStrategy[Json]:
    name = {"signature_name": st.just(signature)} if signature != "serving_default" else {}
    rows, columns = {"instances": _rows(signature)}, {"inputs": _columns(signature)}
    usual = st.one_of(st.fixed_dictionaries({**name, **rows}), st.fixed_dictionaries({**name, **columns}))
    odd = st.fixed_dictionaries({}, optional={"signature_name": SCALAR, **rows, **columns, "more": SCALAR})
    return mostly(usual, odd)


DOCUMENTS = st.sampled_from(sorted(INPUTS)).flatmap(_document)
PREDICTIONS = DOCUMENTS.map(lambda document: Wire("POST", f"{MODEL}:predict".encode(), (), to_json(document)))
_ANYWHERE = ANY | ANY.map(lambda value: {"instances": [value]}) | ANY.map(lambda value: {"inputs": value})
ANY_JSON = _ANYWHERE.map(lambda value: Wire("POST", f"{MODEL}:predict".encode(), (), to_json(value)))

# --- classify and regress ---

_FEATURE = SCALAR | B64 | st.lists(SCALAR | B64, max_size=3) | ANY
_EXAMPLE = st.dictionaries(st.sampled_from(["x", "word", "ids", "other"]) | TEXT, _FEATURE, max_size=4) | ANY
_EXAMPLES = st.fixed_dictionaries(
    {"examples": st.lists(_EXAMPLE, max_size=4) | ANY},
    optional={"context": _EXAMPLE, "signature_name": st.sampled_from([*EXAMPLES, "two", "none"]) | SCALAR},
)


def _example_request(signature: str, document: Json) -> Wire:
    named = {"signature_name": signature, **document}
    return Wire("POST", f"{MODEL}:{EXAMPLES[signature]}".encode(), (), to_json(named))


EXAMPLE_REQUESTS = st.builds(_example_request, st.sampled_from(sorted(EXAMPLES)), _EXAMPLES)

# --- text that is hardly JSON ---

_TOKENS = st.sampled_from(
    [
        *(
            b"{",
            b"}",
            b"[",
            b"]",
            b",",
            b":",
            b'"',
            b"\\",
            b"\\u",
            b"\\ud800",
            b"\\udc00\\ud800",
            b"null",
            b"tru",
            b"NaN",
        ),
        *(b"-Infinity", b"Inf", b"-", b"1e", b"1e999999", b"-0", b".5", b"00"),
        *(b"\xef\xbb\xbf", b"\xff", b"\xc3", b"\x00", b"\n", b"/*"),
        *(b'"instances"', b'"inputs"', b'"signature_name"', b'{"b64":"', b'{"instances":['),
    ]
)
_LONG = repeated((b"1", 5_000), (b"[", 500), (b'{"a":', 500), (b"[", 100_000), (b"9.", 1), (b'"x",', 5_000))


@st.composite
def _damaged(draw: Any, data: st.SearchStrategy[bytes]) -> bytes:
    """Some bytes cut out, put in or written over, up to three times."""
    result = draw(data)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(result)))
        end = draw(st.integers(start, min(len(result), start + 8)))
        result = result[:start] + draw(mostly(_TOKENS | st.binary(max_size=4), _LONG, 30)) + result[end:]
    return result


DAMAGED_JSON = (
    _damaged(DOCUMENTS.map(to_json)) | st.lists(_TOKENS | _LONG, max_size=8).map(b"".join) | st.binary(max_size=200)
)
DAMAGED = DAMAGED_JSON.map(lambda body: Wire("POST", f"{MODEL}:predict".encode(), (), body))

# --- compressed bodies ---


def _zipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


_BOMB = st.just(8_000_000).map(lambda size: _zipped(b" " * size))
_SQUEEZED = st.one_of(
    DOCUMENTS.map(to_json).map(_zipped),
    _damaged(DOCUMENTS.map(to_json).map(_zipped)),
    DOCUMENTS.map(to_json).map(zlib.compress),
    DAMAGED_JSON.map(_zipped),
    st.tuples(DOCUMENTS.map(to_json), st.integers(0, 40)).map(lambda pair: _zipped(pair[0])[: pair[1]]),
    DOCUMENTS.map(to_json).map(lambda body: _zipped(body[:10]) + _zipped(body[10:])),
    _BOMB,
    st.just(_zipped(_zipped(b'{"instances": ["a"]}'))),
)
_ENCODINGS = st.sampled_from([b"gzip", b"GZIP", b"gzip, gzip", b"x-gzip", b"deflate", b"identity", b"br", b""])
COMPRESSED = st.builds(
    lambda body, encoding: Wire("POST", f"{MODEL}:predict".encode(), ((b"Content-Encoding", encoding),), body),
    _SQUEEZED,
    _ENCODINGS,
)

# --- paths, methods, headers ---

_ODD = st.sampled_from(
    [
        *(
            b"",
            b"toy",
            b"none",
            b"TOY",
            b"%74oy",
            b"%",
            b"%zz",
            b"%00",
            b"%2f",
            b"%2e%2e",
            b"..",
            b".",
            b"~",
            b"*",
            b"a b",
        ),
        *(
            b"\xff",
            b"%ff",
            b"\x7f",
            b"<b>",
            b'"',
            b"'",
            b"{}",
            b"|",
            b"^",
            b"@",
            b";",
            b"a=b",
            b"toy:predict",
            b"x" * 3_000,
        ),
    ]
)
_ODD = mostly(_ODD, repeated((b"x", 3_000), (b"%20", 1_000)), 30)
_NUMBERS = st.sampled_from(
    [b"1", b"01", b"0", b"-1", b"1.5", b"1e3", b"9" * 18, b"9" * 19, b"9" * 99, b"\xd9\xa1", b""]
)
_PARTS = st.one_of(
    st.sampled_from(
        [b"v1", b"V1", b"models", b"MODELS", b"versions", b"labels", b"metadata", b"healthz", b"page", b"live"]
    ),
    *(_ODD, _NUMBERS, st.binary(max_size=6)),
)
_VERBS = st.sampled_from(
    [b"", b":predict", b":classify", b":regress", b":PREDICT", b":", b":x", b"/metadata", b"/", b"//"]
)
_QUERIES = st.sampled_from([b"", b"", b"?", b"?x=1", b"?%", b"#a", b"?a#b", b"?x=%ff"])
_WHICH = st.sampled_from([b"", b"", b"/versions/", b"/labels/", b"/Versions/", b"/versions/1/labels/"])
_TARGETS = st.one_of(
    st.lists(_PARTS, max_size=6).map(lambda parts: b"/" + b"/".join(parts)),
    st.tuples(st.just(b"/v1/models/"), _ODD | st.just(b"toy"), _WHICH, _NUMBERS | _ODD, _VERBS, _QUERIES).map(b"".join),
    st.sampled_from(
        [
            *(b"/", b"/page/models", b"/page/page.js", b"/healthz/live", b"/healthz/ready", b"/healthz/"),
            *(
                b"/monitoring/prometheus/metrics",
                b"*",
                b"http://a/v1/models/toy",
                b"//",
                b"/v1",
                b"/v1/",
                b"/v1/models",
            ),
        ]
    ),
)
_METHODS = st.sampled_from(
    ["GET", "GET", "POST", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "get", "X"]
)
PATHS = st.builds(
    Wire, _METHODS, _TARGETS.map(lambda target: target.translate(None, b"\r\n ")), st.just(()), st.none() | DAMAGED_JSON
)

_NAMES = st.sampled_from(
    [
        *(b"Content-Type", b"Accept", b"Accept-Encoding", b"X-Request-Id", b"Authorization", b"Cookie", b"Expect"),
        *(b"Connection", b"Upgrade", b"HTTP2-Settings", b"Origin", b"Range", b"If-None-Match", b"Forwarded", b"TE"),
        *(b"X-Forwarded-For", b"X-Forwarded-Proto", b"X-Http-Method-Override", b"Host", b"Date", b"x" * 30),
    ]
)
_VALUES = st.one_of(
    st.sampled_from(
        [
            *(
                b"application/json",
                b"text/plain; charset=utf-16",
                b"multipart/form-data; boundary=x",
                b"gzip",
                b"close",
            ),
            *(
                b"keep-alive",
                b"Upgrade, HTTP2-Settings",
                b"h2c",
                b"websocket",
                b"100-continue",
                b"Bearer x",
                b"*",
                b"bytes=0-1",
            ),
        ]
    ),
    st.binary(max_size=60).map(lambda value: bytes(byte for byte in value if byte >= 32 and byte != 127)),
    repeated((b"x", 9_000)),
)
HEADERS = st.builds(
    lambda wire, headers: Wire(wire.method, wire.target, tuple(headers), wire.body),
    PREDICTIONS | PATHS,
    st.lists(st.tuples(_NAMES, _VALUES), min_size=1, max_size=6),
)


def _in_chunks(body: bytes, size: int, extension: bytes) -> Wire:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    chunks = b"".join(b"%x%s\r\n%s\r\n" % (len(piece), extension, piece) for piece in pieces)
    framing = ((b"Transfer-Encoding", b"chunked"),)
    return Wire("POST", f"{MODEL}:predict".encode(), framing, chunks + b"0\r\n\r\n")


CHUNKED = st.builds(
    _in_chunks, DOCUMENTS.map(to_json) | DAMAGED_JSON, st.integers(1, 5_000), st.sampled_from([b"", b";a=b", b" "])
).filter(lambda wire: len(wire.body or b"") < 100_000)

# Name -> requests, and their share of all.
KINDS: dict[str, tuple[st.SearchStrategy[Wire], float]] = {
    "near-valid predictions": (PREDICTIONS, 0.40),
    "any JSON": (ANY_JSON, 0.05),
    "damaged JSON": (DAMAGED, 0.15),
    "classify and regress": (EXAMPLE_REQUESTS, 0.12),
    "compressed": (COMPRESSED, 0.08),
    "odd paths and methods": (PATHS, 0.12),
    "odd headers": (HEADERS, 0.05),
    "chunked": (CHUNKED, 0.03),
}
# What is no HTTP: valid requests with damage anywhere.
DAMAGED_HTTP = _damaged(st.one_of(PREDICTIONS, PATHS, HEADERS, CHUNKED).map(Wire.data)) | st.binary(
    min_size=1, max_size=100
)
