"""What MLflow calls to load a logged SavedModel: `mlflow.pyfunc.load_model(...)`, `mlflow models serve`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from app.errors import RequestError
from app.serving.predictor import Predictor

OUTPUT = "pyfunc.output"  # the key in MLflow's `model_config`
OUTPUTS = ("table", "label")


class TextClassifier:
    """A DataFrame with the column `text` in; label, confidence and probabilities out, row by row.

    With `output` "label" the labels alone, for those who take one value a row, as `mlflow.models.evaluate` does.
    """

    def __init__(self, predictor: Predictor, output: str = OUTPUTS[0]) -> None:
        if output not in OUTPUTS:
            raise RequestError(f"model_config: {OUTPUT} is {output!r}. Allowed: {', '.join(OUTPUTS)}")
        self._predictor = predictor
        self._output = output

    def predict(self, frame: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame | np.ndarray:
        """Classify every row; `probabilities` is a list in the order of the model's label names."""
        answer = self._predictor.predict(frame["text"].tolist())
        # As objects: MLflow and scikit-learn cannot read the string type that pandas 3 makes of a list of labels.
        labels = np.array(answer.labels, dtype=object)
        if self._output == "label":
            return labels
        return pd.DataFrame(
            {
                "label": pd.Series(labels, index=frame.index, dtype=object),
                "confidence": answer.confidence.astype(float),
                "probabilities": answer.probabilities.astype(float).tolist(),
            },
            index=frame.index,
        )


def _load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> TextClassifier:
    """Load the SavedModel at `path`; MLflow finds this function by its name."""
    return TextClassifier(Predictor(Path(path)), (model_config or {}).get(OUTPUT, OUTPUTS[0]))
