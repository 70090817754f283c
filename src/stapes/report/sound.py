"""A recording as an MP3 small enough for a page: 16 kHz, mono, 32 kbit/s, which every browser plays.

Imports PyAV, so it is imported only when there is something to encode.
"""

from __future__ import annotations

import tempfile
from typing import IO, Final

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream

from stapes.audio.mel import SampleReader
from stapes.audio.pcm import SAMPLE_RATE
from stapes.errors import OutputError

MIME_TYPE: Final = "audio/mpeg"
_ENCODER: Final = "libmp3lame"
_BITS_PER_SECOND: Final = 32_000
#: LAME's quality 7: 200 times real time on one core, twice as fast as its default, and here no worse
_EFFORT: Final = "7"
#: samples encoded at once: 16 s
_BLOCK_SAMPLES: Final = 1 << 18
#: above it the file is on the disk: 17 minutes
_MEMORY_LIMIT_BYTES: Final = 4 << 20


def encode_sound(recording: SampleReader) -> IO[bytes]:
    """Encode a recording in blocks; return the file, at its beginning, which the caller closes.

    Its header says how many samples the encoder put before the first and after the last one: browsers leave them out,
    so the page's times are the recording's. The same samples give the same bytes.
    Raises OutputError where PyAV was built without LAME.
    """
    if _ENCODER not in av.codecs_available:
        raise OutputError("this PyAV has no encoder for MP3: refer to the recording's file, or leave the sound out")
    file = tempfile.SpooledTemporaryFile(max_size=_MEMORY_LIMIT_BYTES, prefix="stapes-")  # noqa: SIM115 (the caller's)
    try:
        with av.open(file, "w", format="mp3", options={"write_xing": "1", "id3v2_version": "0"}) as container:
            stream = container.add_stream(_ENCODER, rate=SAMPLE_RATE, layout="mono", format="s16p")
            assert isinstance(stream, AudioStream)
            stream.bit_rate = _BITS_PER_SECOND
            stream.options = {"compression_level": _EFFORT}
            for start in range(0, recording.n_samples, _BLOCK_SAMPLES):
                samples = np.nan_to_num(recording.read(start, min(start + _BLOCK_SAMPLES, recording.n_samples)))
                whole = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)
                frame = AudioFrame.from_ndarray(whole[None], format="s16p", layout="mono")
                frame.sample_rate, frame.pts = SAMPLE_RATE, start
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file
