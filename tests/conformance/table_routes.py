"""Routes: which method and path leads where, and what everything else is told."""

from __future__ import annotations

from conformance.cases import EXAMPLES, TOY, VERSIONS, AnyBody, Body, Case, Error, Json, columns, rows

ROW = b'{"instances": ["a"]}'
SHORT = {"label": "short", "confidence": 0.5, "probabilities": [0.5, 0.5], "classes": ["short", "long"]}
BY_NAME = rows(SHORT)
ONE_EXAMPLE = b'{"examples": [{"x": 0.25}]}'
CLASSES = Json({"results": [[["low", 0.75], ["high", 0.25]]]})
AVAILABLE = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
STATUS = Json({"model_version_status": [{"version": "3", **AVAILABLE}]})
BEYOND_INT64 = "99999999999999999999"

POST_PATHS = [
    ("predict", f"{TOY}:predict", ROW, BY_NAME),
    ("predict with a version", f"{TOY}/versions/3:predict", ROW, BY_NAME),
    ("leading zeros of a version", f"{TOY}/versions/0003:predict", ROW, BY_NAME),
    ("path in capitals", "/V1/MODELS/toy/VERSIONS/3:predict", ROW, BY_NAME),
    ("path in mixed case", "/v1/Models/toy:predict", ROW, BY_NAME),
    ("percent-encoded letter of the name", "/v1/models/%74oy:predict", ROW, BY_NAME),
    ("percent-encoding in small letters", "/v1/models/to%79:predict", ROW, BY_NAME),
    ("name with a space", f"{VERSIONS}/versions/1:predict", ROW, rows(1)),
    ("predict by label", f"{VERSIONS}/labels/stable:predict", ROW, rows(1)),
    ("classify", f"{EXAMPLES}:classify", ONE_EXAMPLE, CLASSES),
    ("classify with a version", f"{EXAMPLES}/versions/1:classify", ONE_EXAMPLE, CLASSES),
    (
        "regress",
        f"{EXAMPLES}:regress",
        b'{"signature_name": "value", "examples": [{"x": 0.25}]}',
        Json({"results": [0.25]}),
    ),
    ("empty columns", f"{TOY}:predict", b'{"inputs": []}', columns({key: [] for key in SHORT})),
]

GET_PATHS = [
    ("status", TOY, STATUS),
    ("status of a version", f"{TOY}/versions/3", STATUS),
    ("status of a version with leading zeros", f"{TOY}/versions/03", STATUS),
    ("status of an unknown label", f"{TOY}/labels/nolabel", STATUS),
    ("status, path in capitals", "/V1/MODELS/toy", STATUS),
    ("status, name percent-encoded", "/v1/models/%74%6f%79", STATUS),
]

MALFORMED = [
    ("GET on predict", "GET", f"{TOY}:predict"),
    ("GET on classify", "GET", f"{EXAMPLES}:classify"),
    ("PUT on predict", "PUT", f"{TOY}:predict"),
    ("DELETE on a model", "DELETE", TOY),
    ("DELETE on predict", "DELETE", f"{TOY}:predict"),
    ("PUT on metadata", "PUT", f"{TOY}/metadata"),
    ("POST on the status", "POST", TOY),
    ("POST on metadata", "POST", f"{TOY}/metadata"),
    ("POST on the models", "POST", "/v1/models"),
    ("slash after the verb", "POST", f"{TOY}:predict/"),
    ("slash after the name", "GET", f"{TOY}/"),
    ("slash after metadata", "GET", f"{TOY}/metadata/"),
    ("slash after the models", "GET", "/v1/models/"),
    ("slash before the verb", "POST", f"{TOY}/:predict"),
    ("verb in capitals", "POST", f"{TOY}:PREDICT"),
    ("verb with one capital", "POST", f"{EXAMPLES}:Classify"),
    ("unknown verb", "POST", f"{TOY}:foo"),
    ("no verb", "POST", f"{TOY}:"),
    ("verb and more", "POST", f"{TOY}:predictions"),
    ("verb twice", "POST", f"{TOY}:predict:predict"),
    ("verb percent-encoded", "POST", f"{TOY}:pre%64ict"),
    ("colon percent-encoded", "POST", f"{TOY}%3Apredict"),
    ("version that is no number", "POST", f"{TOY}/versions/abc:predict"),
    ("negative version", "POST", f"{TOY}/versions/-3:predict"),
    ("version with a fraction", "GET", f"{TOY}/versions/3.0"),
    ("version percent-encoded", "GET", f"{TOY}/versions/%33"),
    ("empty version", "GET", f"{TOY}/versions/"),
    ("empty label", "POST", f"{VERSIONS}/labels/:predict"),
    ("empty name", "POST", "/v1/models/:predict"),
    ("version and label", "POST", f"{VERSIONS}/versions/1/labels/stable:predict"),
    ("label and version", "GET", f"{VERSIONS}/labels/stable/versions/1"),
    ("query after predict", "POST", f"{TOY}:predict?x=1"),
    ("query after a version", "GET", f"{TOY}/versions/3?x=1"),
    ("query after metadata", "GET", f"{TOY}/metadata?x=1"),
    ("metadata and more", "GET", f"{TOY}/metadata/signature_def"),
    ("nothing after v1", "GET", "/v1/"),
    ("another resource", "GET", "/v1/servables"),
]

