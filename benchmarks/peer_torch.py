"""Worker of the accuracy table: an LSTM or a Transformer encoder in PyTorch. Needs `torch` and numpy, nothing of ours.

Reads train.json, validation.json and test.json of the folder it is given ("texts", "label_ids"); leaves
probabilities.npy float[n, classes] and facts.json there. Words in lower case, marks apart, the commonest 20,000 that
stand in two training texts; the first 256 of a text. AdamW with warm-up and cosine, batches of like lengths, the epoch
with the lowest log loss on validation.
"""

import argparse
import collections
import copy
import json
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

WORDS, LENGTH, BATCH, EPOCHS, PATIENCE = 20_000, 256, 64, 8, 2
PAD, UNKNOWN = 0, 1
RATES = {"lstm": 2e-3, "transformer": 5e-4}
# A script without spaces between words gives one token a character.
TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[^\W\u3040-\u9fff\uf900-\ufaff]+|[^\w\s]")

Rows = list[list[int]]


class LSTM(nn.Module):
    """Embedding, bidirectional LSTM over the real tokens, the largest state of each unit."""

    def __init__(self, words: int, classes: int, size: int = 128) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, size, padding_idx=PAD)
        nn.init.normal_(self.embedding.weight[1:].data, std=0.05)
        self.lstm = nn.LSTM(size, size, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * size, classes)
        self.dropout = nn.Dropout(0.4)

    def forward(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """int64[batch, time], int64[batch] -> logits float32[batch, classes]."""
        embedded = self.dropout(self.embedding(ids))
        packed = nn.utils.rnn.pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        states, _ = self.lstm(packed)
        states, _ = nn.utils.rnn.pad_packed_sequence(states, batch_first=True, padding_value=-1e4)
        return self.head(self.dropout(states.amax(dim=1)))


class Transformer(nn.Module):
    """Embedding and learned positions, two pre-norm encoder layers, the mean over real tokens."""

    def __init__(self, words: int, classes: int, size: int = 128) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, size, padding_idx=PAD)
        self.position = nn.Embedding(LENGTH, size)
        nn.init.normal_(self.embedding.weight[1:].data, std=0.05)
        nn.init.normal_(self.position.weight, std=0.02)
        layer = nn.TransformerEncoderLayer(
            size, 4, 4 * size, dropout=0.1, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(size), enable_nested_tensor=False)
        self.head = nn.Linear(size, classes)
        self.dropout = nn.Dropout(0.3)

    def forward(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """int64[batch, time], int64[batch] -> logits float32[batch, classes]."""
        real = ids != PAD
        embedded = self.dropout(self.embedding(ids) + self.position.weight[: ids.shape[1]])
        states = self.encoder(embedded, src_key_padding_mask=~real)
        mean = (states * real[..., None]).sum(dim=1) / lengths[:, None]
        return self.head(self.dropout(mean))


MODELS = {"lstm": LSTM, "transformer": Transformer}


def main() -> None:
    """Learn, choose the epoch on validation, answer on test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", choices=list(MODELS), required=True)
    parser.add_argument("--classes", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--refit", action="store_true", help="has no effect: validation is needed for the epoch")
    chosen = parser.parse_args()
    torch.manual_seed(chosen.seed)
    parts = {name: read(chosen.folder, name) for name in ("train", "validation", "test")}
    started = time.process_time()
    vocabulary = learn_vocabulary(parts["train"][0])
    rows = {name: encode(tokens, vocabulary) for name, (tokens, _) in parts.items()}
    labels = {name: torch.tensor(label_ids) for name, (_, label_ids) in parts.items()}
    model = MODELS[chosen.model](len(vocabulary) + 2, chosen.classes)
    history = fit(model, rows, labels, RATES[chosen.model])
    facts = {
        "cpu_seconds": time.process_time() - started,
        "parameters": sum(weights.numel() for weights in model.parameters()),
        "details": {"validation_log_loss": history, "torch": torch.__version__, "vocabulary": len(vocabulary) + 2},
    }
    np.save(chosen.folder / "probabilities.npy", functional.softmax(predict(model, rows["test"]), dim=1).numpy())
    (chosen.folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")


def read(folder: Path, name: str) -> tuple[list[list[str]], list[int]]:
    """The texts of a split as tokens, and its label ids."""
    content = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return [TOKEN.findall(text.lower()) for text in content["texts"]], content["label_ids"]


def learn_vocabulary(texts: list[list[str]]) -> dict[str, int]:
    """Token -> id from 2 on, by how many texts hold it."""
    counts = collections.Counter(token for tokens in texts for token in set(tokens))
    kept = [token for token, count in counts.most_common(WORDS - 2) if count > 1]
    return {token: place + 2 for place, token in enumerate(kept)}


def encode(texts: list[list[str]], vocabulary: dict[str, int]) -> Rows:
    """Ids of the first tokens; a text without any is one unknown token."""
    return [[vocabulary.get(token, UNKNOWN) for token in tokens[:LENGTH]] or [UNKNOWN] for tokens in texts]


def batch(rows: Rows, places: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Some rows, padded to the longest of them, and their lengths."""
    chosen = [torch.tensor(rows[place]) for place in places]
    return nn.utils.rnn.pad_sequence(chosen, batch_first=True), torch.tensor([len(row) for row in chosen])


def shuffled(rows: Rows) -> Iterator[list[int]]:
    """Places of the rows of each batch: rows of like lengths go together, batches and rows in random order."""
    order = torch.randperm(len(rows)).tolist()
    pools = [order[start : start + 50 * BATCH] for start in range(0, len(order), 50 * BATCH)]
    batches = []
    for pool in pools:
        pool.sort(key=lambda place: len(rows[place]))
        batches += [pool[start : start + BATCH] for start in range(0, len(pool), BATCH)]
    for number in torch.randperm(len(batches)).tolist():
        yield batches[number]


def fit(model: nn.Module, rows: dict[str, Rows], labels: dict[str, torch.Tensor], rate: float) -> list[float]:
    """Train until validation gets no better, leave the best weights; the log loss of each epoch on validation."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.01)
    steps = EPOCHS * len(list(shuffled(rows["train"])))
    warm = max(1, steps // 10)

    def factor(step: int) -> float:
        return (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    history: list[float] = []
    best = copy.deepcopy(model.state_dict())
    for _ in range(EPOCHS):
        model.train()
        for places in shuffled(rows["train"]):
            optimizer.zero_grad(set_to_none=True)
            logits = model(*batch(rows["train"], places))
            functional.cross_entropy(logits, labels["train"][places], label_smoothing=0.05).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        history.append(float(functional.cross_entropy(predict(model, rows["validation"]), labels["validation"])))
        if history[-1] == min(history):
            best = copy.deepcopy(model.state_dict())
        elif len(history) - 1 - history.index(min(history)) >= PATIENCE:
            break
    model.load_state_dict(best)
    return history


@torch.inference_mode()
def predict(model: nn.Module, rows: Rows) -> torch.Tensor:
    """Logits float32[n, classes], in the order of the rows; batches of like lengths."""
    model.eval()
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
    found = [model(*batch(rows, order[start : start + 256])) for start in range(0, len(order), 256)]
    logits = torch.cat(found)
    return logits[torch.argsort(torch.tensor(order))]


if __name__ == "__main__":
    main()
