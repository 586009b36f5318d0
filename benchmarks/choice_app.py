"""The REST API as a bare ASGI application, for any ASGI server to run: what is measured is the server around it."""

from __future__ import annotations

import os
from pathlib import Path

from app.serving.http.rest import RestApi, RestLimits
from app.serving.metrics import ServingMetrics
from app.serving.model_config import ModelSettings
from app.serving.repository import ModelRepository
from app.serving.servable import Servable
from app.serving.service import PredictionService


def make() -> RestApi:
    """Serve the model that the environment names."""
    settings = ModelSettings(os.environ["CHOICE_NAME"], Path(os.environ["CHOICE_BASE_PATH"]))
    repository = ModelRepository([settings], Servable, poll_seconds=0)
    repository.start()
    service = PredictionService(repository, ServingMetrics(repository))
    return RestApi(service, RestLimits(), int(os.environ["CHOICE_THREADS"]))
