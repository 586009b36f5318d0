"""The subword vocabulary: learned from the training split alone, saved as one piece a line."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, Field

from data.errors import DataError

PAD, UNK, CLS = "[PAD]", "[UNK]", "[CLS]"
SPECIAL_PIECES = (PAD, UNK, CLS)  # in this order, so that the padding id is 0
PAD_ID, UNK_ID, CLS_ID = range(len(SPECIAL_PIECES))
CONTINUATION = "##"  # starts a piece that does not start a word


class VocabularyConfig(BaseModel, frozen=True, extra="forbid"):
    """How large a vocabulary to learn, and how often a piece must be seen to enter it."""

    size: int = Field(30_000, ge=100, le=200_000)
    min_frequency: int = Field(2, ge=1)


@dataclass(frozen=True)
class Vocabulary:
    """WordPiece pieces in the order of their ids: `[PAD]` 0, `[UNK]` 1, `[CLS]` 2, then the learned ones."""

    pieces: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.pieces[: len(SPECIAL_PIECES)] != SPECIAL_PIECES:
            raise DataError(f"a vocabulary starts with {', '.join(SPECIAL_PIECES)}, not {self.pieces[:3]}")

    def __len__(self) -> int:
        return len(self.pieces)

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the pieces in order."""
        return hashlib.sha256("\n".join(self.pieces).encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write one piece a line, UTF-8: the `vocab.txt` that BERT tokenizers read."""
        aside = path.with_name(path.name + ".part")
        with aside.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{piece}\n" for piece in self.pieces)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read what `save` wrote."""
        # Neither splitlines() nor read_text(): pieces may hold other line separators, U+2028 or a carriage return.
        return cls(tuple(path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")))


def learn_vocabulary(texts: Iterable[str], config: VocabularyConfig) -> Vocabulary:
    """Learn a WordPiece vocabulary from `texts`, which must come from the training split alone.

    The trainer is that of Hugging Face `tokenizers`: WordPiece (Schuster & Nakajima, 2012, "Japanese and Korean
    voice search") by byte-pair merges. Texts are case-folded, stripped of accents and split at white space,
    punctuation and around every Chinese character, as BERT does (Devlin et al., 2019). Only the list of pieces
    is taken from here; ids always come from `data.pipeline.Tokenizer`, since the two differ on rare characters.

    Raises:
        DataError: the texts hold no character that a piece could be made of.
    """
    texts = [_fold(text) for text in texts]
    # The trainer numbers single characters inside words in the order in which a randomly seeded hash map yields
    # them, and breaks ties between merges by number: the same texts gave another vocabulary on every run. A first
    # round without merges finds those characters; given to the second round in a fixed order, they fix the rest.
    single = _train(texts, size=0, min_frequency=1, given=SPECIAL_PIECES)
    if len(single) == len(SPECIAL_PIECES):
        raise DataError("the training texts hold nothing but white space and control characters: no piece to learn")
    inside = sorted(piece for piece in single if piece.startswith(CONTINUATION) and piece not in SPECIAL_PIECES)
    return Vocabulary(tuple(_train(texts, config.size, config.min_frequency, given=(*SPECIAL_PIECES, *inside))))


def _fold(text: str) -> str:
    """Fold case and compatibility forms as FastBertTokenizer does, Unicode's NFKC_Casefold.

    Lower case alone, BERT's own rule, would learn pieces that no text is ever cut into: it keeps a final sigma, a
    sharp s and fullwidth punctuation, which the tokenizer turns into a plain sigma, `ss` and ASCII.
    """
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _train(texts: Sequence[str], size: int, min_frequency: int, given: Sequence[str]) -> list[str]:
    """Return the pieces in the order of their ids; those `given` come first, every single character is kept."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token=UNK))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, min_frequency=min_frequency, special_tokens=list(given), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    ids = tokenizer.get_vocab()
    return sorted(ids, key=ids.__getitem__)