NOTHING_THERE = [
    ("v1 without a slash", "GET", "/v1"),
    ("another version of the API", "GET", "/v2/models/toy"),
    ("prediction in another version of the API", "POST", "/v2/models/toy:predict"),
    ("no version of the API", "GET", "/models/toy"),
]

NO_SUCH_MODEL = [
    ("no model's name", "GET", "/v1/models", 400, "Missing model name in request."),
    ("a version of no model", "GET", "/v1/models/versions/1", 400, "Missing model name in request."),
    ("status of an unknown model", "GET", "/v1/models/none", 404, "Could not find any versions of model none"),
    ("status, name decoded", "GET", "/v1/models/no%20ne", 404, "Could not find any versions of model no ne"),
    ("status, slash in the name", "GET", "/v1/models/to%2Fy", 404, "Could not find any versions of model to/y"),
    # A name may hold anything but a slash and a colon.
    ("query after the name", "GET", f"{TOY}?x=1", 404, "Could not find any versions of model toy?x=1"),
    ("plus is no space", "GET", "/v1/models/two+versions", 404, "Could not find any versions of model two+versions"),
    ("the name's case counts", "GET", "/v1/models/TOY", 404, "Could not find any versions of model TOY"),
    ("status of an unknown version", "GET", f"{TOY}/versions/99", 404, "Could not find version 99 of model toy"),
    ("version of an unknown model", "GET", "/v1/models/none/versions/2", 404, "Could not find version 2 of model none"),
    ("unknown model", "POST", "/v1/models/none:predict", 404, "Servable not found for request: Latest(none)"),
    ("unknown version", "POST", f"{TOY}/versions/99:predict", 404, "Servable not found for request: Specific(toy, 99)"),
    (
        "unknown version of an unknown model",
        "POST",
        "/v1/models/none/versions/1:predict",
        404,
        "Servable not found for request: Specific(none, 1)",
    ),
    ("metadata of no model", "GET", "/v1/models/none/metadata", 404, "Servable not found for request: Latest(none)"),
    (
        "metadata of no version",
        "GET",
        f"{TOY}/versions/99/metadata",
        404,
        "Servable not found for request: Specific(toy, 99)",
    ),
    ("unknown label", "POST", f"{TOY}/labels/nolabel:predict", 400, "Unrecognized servable version label: nolabel"),
    (
        "unknown label, decoded",
        "POST",
        f"{TOY}/labels/no%20label:predict",
        400,
        "Unrecognized servable version label: no label",
    ),
    (
        "metadata of an unknown label",
        "GET",
        f"{TOY}/labels/nolabel/metadata",
        400,
        "Unrecognized servable version label: nolabel",
    ),
]

CASES = [
    *(Case(name, "POST", target, body, 200, expected) for name, target, body, expected in POST_PATHS),
    *(Case(name, "GET", target, None, 200, expected) for name, target, expected in GET_PATHS),
    *(
        Case(
            name, method, target, None if method == "GET" else ROW, 400, Error(f"Malformed request: {method} {target}")
        )
        for name, method, target in MALFORMED
    ),
    # TensorFlow Serving sends no text here.
    Case("version beyond int64", "POST", f"{TOY}/versions/{BEYOND_INT64}:predict", ROW, 400, AnyBody()),
    Case("status of a version beyond int64", "GET", f"{TOY}/versions/{BEYOND_INT64}", None, 400, AnyBody()),
    Case("HEAD on a model", "HEAD", TOY, None, 400, Body(b"")),
    Case("HEAD on predict", "HEAD", f"{TOY}:predict", None, 400, Body(b"")),
    *(
        Case(name, method, target, None if method == "GET" else ROW, 404, AnyBody())
        for name, method, target in NOTHING_THERE
    ),
    *(
        Case(name, method, target, None if method == "GET" else ROW, status, Error(text))
        for name, method, target, status, text in NO_SUCH_MODEL
    ),
]
