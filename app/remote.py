"""A classifier behind a URL: the client side of TensorFlow Serving's REST API."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import numpy as np
import requests

from app.errors import RequestError
from app.serving.predictions import Predictions

TIMEOUT_SECONDS = 60.0
REQUEST_TEXTS = 64  # what TensorFlow Serving, as docs/deployment.md sets it up on a CPU, takes in one request
URL_FORMS = "http://host:port or http://host:port/v1/models/NAME"

# A prefix before /v1 is what a proxy in front of the server may ask for.
_PATH = re.compile(
    r"(?P<prefix>.*?)(?P<model>/v1/models/(?P<name>[^/:]+)(/versions/\d+|/labels/[^/:]+)?)?(:predict)?/?"
)


class RemoteClassifier:
    """A classifier that a server of TensorFlow Serving's REST API runs.

    Its signature must take texts and give `label`, `confidence`, `probabilities` and `classes`, as an export
    of Valence does.

    Args:
        url: the server, http://host:port, or the model, http://host:port/v1/models/NAME with
            /versions/N or /labels/L, with or without :predict.
        model_name: the model to ask where the URL names only the server.
        timeout: seconds to wait for a connection, and for each answer.

    Every method raises `RequestError`: nothing answers there, or not in time; the server refuses, with its
    reason; or the answer is not that of such a classifier.
    """

    def __init__(self, url: str, model_name: str | None = None, timeout: float = TIMEOUT_SECONDS) -> None:
        self.url = predict_url(url, model_name)
        self._timeout = timeout
        self._session = requests.Session()

    @cached_property
    def label_names(self) -> tuple[str, ...]:
        """The names of the columns of `probabilities`, in order."""
        # An answer to no text holds no names: it takes one text to read them.
        return self._ask([""]).label_names

    def predict(self, texts: Sequence[str], batch_size: int | None = None) -> Predictions:
        """Classify the texts with one request for every `batch_size` of them; None: for every `REQUEST_TEXTS`."""
        batch_size = REQUEST_TEXTS if batch_size is None else batch_size
        if batch_size < 1:
            raise RequestError(f"batch_size is {batch_size}: allowed are whole numbers from 1")
        answers = [self._ask(texts[start : start + batch_size]) for start in range(0, len(texts), batch_size)]
        for answer in answers:
            if answer.label_names != self.label_names:  # a new version was loaded meanwhile
                raise RequestError(f"{self.url} changed its labels from {self.label_names} to {answer.label_names}")
        return _joined(answers, self.label_names)

    def _ask(self, texts: Sequence[str]) -> Predictions:
        """One request, in columns: the input's name may be any, and the answer is smaller than in rows."""
        # Half of a surrogate pair has no UTF-8 form; a text with one gets an answer all the same.
        inputs = [text.encode(errors="replace").decode() for text in texts]
        answer = self._post({"inputs": inputs})
        outputs = answer.get("outputs") if isinstance(answer, dict) else None
        try:
            return _read_outputs(outputs, len(texts))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            given = sorted(outputs) if isinstance(outputs, dict) else "something else"
            raise RequestError(
                f"{self.url} does not answer as a classifier does: expected the outputs label, confidence,"
                f" probabilities, classes, one row for each text; it gives {given} ({error})"
            ) from error

    def _post(self, body: dict[str, Any]) -> Any:
        try:
            response = self._session.post(self.url, json=body, timeout=self._timeout)
        except requests.Timeout as error:
            raise RequestError(f"{self.url} gave no answer within {self._timeout:g} seconds") from error
        except requests.ConnectionError as error:
            raise RequestError(
                f"no server answers at {self.url} ({_innermost(error)}). Start one with: python serve.py"
            ) from error
        except requests.RequestException as error:
            raise RequestError(f"cannot ask {self.url}: {error}") from error
        if response.status_code != 200:
            raise RequestError(f"{self.url} answered {response.status_code}: {_server_message(response)}")
        try:
            return response.json()
        except requests.JSONDecodeError as error:
            raise RequestError(f"{self.url} answered no JSON, but {response.text[:200]!r}") from error


def predict_url(url: str, model_name: str | None = None) -> str:
    """Return the URL that predictions are posted to. Raises `RequestError` for what is no URL of a model."""
    try:
        parts = urlsplit(url)
    except ValueError as error:  # half of the brackets of an IPv6 address, ...
        raise RequestError(f"{url!r} is no URL of a server ({error}): expected {URL_FORMS}") from error
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        hint = "" if "://" in url else f" Did you mean http://{url}?"
        raise RequestError(f"{url!r} is no URL of a server: expected {URL_FORMS}.{hint}")
    path = _PATH.fullmatch(parts.path)
    if path is None or "/v1/models" in path["prefix"]:
        raise RequestError(f"{url} has an unknown path: expected {URL_FORMS}[/versions/N|/labels/L][:predict]")
    if path["model"] is None and not model_name:
        raise RequestError(f"{url} names no model: name it with --model-name, or as {URL_FORMS}")
    if path["model"] and model_name and unquote(path["name"]) != model_name:
        raise RequestError(f"{url} names another model than --model-name {model_name}: leave one of them out")
    model = path["model"] or f"/v1/models/{quote(model_name or '', safe='')}"
    return f"{parts.scheme}://{parts.netloc}{path['prefix'].rstrip('/')}{model}:predict"


def _read_outputs(outputs: Any, count: int) -> Predictions:
    """Raises KeyError, TypeError, ValueError or IndexError where the outputs are not a classifier's."""
    label_names = tuple(outputs["classes"][0])
    labels = list(outputs["label"])
    confidence = np.array(outputs["confidence"], np.float32)
    probabilities = np.array(outputs["probabilities"], np.float32)
    shapes = (len(labels), *confidence.shape, *probabilities.shape)
    if shapes != (count, count, count, len(label_names)):
        raise ValueError(f"shapes {shapes} for {count} texts and {len(label_names)} labels")
    return Predictions(labels, confidence, probabilities, label_names)


def _joined(answers: Sequence[Predictions], label_names: tuple[str, ...]) -> Predictions:
    # The arrays of no rows give the shape where there are no answers.
    confidence = [np.empty(0, np.float32), *(answer.confidence for answer in answers)]
    probabilities = [
        np.empty((0, len(label_names)), np.float32),
        *(answer.probabilities for answer in answers),
    ]
    labels = [label for answer in answers for label in answer.labels]
    return Predictions(labels, np.concatenate(confidence), np.concatenate(probabilities), label_names)


def _server_message(response: requests.Response) -> str:
    try:
        return str(response.json()["error"])
    except (requests.JSONDecodeError, KeyError, TypeError):
        return response.text[:200].strip() or response.reason


def _innermost(error: BaseException) -> str:
    """The operating system's reason: `Connection refused` below three layers of libraries."""
    while error.__context__ is not None:
        error = error.__context__
    return getattr(error, "strerror", None) or str(error)
