"""The contract's routes as OpenAPI (openapi.json), put to the server by schemathesis."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
import schemathesis
from fuzz_answers import BadAnswerError, Tally, check
from fuzz_requests import Wire
from schemathesis import GenerationMode, checks

SCHEMA = Path(__file__).with_name("openapi.json")
# That the server is not at fault is checked by our own rule, which knows the documented answers from 500 on.
CHECKS = [checks.response_schema_conformance, checks.content_type_conformance]


def operations() -> list[tuple[str, Any]]:
    """Every route with requests for it, right ones and wrong ones: name and hypothesis strategy."""
    schema = schemathesis.openapi.from_dict(json.loads(SCHEMA.read_text(encoding="utf-8")))
    found = []
    for result in schema.get_all_operations():
        operation = result.ok()
        modes = list(GenerationMode) if operation.path_parameters or operation.body else [GenerationMode.POSITIVE]
        found += [(f"{operation.label}, {mode.value}", operation.as_strategy(generation_mode=mode)) for mode in modes]
    return found


def asker(url: str, tally: Tally) -> Callable[[Any], None]:
    """A function that sends a case and holds its answer against the schema and the contract."""
    session = requests.Session()

    def ask(case: Any) -> None:
        arguments = case.as_transport_kwargs(base_url=url)
        prepared = session.prepare_request(
            requests.Request(**{key: arguments[key] for key in _PARTS if key in arguments})
        )
        response = session.send(prepared, timeout=60)
        tally.statuses[response.status_code] += 1
        target = (prepared.path_url or "/").encode("latin-1", "replace")
        headers = {name.lower(): value for name, value in response.headers.items()}
        check(Wire(prepared.method or "", target), response.status_code, headers, response.content)
        try:
            case.validate_response(response, checks=CHECKS)
        except AssertionError as error:
            raise BadAnswerError(str(error)) from error

    return ask


_PARTS = ("method", "url", "headers", "params", "json", "data", "files", "cookies")
