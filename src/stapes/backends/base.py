"""The contract between a network and everything above it.

A backend encodes windows and steps decoder rows. It knows the network and nothing of Whisper's rules: which ids are
special, what a timestamp is for, when a window is done. A step is one call whatever the number of rows.

KV cache: a window's cross-attention keys and values and a row's self-attention keys and values belong to the backend
and are named by ids. A window lives until `release`, a row until `close`; rows must be closed before their window.

Batch-invariant: what a row gives depends on its own tokens, its window and the other rows *of that window* in the
step, never on other windows: float sums run in the same order whatever the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NewType, Protocol

import numpy as np
import numpy.typing as npt

from stapes.checkpoint.base import ModelSpec

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]
WindowId = NewType("WindowId", int)
RowId = NewType("RowId", int)
#: half-open: (first forbidden id, first allowed id after it)
IdRange = tuple[int, int]
#: encoder positions, of 20 ms each, in a block of keys: short windows are of whole blocks, and parts begin with one
PART_POSITIONS = 32
#: frames of 10 ms in an encoder position: its second convolution has a stride of 2
FRAMES_PER_POSITION = 2
#: (samples ((n_frames - 1) * 160 + 400,), filters (n_mels, 201)) -> log10 mel power (n_mels, n_frames)
LogMelKernel = Callable[[FloatArray, FloatArray], FloatArray]
#: (attention scores (heads, tokens, positions), n_columns of them with sound, n_before) -> for each token from
#: n_before to the last but one, the column at which speech comes to it: (tokens - n_before - 1,), never falling
TokenColumnsKernel = Callable[[FloatArray, int, int], IntArray]


class IdRanges:
    """A fixed set of ids as sorted, disjoint ranges; made once per job and shared by its steps."""

    __slots__ = ("array", "ranges")

    def __init__(self, ids: Sequence[int] = ()) -> None:
        """Take ids in any order, repeated or not."""
        ordered, ranges = sorted(set(ids)), list[IdRange]()
        for one in ordered:
            if ranges and ranges[-1][1] == one:
                ranges[-1] = (ranges[-1][0], one + 1)
            else:
                ranges.append((one, one + 1))
        self.ranges: tuple[IdRange, ...] = tuple(ranges)
        #: the same ids one by one, as an index array
        self.array: npt.NDArray[np.int64] = np.array(ordered, dtype=np.int64)

    def __contains__(self, one: int) -> bool:
        return any(start <= one < stop for start, stop in self.ranges)

    def __repr__(self) -> str:
        return f"IdRanges({self.ranges})"


@dataclass(frozen=True, slots=True)
class Constraint:
    """Which ids may not come next, and whether the upper ids may outvote the lower ones.

    permanent, now: forbidden ids; the two parts may overlap. `permanent` is the same object in every step of a job.
    vote_from: with V, if the summed probability of ids >= V exceeds the largest probability of any id < V, all
    ids < V are forbidden too; probabilities are those left after `permanent` and `now`. None: no vote.
    """

    permanent: IdRanges = field(default_factory=IdRanges)
    now: tuple[IdRange, ...] = ()
    vote_from: int | None = None


@dataclass(frozen=True, slots=True)
class Best:
    """Choose the most probable id; of equals the lowest."""


@dataclass(frozen=True, slots=True)
class Draw:
    """Draw one id for each number u in `uniforms` (0 <= u < 1) at `temperature` > 0: the first whose cumulated
    probability, in the order of ids, exceeds u.
    """

    temperature: float
    uniforms: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Top:
    """Choose the n most probable ids, best first; of equals the lower id first. Forbidden ids fill up at -inf."""

    n: int


Choice = Best | Draw | Top
#: the same in `StepBatch.methods`
BEST, DRAW, TOP = range(3)


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask for the raw logits of `ids` after `position` (an index into this step's tokens).
    below: measure them against the ids below this one; None: against all.
    """

    position: int
    ids: tuple[int, ...]
    below: int | None = None


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """Raw logits of the ids asked for, and the log of the sum of the exponentials of the logits to measure against."""

    logits: FloatArray  # (ids,)
    log_normaliser: float

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """The ids' probabilities among those that they are measured against."""
        return np.exp(self.logits.astype(np.float64) - self.log_normaliser)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowExtras:
    """Outputs of a row beside its choices; most rows have none.

    probes: single logits wanted.   logits_at: positions (indices into the row's new tokens) whose whole logits are
    wanted.   attention: (layer, head) pairs whose cross-attention scores are wanted.
    within: the part of its window that the row attends to, in encoder positions, half-open; the first is a multiple of
    PART_POSITIONS. None: all. What is outside is as if it had not been encoded; attention is asked for of all only.
    """

    probes: tuple[Probe, ...] = ()
    logits_at: tuple[int, ...] = ()
    attention: tuple[tuple[int, int], ...] = ()
    within: tuple[int, int] | None = None

    def answer_bytes(self, spec: ModelSpec, n_tokens: int, window_positions: int) -> int:
        """Return what the answers to a row with `n_tokens` new tokens take in memory while the step lasts."""
        n_scores = len(self.attention) * n_tokens * window_positions
        return answer_bytes(spec, len(self.probes) + len(self.logits_at), n_scores)


