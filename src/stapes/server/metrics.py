"""What the server counts and measures, for Prometheus; a registry of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

if TYPE_CHECKING:
    from stapes.server.models import Models

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
_UNIT_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The metrics of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(f"stapes_{name}_seconds", text, registry=self.registry, buckets=_SECONDS)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"stapes_{name}", text, labels, registry=self.registry)

        self.queue_s = histogram("queue", "From the body's end until a slot was free.")
        self.media_s = histogram("audio_decode", "Decoding of an upload to samples.")
        self.first_s = histogram("first_segment", "From the request's headers to the first segment.")
        self.total_s = histogram("request", "From the request's headers to the answer's end.")
        self.model_s = histogram("transcription", "From the samples to the transcript.")
        self._unit_s = Histogram(
            "stapes_model_unit_seconds", "Units of model work: encode (a window), step (tokens of rows), vad.",
            ["kind"], registry=self.registry, buckets=_UNIT_SECONDS,
        )  # fmt: skip
        self.audio_s = counter("audio_seconds", "Audio that was transcribed.")
        self.requests = counter("requests", "Answers by status.", "status")
        self.rejects = counter("rejects", "Requests refused before their work, by reason.", "reason")
        self.cancels = counter("cancels", "Requests that ended because the client went away.")
        self.active = Gauge("stapes_active", "Requests whose audio the engine has.", registry=self.registry)
        self.waiting = Gauge("stapes_waiting", "Requests that upload or wait for a slot.", registry=self.registry)
        self.real_time = Gauge(
            "stapes_times_real_time", "Audio seconds per second of the latest transcription.", registry=self.registry
        )

    def note_unit(self, kind: str, seconds: float) -> None:
        """Count a unit of model work."""
        self._unit_s.labels(kind).observe(seconds)

    def watch(self, models: Models) -> None:
        """Add the state of the models' engines, read when the metrics are."""
        self.registry.register(_Engines(models))

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _Engines:
    def __init__(self, models: Models) -> None:
        self._models = models

    def describe(self) -> list[Metric]:
        """Return nothing: the names depend on no state, and nothing is read at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield gauges of every engine that is loaded."""
        loaded = [(one.id, one.engine.status()) for one in self._models.all if one.engine is not None]
        named = (
            ("model_step_seconds", "A decoder step, beside its rows, as measured lately.", "step_s"),
            ("model_row_seconds", "A row of a decoder step, as measured lately.", "row_s"),
            ("model_encode_seconds", "Encoding a window, as measured lately.", "encode_s"),
        )
        for name, text, attribute in named:
            family = GaugeMetricFamily(f"stapes_{name}", text, labels=["model"])
            for model, status in loaded:
                if (value := getattr(status.costs, attribute)) is not None:
                    family.add_metric([model], value)
            yield family
        jobs = GaugeMetricFamily("stapes_model_jobs", "Recordings in a model's schedule.", labels=["model", "state"])
        for model, status in loaded:
            jobs.add_metric([model, "queued"], status.queued)
            jobs.add_metric([model, "running"], status.running)
        yield jobs
        wait = GaugeMetricFamily("stapes_oldest_wait_seconds", "Longest present wait for a step.", labels=["model"])
        for model, status in loaded:
            wait.add_metric([model], status.oldest_wait_s)
        yield wait
