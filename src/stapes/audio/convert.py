"""Frames of any format -> mono at 16 kHz, or what is wanted, by libswresample as the `ffmpeg` command sets it up."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from av.audio.frame import AudioFrame
from av.error import BlockingIOError as NothingYet
from av.error import EOFError as EndOfStream
from av.filter import Graph

from stapes.audio.pcm import SAMPLE_RATE, Samples

_BLOCK_SAMPLES = 1 << 16


class Converter:
    """Converts frames of one format, layout and rate with libswresample.

    target: libav's name of the wanted sample format: "s16" for files, "flt" for arrays.
    layout, sample_rate: the wanted ones; channels come interleaved.
    skip_samples: how many of the source's first samples to drop.   channel: which one is taken; None mixes all.
    """

    def __init__(
        self,
        frame: AudioFrame,
        *,
        target: str = "s16",
        layout: str = "mono",
        sample_rate: int = SAMPLE_RATE,
        skip_samples: int = 0,
        channel: int | None = None,
    ) -> None:
        self._shape = _shape_of(frame)
        wanted = (target, layout, sample_rate)
        is_wanted = self._shape == wanted and not skip_samples
        self._graph = None if is_wanted else _build_graph(frame, wanted, skip_samples, channel)

    def fits(self, frame: AudioFrame) -> bool:
        """True if this frame has the format, layout and rate that the chain was built for."""
        return _shape_of(frame) == self._shape

    def convert(self, frame: AudioFrame | None) -> Iterator[memoryview]:
        """Yield what is ready after this frame; None says that no more will come."""
        if self._graph is None:
            if frame is not None:
                yield _bytes_of(frame)
            return
        yield from _run(self._graph, frame)


def _run(graph: Graph, frame: AudioFrame | None) -> Iterator[memoryview]:
    graph.push(frame)
    while True:
        try:
            block = graph.pull()
        except (NothingYet, EndOfStream):
            return
        yield _bytes_of(block)  # type: ignore[arg-type]  # an audio sink gives audio frames


def _build_graph(frame: AudioFrame, wanted_form: tuple[str, str, int], skip_samples: int, channel: int | None) -> Graph:
    graph = Graph()
    target, layout, sample_rate = wanted_form
    source = graph.add(
        "abuffer",
        sample_rate=str(frame.sample_rate),
        sample_fmt=frame.format.name,
        channel_layout=_layout_of(frame),
        time_base=f"1/{frame.sample_rate}",
    )
    # FFmpeg 5.1 computes with 16 bits where source and target have no more; later ones take float when the
    # rate changes. Seen in one sample of ten: 1 to 4 units of 1 / 32768.
    options = {"internal_sample_fmt": "s16p"} if target == "s16" and frame.format.bytes <= 2 else {}
    resample = graph.add("aresample", **options)
    wanted = graph.add("aformat", sample_rates=str(sample_rate), sample_fmts=target, channel_layouts=layout)
    sink = graph.add("abuffersink")
    first = [graph.add("atrim", start_sample=str(skip_samples))] if skip_samples else []
    if channel is not None:
        first.append(graph.add("pan", f"mono|c0=c{channel}"))
    graph.link_nodes(source, *first, resample, wanted, sink).configure()
    return graph


def _shape_of(frame: AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, _layout_of(frame), frame.sample_rate


def _layout_of(frame: AudioFrame) -> str:
    """Return the layout's name; a bare count of channels means the usual layout for it, as in ffmpeg."""
    name = frame.layout.name
    return f"{frame.layout.nb_channels}c" if name.endswith(" channels") else name


def _bytes_of(frame: AudioFrame) -> memoryview:
    data = memoryview(frame.planes[0]).cast("B")
    return data[: frame.format.bytes * frame.samples * frame.layout.nb_channels]  # a plane may be padded


def resample(samples: Samples, sample_rate: int) -> Iterator[memoryview]:
    """Yield float32 samples (n,) of this rate at 16 kHz, as bytes: the filter of files, but not rounded."""
    converter: Converter | None = None
    for start in range(0, samples.size, _BLOCK_SAMPLES):
        block = np.ascontiguousarray(samples[None, start : start + _BLOCK_SAMPLES])
        frame = AudioFrame.from_ndarray(block, format="flt", layout="mono")
        frame.sample_rate = sample_rate
        converter = converter or Converter(frame, target="flt")
        yield from converter.convert(frame)
    if converter is not None:
        yield from converter.convert(None)
