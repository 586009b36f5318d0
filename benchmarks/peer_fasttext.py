"""Worker of the accuracy table: fastText. Needs `fasttext` and numpy, nothing of ours.

Reads train.json, validation.json and test.json of the folder it is given ("texts", "label_ids"); leaves
probabilities.npy float[n, classes] and facts.json there. Source: Joulin et al., 2017, "Bag of tricks for efficient
text classification"; rate and epochs are chosen on validation from a small grid.
"""

import argparse
import json
import re
import time
from pathlib import Path

import fasttext
import numpy as np

GRID = ((0.1, 5), (0.1, 10), (0.25, 5), (0.25, 10), (0.5, 5), (0.5, 10))
FIXED = {"dim": 50, "wordNgrams": 2, "minCount": 1, "bucket": 2_000_000, "loss": "softmax", "verbose": 0}
MARKS = re.compile(r"([^\w\s])")
# Scripts that put no spaces between words: each character becomes a word of its own.
UNSPACED = re.compile(r"([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])")


def main() -> None:
    """Choose on validation, learn, answer on test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--classes", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--refit", action="store_true")
    chosen = parser.parse_args()
    parts = {name: read(chosen.folder, name) for name in ("train", "validation", "test")}
    started = time.process_time()
    lines, label_ids = parts["validation"]
    tried = {}
    for rate, epochs in GRID:
        model = learn([parts["train"]], chosen.folder, rate, epochs, chosen.seed)
        found = probabilities(model, lines, chosen.classes)
        of_truth = np.maximum(found[np.arange(len(lines)), label_ids], 1e-12)
        tried[rate, epochs] = (float((found.argmax(axis=1) == label_ids).mean()), float(np.log(of_truth).mean()))
    best = max(tried, key=lambda settings: tried[settings])
    learn_from = [parts["train"], parts["validation"]] if chosen.refit else [parts["train"]]
    model = learn(learn_from, chosen.folder, *best, chosen.seed)
    facts = {
        "cpu_seconds": time.process_time() - started,
        "parameters": int(np.prod(model.get_input_matrix().shape) + np.prod(model.get_output_matrix().shape)),
        "details": {"rate": best[0], "epochs": best[1], "validation_accuracy": tried[best][0], **FIXED},
    }
    np.save(chosen.folder / "probabilities.npy", probabilities(model, parts["test"][0], chosen.classes))
    (chosen.folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")


def read(folder: Path, name: str) -> tuple[list[str], np.ndarray]:
    """The texts of a split as lines of words, and its label ids."""
    content = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return [words(text) for text in content["texts"]], np.array(content["label_ids"])


def words(text: str) -> str:
    """Lower case, marks apart, on one line."""
    return " ".join(UNSPACED.sub(r" \1 ", MARKS.sub(r" \1 ", text.lower())).split())


def learn(parts: list, folder: Path, rate: float, epochs: int, seed: int) -> "fasttext.FastText._FastText":
    """Train on the parts. Its threads write over each other's updates, so a seed does not repeat bit for bit."""
    file = folder / "learn.txt"
    rows = (f"__label__{label_id} {line}\n" for lines, ids in parts for line, label_id in zip(lines, ids, strict=True))
    file.write_text("".join(rows), encoding="utf-8")
    return fasttext.train_supervised(str(file), lr=rate, epoch=epochs, thread=2, seed=seed, **FIXED)


def probabilities(model: "fasttext.FastText._FastText", lines: list[str], classes: int) -> np.ndarray:
    """float[n, classes]; what fastText leaves out of its answer has next to none."""
    found = np.full((len(lines), classes), 1e-9)
    for row, (names, shares) in enumerate(zip(*model.predict(lines, k=classes), strict=True)):
        for name, share in zip(names, shares, strict=True):
            found[row, int(name.removeprefix("__label__"))] = max(share, 1e-9)
    return found / found.sum(axis=1, keepdims=True)


if __name__ == "__main__":
    main()
