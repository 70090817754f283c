"""Which language is spoken: a question to the decoder behind the start-of-transcript token.

Source: openai/whisper decoding.py at c0d2f62 (detect_language).
"""

from __future__ import annotations

import numpy as np

from stapes.backends.base import Probe, ProbeResult, RowId, RowStep
from stapes.results import LanguageGuess
from stapes.tokenizer import Tokenizer


def language_step(row: RowId, tokenizer: Tokenizer) -> RowStep:
    """Ask an empty row for the logits of all language ids."""
    ids = tuple(tokenizer.special.languages.values())
    return RowStep(row=row, tokens=(tokenizer.special.sot,), probes=(Probe(0, ids),))


def language_guess(probe: ProbeResult, tokenizer: Tokenizer) -> LanguageGuess:
    """Turn the logits into probabilities among the languages; of equals the first in the vocabulary wins."""
    logits = probe.logits.astype(np.float64)
    weights = np.exp(logits - logits.max())
    shares = weights / weights.sum()
    codes = list(tokenizer.special.languages)
    best_first = sorted(range(len(codes)), key=lambda i: -shares[i])
    return LanguageGuess(
        language=codes[int(np.argmax(logits))],
        probabilities={codes[i]: float(shares[i]) for i in best_first},
    )
