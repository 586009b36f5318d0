"""A text as words, for what is counted beside the models: in any script, without a vocabulary."""

from __future__ import annotations

import re
import unicodedata

# Scripts that put no space between words (Chinese characters, kana) give one word a character.
UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")
APOSTROPHES = re.compile("['\u2019\u02bc]")


def words(text: str) -> list[str]:
    """The words of a text, case and compatibility forms folded; an apostrophe is dropped, so "don't" is "dont".

    >>> words("Don't MISS it!")
    ['dont', 'miss', 'it']
    """
    return WORD.findall(APOSTROPHES.sub("", unicodedata.normalize("NFKC", text).casefold()))
