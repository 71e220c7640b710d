"""BERT's uncased tokenizer: words and punctuation, then the longest pieces of a vocabulary (arXiv:1810.04805)."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qcomp.zoo.case import Array

PADDING, UNKNOWN, START, END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
# Longer words are one unknown piece.
LONGEST_WORD = 100


@dataclass(frozen=True)
class WordPiece:
    """Pieces of a vocabulary and their numbers; a piece that goes on a word begins with ``##``."""

    numbers: dict[str, int]

    @staticmethod
    def read(path: Path) -> WordPiece:
        """The vocabulary of a ``vocab.txt``: a piece a line, numbered from 0."""
        return WordPiece({piece: number for number, piece in enumerate(path.read_text("utf-8").splitlines())})

    def tokens(self, text: str) -> list[int]:
        """Numbers of the text's pieces, without start and end."""
        return [number for word in _words(text) for number in self._pieces(word)]

    def inputs(self, texts: Sequence[str], length: int) -> tuple[Array, Array]:
        """Numbers and mask, int64 [n, length]: start, pieces (cut where too many), end, padding; mask 0 on padding."""
        ids = np.full((len(texts), length), self.numbers[PADDING], np.int64)
        mask = np.zeros((len(texts), length), np.int64)
        for row, text in enumerate(texts):
            found = [self.numbers[START], *self.tokens(text)[: length - 2], self.numbers[END]]
            ids[row, : len(found)] = found
            mask[row, : len(found)] = 1
        return ids, mask

    def _pieces(self, word: str) -> list[int]:
        found: list[int] = []
        start = 0
        while start < len(word) <= LONGEST_WORD:
            prefix = "##" if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if prefix + word[start:end] in self.numbers), None)
            if end is None:
                break
            found.append(self.numbers[prefix + word[start:end]])
            start = end
        return found if start == len(word) else [self.numbers[UNKNOWN]]


def _words(text: str) -> list[str]:
    """Lower case without accents; every punctuation mark and every Chinese character is a word."""
    spaced = []
    for character in unicodedata.normalize("NFD", text.lower()):
        kind = unicodedata.category(character)
        if character.isspace():
            spaced.append(" ")
        elif _is_punctuation(character, kind) or _is_ideograph(character):
            spaced.append(f" {character} ")
        elif kind != "Mn" and not kind.startswith("C") and character != "\ufffd":
            spaced.append(character)
    return "".join(spaced).split()


def _is_punctuation(character: str, kind: str) -> bool:
    # ASCII's symbols count too, though Unicode has some of them among the mathematical signs.
    return kind.startswith("P") or (character.isascii() and character.isprintable() and not character.isalnum())


def _is_ideograph(character: str) -> bool:
    return "\u4e00" <= character <= "\u9fff" or "\u3400" <= character <= "\u4dbf" or "\uf900" <= character <= "\ufaff"
