"""Bit for bit what the reference's ffmpeg command gives: needs that command, in the version the reference used.

Decoders that compute in float (aac, opus, vorbis, ac3, wma) differ between FFmpeg releases by one unit in some ten
of a million samples: docs/audio.md.
"""

from __future__ import annotations

import numpy as np
import pytest

from stapes.audio.load import load_audio
from tests.audio_files import encoded, ffmpeg_samples, ffmpeg_version, tone, wav_bytes
from tests.corpus import corpus_folder, needs_corpus

needs_ffmpeg = pytest.mark.skipif(
    not (ffmpeg_version() or "").startswith("5.1"),
    reason=f"needs the ffmpeg command in version 5.1, found {ffmpeg_version() or 'none'}",
)

# One of each way in which samples come about; the last bits of these decoders are the same in all releases.
EXACT = [
    "librispeech-test-clean",
    "ljspeech/LJ001-0001.flac",
    "fsdd/0_george_0.flac",
    "asterisk-core-sounds/demo-congrats.flac",
    "open-speech-repository/OSR_us_000_0034_8k.flac",
    "telephone-sim/1688-142285-0001.gsm8k.wav",
    "telephone-sim/1688-142285-0001.mulaw8k.wav",
    "formats/1089-134686-0000.adpcm_ms.wav",
    "formats/1089-134686-0000.g722.wav",
    "formats/1089-134686-0000.mp3_16k.mp3",
    "formats/1089-134686-0000.mp3_vbr_id3cover.mp3",
    "formats/1089-134686-0000.mpeg4_mp3.avi",
    "formats/1089-134686-0000.opus.opus",
    "formats/1089-134686-0000.pcm24.flac",
    "formats/1089-134686-0000.rate11025.wav",
    "formats/1089-134686-0000.speex.spx",
    "formats/1089-134686-0000.stereo_antiphase.wav",
    "formats/1089-134686-0000.u8.wav",
    "formats/audio-stereo-24-bit-44100Hz.wav",
    "broken/truncated.flac",
]
# The same, with a decoder whose last bit differs.
NEARLY = [
    "formats/1089-134686-0000.aac.m4a",
    "formats/1089-134686-0000.h264_opus.mkv",
    "formats/1089-134686-0000.opus.webm",
    "formats/1089-134686-0000.surround51.ac3",
    "formats/1089-134686-0000.two_audio_tracks.mp4",
    "formats/1089-134686-0000.vp8_vorbis.webm",
    "formats/1089-134686-0000.wma.wma",
]


def our_samples(path) -> np.ndarray:
    with load_audio(path) as recording:
        return (recording.read(0, recording.n_samples) * 32768).astype(np.int16)


def noise(n_channels: int, rate: int) -> bytes:
    generator = np.random.default_rng(rate + n_channels)
    samples = 6000 * generator.standard_normal((rate // 2, n_channels)) + 9000 * tone(rate // 2, rate=rate)[:, None]
    return wav_bytes(samples.clip(-32768, 32767).ravel(), rate=rate, n_channels=n_channels)


@needs_ffmpeg
@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("n_channels", [1, 2, 6])
def test_resampled_and_mixed_as_ffmpeg_does(rate, n_channels, tmp_path):
    path = tmp_path / "noise.wav"
    path.write_bytes(noise(n_channels, rate))
    np.testing.assert_array_equal(our_samples(path), ffmpeg_samples(path))


@needs_ffmpeg
@pytest.mark.parametrize("kind", ["wav24", "flac", "mp3", "mkv"])
def test_decoded_as_ffmpeg_does(kind, tmp_path):
    path = tmp_path / "tone"
    path.write_bytes(encoded(kind))
    np.testing.assert_array_equal(our_samples(path), ffmpeg_samples(path))


@needs_ffmpeg
@pytest.mark.filterwarnings("ignore::stapes.errors.StapesWarning")
def test_a_change_of_rate_in_the_middle_is_taken_as_ffmpeg_takes_it(tmp_path):
    path = tmp_path / "change.mp3"
    path.write_bytes(encoded("mp3") + encoded("mp3_slow") + encoded("mp3"))
    np.testing.assert_array_equal(our_samples(path), ffmpeg_samples(path))


@needs_corpus
@needs_ffmpeg
@pytest.mark.parametrize("name", EXACT)
@pytest.mark.filterwarnings("ignore::stapes.errors.StapesWarning")
def test_recordings_have_the_samples_of_ffmpeg(name):
    folder = corpus_folder()
    assert folder is not None
    path = folder / "audio" / name
    for file in sorted(path.iterdir())[:5] if path.is_dir() else [path]:
        np.testing.assert_array_equal(our_samples(file), ffmpeg_samples(file), err_msg=file.name)


@needs_corpus
@needs_ffmpeg
@pytest.mark.parametrize("name", NEARLY)
@pytest.mark.filterwarnings("ignore:.*sound tracks:stapes.errors.StapesWarning")
def test_other_decoders_differ_in_the_last_bit_of_a_few_samples(name):
    folder = corpus_folder()
    assert folder is not None
    ours, theirs = (read(folder / "audio" / name) for read in (our_samples, ffmpeg_samples))
    assert ours.size == theirs.size
    difference = np.abs(ours.astype(int) - theirs)
    assert difference.max() <= 1
    assert difference.sum() <= 20  # of 167,000 samples
