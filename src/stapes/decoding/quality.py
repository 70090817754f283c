"""Whether a decoded window is good, to be tried again at a higher temperature, or silence: functions of its scores.
Source: openai/whisper transcribe.py at c0d2f62 (decode_with_fallback, the no-speech check).
"""

from __future__ import annotations

import math
import zlib

from stapes.errors import CheckpointError
from stapes.options import Thresholds
from stapes.results import WindowResult


def compression_ratio(text: str) -> float:
    """Return how many times smaller zlib (header and checksum included) makes the text; 0.0 for an empty one."""
    data = text.encode("utf-8")
    return len(data) / len(zlib.compress(data))


def check_answer(value: float) -> None:
    """Raise CheckpointError where the network's answer is not a number: any text would do, and a search may not end.
    value: made of all logits, or of all that were chosen; minus infinity is the logarithm of zero.
    """
    if math.isnan(value) or value == math.inf:
        raise CheckpointError(
            "the model answers with no numbers (NaN or infinity), so its weights are damaged, or come from a training "
            "that went wrong, or are too large for float16; take bfloat16 or float32, fetch it again, or use another"
        )


def threshold_refusal(result: WindowResult, thresholds: Thresholds) -> str | None:
    """Return why a try is not good enough, or None if it is to be kept."""
    ratio_limit, logprob_limit = thresholds.compression_ratio_threshold, thresholds.logprob_threshold
    unsure = logprob_limit is not None and result.avg_logprob < logprob_limit
    speechless = thresholds.no_speech_threshold is not None and result.no_speech_prob > thresholds.no_speech_threshold
    if unsure and speechless:
        return None  # silence: trying hotter would invent text
    if ratio_limit is not None and result.compression_ratio > ratio_limit:
        return f"compression ratio {result.compression_ratio:.2f} above {ratio_limit:g}"
    if unsure:
        return f"average log-probability {result.avg_logprob:.2f} below {logprob_limit:g}"
    return None


def is_silence(result: WindowResult, thresholds: Thresholds) -> bool:
    """Whether the window is to be skipped: no speech is likely, and the text is not sure enough to speak against it."""
    if thresholds.no_speech_threshold is None or not result.no_speech_prob > thresholds.no_speech_threshold:
        return False
    return thresholds.logprob_threshold is None or not result.avg_logprob > thresholds.logprob_threshold
