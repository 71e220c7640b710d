"""Sounds for the wake word: rates, levels and rows of windows; recall as it is defined."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.errors import QcompError
from qcomp.zoo import packages, speech, wakeword


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050])
def test_a_tone_keeps_its_frequency_and_level_at_another_rate(rate: int) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    found = speech.resampled(tone, rate)
    assert len(found) == speech.RATE
    assert int(np.argmax(np.abs(np.fft.rfft(found)))) == 440
    assert np.abs(found).max() == pytest.approx(1, abs=1e-6)


def test_a_sound_stands_in_noise_and_ends_late_enough() -> None:
    random = np.random.default_rng(0)
    sound = 1000 * np.ones(4000)
    for _ in range(20):
        clip = speech.in_a_room(sound, random, 2.4, 1.3, (40.0, 50.0))
        assert clip.shape == (38_400,) and clip.dtype == np.float32
        assert np.array_equal(clip, np.rint(clip))
        loud = np.flatnonzero(clip > clip.max() / 2)
        assert loud[-1] + 1 >= 1.3 * speech.RATE and loud[-1] - loud[0] == pytest.approx(4000, abs=40)


def test_a_long_sound_is_cut() -> None:
    clip = speech.in_a_room(1000 * np.ones(60_000), np.random.default_rng(0), 2.4, 1.3, (40.0, 50.0))
    assert len(clip) == 38_400 and clip.min() > clip.max() / 2


def test_windows_of_a_clip_are_eight_frames_apart() -> None:
    frames = wakeword.FRAMES + (wakeword.WINDOWS - 1) * wakeword.STEP
    clips = np.arange(2 * frames * 32, dtype=np.float32).reshape(2, frames, 32)
    found = wakeword.windows(clips)
    assert found.shape == (42, 76, 32, 1)
    assert np.array_equal(found[20, :, :, 0], clips[0, 160:236])
    assert np.array_equal(found[22, :, :, 0], clips[1, 8:84])


def test_recall_counts_what_stands_above_the_alarms_allowed() -> None:
    positive, negative = np.array([0.9, 0.7, 0.5, 0.1]), np.array([0.8, 0.6, 0.2, 0.2])
    assert [wakeword.recall(positive, negative, alarms) for alarms in (0, 1, 2)] == [0.25, 0.5, 0.75]


@pytest.mark.slow
def test_without_a_debian_mirror_there_are_more_spoken_phrases(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise QcompError(f"cannot fetch {name}")

    monkeypatch.setattr(packages, "debian_package", refuse)
    monkeypatch.setattr(wakeword, "TEST_CLIPS", (1, 1, 2))
    monkeypatch.setattr(wakeword, "CALIBRATION_CLIPS", (1, 1, 1))
    made = wakeword._clips()
    assert made["test"].shape == (4, 236, 32) and made["calibration"].shape == (3, 236, 32)
    assert made["labels"].tolist() == [1, 0, 0, 0]
    assert "cannot fetch asterisk" in str(made["missing"])
