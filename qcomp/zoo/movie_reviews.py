"""Sentences of film reviews that people rated, from the paper of VADER (Hutto and Gilbert, ICWSM 2014)."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass

import numpy as np

from qcomp.zoo import packages
from qcomp.zoo.case import Array

# Mean rating of 20 people, -4 to 4, from which on a sentence counts as one with an opinion.
LEAST_RATING = 0.8
TRAINING_SENTENCES, TEST_SENTENCES = 4500, 1500
ARCHIVE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
TABLE = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"


@dataclass(frozen=True)
class Sentences:
    """Texts and labels (int64 [n], 1 where they praise); no text is in both parts."""

    training: list[str]
    training_labels: Array
    test: list[str]
    test_labels: Array


def sentences() -> Sentences:
    """4,500 sentences to train on and 1,500 others, drawn from those with an opinion; each text once."""
    rated: dict[str, float] = {}
    archive = packages.resource(packages.source_package("vaderSentiment"), ARCHIVE)
    with tarfile.open(archive) as packed:
        member = packed.extractfile(TABLE)
        assert member is not None
        for line in member.read().decode("utf-8").splitlines():
            _, rating, text = line.split("\t", 2)
            rated.setdefault(text.strip(), float(rating))
    chosen = [(text, rating) for text, rating in rated.items() if abs(rating) >= LEAST_RATING]
    order = np.random.default_rng(2014).permutation(len(chosen))[: TRAINING_SENTENCES + TEST_SENTENCES]
    texts = [chosen[index][0] for index in order]
    labels = np.array([chosen[index][1] > 0 for index in order], np.int64)
    split = TRAINING_SENTENCES
    return Sentences(texts[:split], labels[:split], texts[split:], labels[split:])


def joined(texts: list[str], labels: Array, lengths: list[int], longest: int) -> tuple[list[str], Array]:
    """Neighbours of one label joined to texts of at most ``longest``, in the unit of ``lengths``."""
    parts: dict[int, list[tuple[str, int]]] = {0: [], 1: []}
    for text, label, length in zip(texts, labels.tolist(), lengths, strict=True):
        row = parts[label]
        if row and row[-1][1] + length <= longest:
            row[-1] = (f"{row[-1][0]} {text}", row[-1][1] + length)
        else:
            row.append((text, length))
    made = [(text, label) for label, row in parts.items() for text, _ in row]
    made = [made[index] for index in np.random.default_rng(1).permutation(len(made))]
    return [text for text, _ in made], np.array([label for _, label in made], np.int64)
