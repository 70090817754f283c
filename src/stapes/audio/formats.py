"""What may be opened: the demuxers, the audio decoders and the sizes that stapes lets libav touch.

An allow-list, because libav also reads playlists, screens, cameras and addresses, and because each parser is
attack surface. A format is here because people record or exchange speech in it.
"""

from __future__ import annotations


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Names as libavformat prints them; one demuxer may carry several (mov,mp4,m4a,3gp,3g2,mj2).
# Absent on purpose: hls, concat, dash, sdp, rtsp, ffmetadata, image and subtitle formats, tracker music.
DEMUXERS = _names(
    """
    aac ac3 aiff amr amrnb amrwb ape asf au avi caf dts eac3 flac flv g722 gsm loas
    m4a matroska mov mp3 mp4 3gp 3g2 mpc mpc8 mpeg mpegts nistsphere ogg oma rm
    tak truehd tta voc w64 wav webm wv
    """
)

AUDIO_DECODERS = _names(
    """
    aac aac_latm ac3 alac amrnb amrwb libopencore_amrnb libopencore_amrwb ape atrac3 atrac3p atrac3plus
    cook dca eac3 flac g722 g723_1 g726 g726le g729 gsm gsm_ms ilbc mlp mp1 mp1float mp2 mp2float
    mp3 mp3float mp3adu mp3adufloat mpc7 mpc8 nellymoser opus libopus sipr speex libspeex
    tak truehd tta vorbis libvorbis wavpack wmalossless wmapro wmav1 wmav2 wmavoice
    adpcm_ima_qt adpcm_ima_wav adpcm_ms adpcm_swf adpcm_yamaha
    pcm_alaw pcm_mulaw pcm_bluray pcm_dvd
    pcm_f16le pcm_f24le pcm_f32be pcm_f32le pcm_f64be pcm_f64le
    pcm_s8 pcm_s8_planar pcm_s16be pcm_s16be_planar pcm_s16le pcm_s16le_planar
    pcm_s24be pcm_s24le pcm_s24le_planar pcm_s32be pcm_s32le pcm_s32le_planar pcm_s64be pcm_s64le
    pcm_u8 pcm_u16be pcm_u16le pcm_u24be pcm_u24le pcm_u32be pcm_u32le
    """
)

MAX_CHANNELS = 64
MIN_SAMPLE_RATE = 100  # Hz; a lower rate turns few bytes into hours
MAX_SAMPLE_RATE = 768_000  # Hz; the highest rate that any studio format knows

#: how files begin, as regular expressions: to say of one that cannot be opened what it was meant to be
BEGINNINGS = {
    "a wav": rb"(RIFF|RF64|BW64).{4}WAVE",
    "a w64": rb"riff\x2e\x91\xcf\x11",
    "an aiff": rb"FORM.{4}AIF[FC]",
    "a caf": rb"caff",
    "an au": rb"\.snd",
    "a flac": rb"fLaC",
    "an ogg": rb"OggS",
    "an mp3": rb"ID3",
    "a webm or mkv": rb"\x1aE\xdf\xa3",
}

KNOWN_KINDS = "wav, mp3, m4a/mp4, flac, ogg/opus, webm/mkv, wma, aac, aiff, ..."
