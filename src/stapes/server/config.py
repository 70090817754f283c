"""What the server serves, and the bounds of everything that a client can ask for: `ServerConfig`, checked at birth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import urlsplit

from stapes.options.checks import above_0, number, require, whole
from stapes.options.devices import device_names

MIB = 1 << 20
#: names that OpenAI's clients have built in; all lead to the default model
OPENAI_MODELS = (
    "whisper-1",
    "gpt-transcribe",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-mini-transcribe-2025-12-15",
    "gpt-4o-transcribe-diarize",
)
#: hosts that lead to this machine alone
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The bounds on requests. Times in seconds, sizes in bytes."""

    max_connections: int = 512
    max_active: int = 16  # requests whose audio the engine has
    max_queue: int = 64  # requests that wait, or upload
    max_body_bytes: int = 256 * MIB
    max_spool_bytes: int = 4096 * MIB  # of all uploads together
    max_audio_s: float = 2 * 3600.0  # of one request
    max_job_audio_s: float = 24 * 3600.0
    header_timeout_s: float = 10.0  # until a connection's headers are complete
    body_timeout_s: float = 600.0  # until a body is complete
    min_body_rate: float = 1024.0  # bytes a second, over every 10 s
    request_timeout_s: float = 3600.0  # from the headers to the end of the answer
    interactive_s: float = 30.0  # requests with at most so much audio go first
    keep_alive_s: float = 5.0  # an idle connection
    max_jobs: int = 100  # of one key, that have not ended
    max_running_jobs: int = 2
    max_kept_jobs: int = 1000  # of one key, that have ended
    max_waits: int = 16  # answers of one key that wait for a job, or follow it
    max_state_bytes: int = 20 * 1024 * MIB  # uploads and results of jobs
    job_retention_s: float = 7 * 24 * 3600.0  # after a job's end

    def __post_init__(self) -> None:
        for name in ("max_connections", "max_active", "max_body_bytes", "max_spool_bytes", "max_jobs",
                     "max_running_jobs", "max_kept_jobs", "max_waits", "max_state_bytes"):  # fmt: skip
            whole(name, getattr(self, name))
        whole("max_queue", self.max_queue, low=0)
        for name in ("max_audio_s", "max_job_audio_s", "header_timeout_s", "body_timeout_s", "request_timeout_s"):
            above_0(name, getattr(self, name))
        number("min_body_rate", self.min_body_rate, low=0)
        number("interactive_s", self.interactive_s, low=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """What is served, where, and to whom."""

    models: tuple[str, ...] = ("base",)  # names, hub ids or paths; the first one is the default
    aliases: Mapping[str, str] = field(default_factory=dict)  # name in a request -> one of `models`
    allowed_models: tuple[str, ...] = ()  # that are loaded when they are first asked for
    unload_after_s: float | None = None  # an idle model that was loaded so; None: never
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None  # cores of the engines, which take turns; None: all
    max_memory: int | None = None  # of windows and rows of all models, beside their weights; None: 1024 MiB on a CPU,
    # and on a GPU for each model what `stapes.load` takes
    device_memory: int | None = None  # of each GPU, for each model
    model_dir: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    uds: str | None = None  # path of a Unix socket, instead of host and port
    root_path: str = ""
    trusted_proxies: tuple[str, ...] = ()
    allow_hosts: tuple[str, ...] = ()  # names in `Host`, beside the loopback ones and the one that is served
    allow_origins: tuple[str, ...] = ()  # origins whose pages may use the server, with CORS headers
    key_file: Path | None = None
    state_dir: Path | None = None  # jobs and uploads; None: no jobs
    spool_dir: Path | None = None  # uploads; None: in `state_dir`, else the system's folder for temporary files
    media_processes: int = 2
    json_logs: bool = False
    bounds: Bounds = field(default_factory=Bounds)

    def __post_init__(self) -> None:
        require(bool(self.models), "serve at least one model")
        device_names(self.device)
        above_0("max_memory", self.max_memory)
        above_0("device_memory", self.device_memory)
        whole("media_processes", self.media_processes)
        whole("port", self.port, low=0)
        require(self.port <= 65_535, f"port must be from 0 to 65535, got {self.port}")
        require(
            not self.root_path or self.root_path.startswith("/"), f"root_path must begin with /, got {self.root_path}"
        )
        for name in self.allow_hosts:
            is_name = "/" not in name and (":" not in name or _is_address(name))
            require(is_name, f"allow_host must be a name without a scheme, a port or a path, got {name}")
        object.__setattr__(self, "allow_hosts", tuple(name.lower().removesuffix(".") for name in self.allow_hosts))
        for origin in self.allow_origins:
            parts = urlsplit(origin)
            is_origin = parts.scheme in ("http", "https") and parts.netloc and not parts.path
            require(bool(is_origin), f"allow_origin must be like https://example.org, got {origin}")
        for address in self.trusted_proxies:
            require(_is_address(address), f"trusted_proxy must be an address or a network, got {address}")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return self.uds is not None or self.host in LOOPBACK


def _is_address(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return text == "*"
    return True