def answer_bytes(spec: ModelSpec, n_positions: int, n_scores: int) -> int:
    """Return what a row's answers take: logits after some of its positions, and attention scores (all float32).
    The logits of one position, which every row has, count as the row's own.
    """
    return 4 * (max(0, n_positions - 1) * spec.n_vocab + n_scores)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtraAnswers:
    """The answers to a row's extras.

    logits: (positions, n_vocab) float32, or None.   attention: (pairs, tokens, positions of the window) float32: scaled
    scores before the softmax, or None.
    """

    probes: tuple[ProbeResult, ...] = ()
    logits: FloatArray | None = None
    attention: FloatArray | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulingPolicy:
    """How a backend wants to be called. The defaults suit CPUs.

    windows_per_encode: most windows of one `encode` call; a CPU gains nothing from several.
    windows_in_flight: most windows in memory at once, if their bytes allow it; beyond 16, a CPU's rows hardly share the
    reading of weights any more.
    encodes_before_rows: most `encode` calls in a row while rows are ready.
    """

    windows_per_encode: int = 1
    windows_in_flight: int = 16
    encodes_before_rows: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBatch:
    """One step of n rows with t new tokens and c choices, as arrays. `StepBuilder` makes it.

    rows: (n,) open rows, each once.   tokens: (t,) new tokens, row after row, at least one for each.
    token_ends: (n,) where each row's tokens end in `tokens`.
    choice_rows: (c,) whose choice it is, an index into `rows`, ascending.
    choice_positions: (c,) after which of the row's new tokens. A row may have several choices, in ascending order, if
    all of them are BEST: they are what as many steps of one token would choose.
    methods, n_chosen, temperatures: (c,) BEST, DRAW or TOP; how many ids; of a draw.
    uniforms: numbers of all draws, in order.
    permanents: sets of forbidden ids; permanent_of: (c,) which of them is the choice's.
    now: (m, 2) forbidden ranges of ids, half-open; now_ends: (c,) where each choice's end.
    vote_from: (c,) as in `Constraint`; -1: no vote.
    extras: of some rows, by index.
    """

    rows: npt.NDArray[np.int64]
    tokens: IntArray
    token_ends: IntArray
    choice_rows: IntArray
    choice_positions: IntArray
    methods: IntArray
    n_chosen: IntArray
    temperatures: npt.NDArray[np.float64]
    uniforms: npt.NDArray[np.float64]
    permanents: tuple[IdRanges, ...]
    permanent_of: IntArray
    now: IntArray
    now_ends: IntArray
    vote_from: IntArray
    extras: Mapping[int, RowExtras]


@dataclass(frozen=True, slots=True)
class StepAnswers:
    """What a step gives.

    ids, logprobs: (sum of n_chosen,) of all choices, in order: int32, and float32 log-softmax after the constraint,
    vote included, never divided by a temperature. In int8 the logarithm of its sum may be off by 0.01 beside the
    logits it gives.   extras: for each row that asked for some, by index.
    """

    ids: IntArray
    logprobs: FloatArray
    extras: Mapping[int, ExtraAnswers] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendInfo:
    """What runs the network."""

    name: str  # "numpy", ...
    device: str  # "cpu", ...
    precision: str  # "float32", ...
    threads: int
    weight_bytes: int  # memory of the weights as the backend holds them
    row_bytes: int  # memory of one decoder row at full length
    precisions: tuple[str, ...] = ("float32",)  # that it could compute in
    isa: str | None = None  # the instruction set of its kernels, where it has its own
    precision_reason: str | None = None  # why it computes in this one; None: it was asked for
    precision_measured: bool = True  # whether word errors of this model decided that
    max_memory: int | None = None  # most bytes of windows and rows by default; None: as suits a CPU (resources.py)
    policy: SchedulingPolicy = field(default_factory=SchedulingPolicy)


class Backend(Protocol):
    """What every backend offers. Calls come from one thread at a time; `log10_mel` may be called from any thread."""

    @property
    def spec(self) -> ModelSpec:
        """The sizes of the model."""

    @property
    def info(self) -> BackendInfo:
        """What runs the network, and what it costs."""

    @property
    def log10_mel(self) -> LogMelKernel:
        """The backend's own log-mel, equal to `stapes.backends.numerics.log10_mel` within 1e-5."""

    @property
    def token_columns(self) -> TokenColumnsKernel:
        """The backend's own alignment, the same path as `stapes.backends.numerics.token_columns` but for ties."""

    def window_bytes(self, positions: int) -> int:
        """Return the memory of an encoded window of so many positions."""

    def encode(self, mel: FloatArray) -> list[WindowId]:
        """Encode windows of one length: mel (windows, n_mels, 2 * positions) -> one id per window.

        positions: n_audio_ctx, or a multiple of PART_POSITIONS below it. A shorter window has the first positional
        embeddings, and nothing after its frames is attended to: its numbers are not those of a full one.
        It may return before the device is done; steps over the window wait for it then.
        """

    def is_encoded(self, window: WindowId) -> bool:
        """Return whether a step over a window need not wait for it."""

    def positions(self, window: WindowId) -> int:
        """Return how many positions a window has."""

    def release(self, window: WindowId) -> None:
        """Give back a window's memory."""

    def open(self, window: WindowId) -> RowId:
        """Open an empty row over a window."""

    def fork(self, row: RowId) -> RowId:
        """Open a row that holds the same tokens as another."""

    def truncate(self, row: RowId, length: int) -> None:
        """Forget a row's tokens from position `length` on."""

    def length(self, row: RowId) -> int:
        """How many tokens a row holds."""

    def close(self, row: RowId) -> None:
        """Give back a row's memory."""

    def shut_down(self) -> None:
        """Give all memory back; no call may follow."""

    def step(self, batch: StepBatch) -> StepAnswers:
        """Advance rows by their new tokens, and answer.
        Raises BackendError if a row would exceed n_text_ctx, stands twice, or a token is outside the vocabulary.
        """
