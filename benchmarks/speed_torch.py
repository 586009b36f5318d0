"""The peer's side of speed.py: the same networks in PyTorch, one request a line on stdin, one answer a line on stdout.

Runs in an environment of its own, with torch and numpy and nothing of this project:

    python3 -m venv torchvenv && torchvenv/bin/pip install torch==2.13.0 numpy
"""

from __future__ import annotations

import csv
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

NOT_WORDS = re.compile(r"[!\"#$%&()*+,\-./:;<=>?@\[\\\]^_`{|}~']")


class LSTM(nn.Module):
    """Embedding, dropout, oneDNN's LSTM, masked maximum over time, dropout, one logit."""

    def __init__(self, sizes: dict[str, Any]) -> None:
        super().__init__()
        dim, hidden, both = sizes["embedding_dim"], sizes["hidden_dim"], sizes["bidirectional"]
        self.embedding = nn.Embedding(sizes["vocabulary_size"], dim, padding_idx=0)
        self.lstm = nn.LSTM(dim, hidden, batch_first=True, bidirectional=both)
        self.dropout = nn.Dropout(0.3)
        self.logit = nn.Linear(hidden * (2 if both else 1), 1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(self.dropout(self.embedding(ids)))
        pooled = states.masked_fill((ids == 0)[..., None], -1e4).amax(1)
        return self.logit(self.dropout(pooled)).squeeze(1)


class Transformer(nn.Module):
    """Embedding and learned positions, dropout, nn.TransformerEncoder, masked mean, dropout, one logit."""

    def __init__(self, sizes: dict[str, Any]) -> None:
        super().__init__()
        dim = sizes["embedding_dim"]
        self.embedding = nn.Embedding(sizes["vocabulary_size"], dim, padding_idx=0)
        self.position = nn.Embedding(sizes["sequence_length"], dim)
        layer = nn.TransformerEncoderLayer(
            dim, sizes["num_heads"], sizes["intermediate_dim"], dropout=0.1, activation="gelu", batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, sizes["num_layers"])
        self.early, self.late = nn.Dropout(0.2), nn.Dropout(0.3)
        self.logit = nn.Linear(dim, 1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        states = self.early(self.embedding(ids) + self.position.weight[: ids.shape[1]])
        states = self.encoder(states, src_key_padding_mask=ids == 0)
        mask = (ids != 0)[:, : states.shape[1], None]  # the nested-tensor path cuts to the longest row
        return self.logit(self.late((states * mask).sum(1) / mask.sum(1).clamp(min=1))).squeeze(1)


def make_step(model: nn.Module, sizes: dict[str, Any]) -> Callable[[], None]:
    """Return one training step on a batch of full rows: forward, backward, clip, Adam."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    shape = (sizes["batch_size"], sizes["sequence_length"])
    ids = torch.randint(2, sizes["vocabulary_size"], shape)
    targets = torch.randint(0, 2, shape[:1]).float()
    model.train()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.binary_cross_entropy_with_logits(model(ids), targets).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def make_prediction(model: nn.Module, sizes: dict[str, Any]) -> Callable[[], None]:
    """Return the work from a file of texts to a file of labels: read, split into words, batch by length, write."""
    source, batch_size, limit = Path(sizes["texts"]), sizes["predict_batch_size"], sizes["sequence_length"]

    def texts() -> list[str]:
        with source.open(encoding="utf-8", newline="") as file:
            return [row["text"] for row in csv.DictReader(file)]

    counts = Counter(word for text in texts() for word in words(text))
    ids_of = {word: i + 2 for i, (word, _) in enumerate(counts.most_common(sizes["vocabulary_size"] - 2))}

    def predict() -> None:
        rows = texts()
        encoded = [[ids_of.get(word, 1) for word in words(text)[:limit]] or [1] for text in rows]
        probability = torch.empty(len(rows))
        order = sorted(range(len(rows)), key=lambda row: len(encoded[row]))
        with torch.inference_mode():
            for batch in (order[start : start + batch_size] for start in range(0, len(order), batch_size)):
                ids = torch.zeros(len(batch), len(encoded[batch[-1]]), dtype=torch.long)
                for place, row in enumerate(batch):
                    ids[place, : len(encoded[row])] = torch.tensor(encoded[row])
                probability[torch.tensor(batch)] = torch.sigmoid(model(ids))
        with Path(sizes["answers"]).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label", "confidence"])
            for text, value in zip(rows, probability.tolist(), strict=True):
                writer.writerow([text, "good" if value >= 0.5 else "bad", max(value, 1 - value)])

    model.eval()
    return predict


def words(text: str) -> list[str]:
    return NOT_WORDS.sub("", text.lower()).split()


def requests() -> Iterator[dict[str, Any]]:
    for line in sys.stdin:
        yield json.loads(line)


def main() -> None:
    sizes = json.loads(sys.argv[1])
    torch.set_num_threads(sizes["threads"])
    torch.manual_seed(0)
    made: dict[tuple[str, str], Callable[[], None]] = {}
    for request in requests():
        key = (request["what"], request["model"])
        if key not in made:
            model = {"lstm": LSTM, "transformer": Transformer}[request["model"]](sizes)
            made[key] = {"train": make_step, "predict": make_prediction}[request["what"]](model, sizes)
        seconds = []
        for _ in range(request["times"]):
            started = time.perf_counter()
            made[key]()
            seconds.append(time.perf_counter() - started)
        print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main()
