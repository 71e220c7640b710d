"""Speech: sentences spoken by eSpeak NG, recordings of a telephone system, and what a microphone adds to them."""

from __future__ import annotations

import ctypes
import wave
from pathlib import Path
from typing import Any

import numpy as np

from qcomp.errors import QcompError
from qcomp.zoo import packages
from qcomp.zoo.case import Array

RATE = 16_000
RECORDINGS = "usr/share/asterisk/sounds/en_US_f_Allison"
# Numbers of eSpeak's interface (speak_lib.h).
_SYNCHRONOUS, _UTF8, _SPEED, _PITCH = 2, 1, 1, 3


class Speaker:
    """eSpeak NG, called in this process.  What it says depends on what it said before: use a new process or file."""

    def __init__(self) -> None:
        package = packages.python_package("espeakng-loader")
        library = packages.resource(package, "espeakng_loader/libespeak-ng.so")
        data = packages.resource(package, "espeakng_loader/espeak-ng-data")
        try:
            self._library: Any = ctypes.CDLL(str(library))
        except OSError as error:
            raise QcompError(
                f"cannot load eSpeak NG: {error}", where="qcomp.zoo", fix="make this case on Linux with glibc"
            ) from error
        self._rate = int(self._library.espeak_Initialize(_SYNCHRONOUS, 0, str(data).encode(), 0))
        self._parts: list[Array] = []
        # Kept: the library holds a bare pointer to it.
        self._callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)(
            self._take
        )
        self._library.espeak_SetSynthCallback(self._callback)
        # Breath is random, and seeded by the clock otherwise.
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))

    def say(self, text: str, voice: str, words_a_minute: int, pitch: int) -> Array:
        """The text as float64 [samples] at RATE, in units of int16; ``pitch`` is 0 to 99."""
        self._parts.clear()
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise QcompError(f"eSpeak NG has no voice {voice!r}", where="qcomp.zoo", fix="report this")
        self._library.espeak_SetParameter(_SPEED, words_a_minute, 0)
        self._library.espeak_SetParameter(_PITCH, pitch, 0)
        content = text.encode() + b"\0"
        status = self._library.espeak_Synth(content, len(content), 0, 1, 0, _UTF8, None, None)
        if status != 0 or not self._parts:
            raise QcompError(f"eSpeak NG did not say {text!r} ({status})", where="qcomp.zoo", fix="report this")
        return resampled(np.concatenate(self._parts), self._rate)

    def _take(self, samples: Any, count: int, events: int | None) -> int:
        if count > 0:
            self._parts.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0


def recordings() -> list[Path]:
    """The telephone system's announcements, 568 WAV files at 8 kHz, in a fixed order; QcompError without Debian."""
    folder = packages.resource(packages.debian_package("asterisk-core-sounds-en-wav"), RECORDINGS)
    return sorted(folder.rglob("*.wav"), key=lambda path: path.relative_to(folder).as_posix())


def read(path: Path) -> Array:
    """A mono int16 WAV file as float64 [samples] at RATE, in units of int16."""
    with wave.open(str(path)) as file:
        return resampled(np.frombuffer(file.readframes(file.getnframes()), "<i2"), file.getframerate())


def resampled(samples: Array, rate: int) -> Array:
    """The sound at RATE: its spectrum, cut or filled up with zeros."""
    count = round(len(samples) * RATE / rate)
    spectrum, bins = np.fft.rfft(samples.astype(np.float64)), count // 2 + 1
    spectrum = np.pad(spectrum, (0, max(0, bins - len(spectrum))))[:bins]
    return np.fft.irfft(spectrum, count) * count / len(samples)


def in_a_room(
    sound: Array, random: np.random.Generator, seconds: float, earliest_end: float, decibels: tuple[float, float]
) -> Array:
    """The sound within ``seconds`` of noise, float32 whole numbers of int16 at RATE.

    It ends at ``earliest_end`` seconds or later and is cut where it is too long; it is louder than the noise by the
    range in ``decibels``, and the noise is anything between white and brown.
    """
    length = round(seconds * RATE)
    spoken = sound
    if len(sound) > length:
        first = int(random.integers(0, len(sound) - length + 1))
        spoken = sound[first : first + length]
    start = int(random.integers(max(0, round(earliest_end * RATE) - len(spoken)), length - len(spoken) + 1))
    level = 10 ** random.uniform(2.6, 3.6)
    mixed = np.zeros(length)
    mixed[start : start + len(spoken)] = spoken * level / max(1.0, float(np.sqrt(np.mean(spoken**2))))
    frequencies = np.maximum(np.fft.rfftfreq(length), 1 / 400)
    spectrum = np.fft.rfft(random.standard_normal(length)) / frequencies ** random.uniform(0, 1)
    noise = np.fft.irfft(spectrum, length)
    mixed += noise / noise.std() * level * 10 ** (-random.uniform(*decibels) / 20)
    return np.clip(np.rint(mixed), -32768, 32767).astype(np.float32)
