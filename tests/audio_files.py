"""Small recordings for tests: tones in any container and codec."""

from __future__ import annotations

import io
import subprocess
import wave
from fractions import Fraction
from functools import cache
from shutil import which
from typing import Any

import av
import numpy as np

# Container, codec and encoder rate of everyday recordings; all encoders ship with PyAV.
EVERYDAY = {
    "wav": ("wav", "pcm_s16le", 16_000),
    "wav24": ("wav", "pcm_s24le", 44_100),
    "flac": ("flac", "flac", 48_000),
    "mp3": ("mp3", "libmp3lame", 44_100),
    "m4a": ("mp4", "aac", 44_100),
    "ogg": ("ogg", "libopus", 48_000),
    "webm": ("webm", "libopus", 48_000),
    "mkv": ("matroska", "flac", 16_000),
    "aac": ("adts", "aac", 44_100),
    "ts": ("mpegts", "mp2", 48_000),
}

_OTHERS = {"mp3_slow": ("mp3", "libmp3lame", 22_050)}


def tone(n_samples: int, *, rate: int = 16_000, hertz: float = 440.0) -> np.ndarray:
    """A sine of half full scale: float32 (n_samples,)."""
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(n_samples) / rate)).astype(np.float32)


def wav_bytes(samples: np.ndarray, *, rate: int = 16_000, n_channels: int = 1) -> bytes:
    """int16 samples, channels interleaved, as a wav file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(n_channels)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


@cache
def encoded(kind: str, duration_s: float = 1.0, hertz: float = 440.0) -> bytes:
    """A mono tone as a file of one of the EVERYDAY kinds."""
    container_name, codec, rate = {**EVERYDAY, **_OTHERS}[kind]
    file = io.BytesIO()
    with av.open(file, "w", format=container_name) as container:
        stream = container.add_stream(codec, rate=rate)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"
        resampler = av.AudioResampler(stream.format, "mono", rate, stream.frame_size or 1024)
        signal = tone(round(duration_s * rate), rate=rate, hertz=hertz)
        frame = av.AudioFrame.from_ndarray(signal[None], format="flt", layout="mono")
        frame.sample_rate = rate
        frame.pts, frame.time_base = 0, Fraction(1, rate)
        for block in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(block))
        container.mux(stream.encode(None))
    return file.getvalue()


@cache
def video(with_sound: bool) -> bytes:
    """Ten grey pictures as mp4, with one second of sound or without."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        picture_stream = container.add_stream("mpeg4", rate=10)
        picture_stream.width = picture_stream.height = 32
        sound_stream = container.add_stream("aac", rate=16_000, layout="mono") if with_sound else None
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 99, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(picture_stream.encode(frame))
        container.mux(picture_stream.encode(None))
        if sound_stream is not None:
            sound = av.AudioFrame.from_ndarray(tone(16_000)[None], format="fltp", layout="mono")
            sound.sample_rate, sound.pts = 16_000, 0
            for block in [*_cut(sound), None]:
                container.mux(sound_stream.encode(block))
    return file.getvalue()


def _cut(frame: av.AudioFrame) -> list[av.AudioFrame]:
    resampler = av.AudioResampler("fltp", "mono", frame.sample_rate, 1024)
    return [*resampler.resample(frame), *resampler.resample(None)]


@cache
def ffmpeg_version() -> str | None:
    """The version of the `ffmpeg` command, None without one."""
    if which("ffmpeg") is None:
        return None
    output = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, check=True).stdout
    return output.split()[2]


def ffmpeg_samples(path) -> np.ndarray:
    """int16 samples as the reference gets them: `whisper.audio.load_audio`'s own command."""
    command = ["ffmpeg", "-nostdin", "-threads", "0", "-i", str(path), "-f", "s16le", "-ac", "1"]
    command += ["-acodec", "pcm_s16le", "-ar", "16000", "-"]
    return np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.int16)


#: one sound track: where each stretch begins in the container's time, and its samples, (n,) or (n, channels), at 16 kHz
Track = list[tuple[float, np.ndarray]]


def muxed(
    *tracks: Track,
    container_name: str = "matroska",
    codec: str = "pcm_s16le",
    video_s: float = 0.0,
    languages: tuple[str, ...] = (),
) -> bytes:
    """Sound tracks with separate timestamps, beside so many seconds of grey pictures that begin at 0."""
    file = io.BytesIO()
    with av.open(file, "w", format=container_name) as container:
        pictures = container.add_stream("mpeg4" if container_name != "flv" else "flv1", rate=10) if video_s else None
        streams = []
        for number, track in enumerate(tracks):
            n_channels = 1 if track[0][1].ndim == 1 else track[0][1].shape[1]
            stream = container.add_stream(codec, rate=16_000, layout={1: "mono", 2: "stereo"}[n_channels])
            assert isinstance(stream, av.AudioStream)
            if number < len(languages):
                stream.metadata["language"] = languages[number]
            streams.append(stream)
        packets = [packet for stream, track in zip(streams, tracks, strict=True) for packet in _encoded(stream, track)]
        if pictures is not None:
            packets += _pictures(pictures, video_s)
        packets.sort(key=lambda packet: float(packet.dts * packet.time_base))
        for packet in packets:
            container.mux(packet)
    return file.getvalue()


def _encoded(stream: av.AudioStream, track: Track) -> list[Any]:
    packets: list[Any] = []
    layout = stream.layout.name
    for start_s, samples in track:
        whole = np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)
        whole = whole if samples.dtype == np.float32 else samples.astype(np.int16)
        size = stream.frame_size or 1024
        for at in range(0, len(whole), size):
            block = np.ascontiguousarray(whole[at : at + size].reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout=layout)
            frame.sample_rate = 16_000
            resampler = av.AudioResampler(stream.format, layout, 16_000)
            for one in resampler.resample(frame):
                one.pts, one.time_base = round(start_s * 16_000) + at, Fraction(1, 16_000)
                packets += stream.encode(one)
    return [*packets, *stream.encode(None)]


def _pictures(stream: Any, duration_s: float) -> list[Any]:
    stream.width = stream.height = 32
    packets: list[Any] = []
    for number in range(round(duration_s * 10)):
        frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 99, np.uint8), format="rgb24")
        frame.pts, frame.time_base = number, Fraction(1, 10)
        packets += stream.encode(frame)
    return [*packets, *stream.encode(None)]
