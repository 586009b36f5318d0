"""What MLflow calls to load a logged SavedModel: `mlflow.pyfunc.load_model(...)`, `mlflow models serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from app.serving.predictor import Predictor


class TextClassifier:
    """A DataFrame with the column `text` in; label, confidence and probabilities out, row by row."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def predict(self, frame: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Classify every row; `probabilities` is a list in the order of the model's label names."""
        answer = self._predictor.predict(frame["text"].tolist())
        return pd.DataFrame(
            {
                "label": answer.labels,
                "confidence": answer.confidence.astype(float),
                "probabilities": answer.probabilities.astype(float).tolist(),
            },
            index=frame.index,
        )


def _load_pyfunc(path: str) -> TextClassifier:
    """Load the SavedModel at `path`; MLflow finds this function by its name."""
    return TextClassifier(Predictor(Path(path)))
