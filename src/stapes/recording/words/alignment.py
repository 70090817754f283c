"""Alignment of a window's text with its sound: a forced pass, all tokens at once.

Source: openai/whisper timing.py at c0d2f62 (find_alignment).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stapes.backends.base import Backend, ExtraAnswers, Probe, RowExtras, WindowId, answer_bytes
from stapes.checkpoint.base import ModelSpec
from stapes.options import Task
from stapes.recording.passes import ForcedPass
from stapes.recording.words.timing import time_words
from stapes.results import Alignment
from stapes.tokenizer import Tokenizer

Heads = tuple[tuple[int, int], ...]  # (layer, head)
#: tokens around the text at most: start of transcript, language, task, no timestamps; end of text
_MOST_AROUND = 5


def alignment_bytes(spec: ModelSpec, heads: Heads, n_tokens: int) -> int:
    """Return the most bytes that an alignment of so many tokens of text takes: over a full window."""
    n_read = min(n_tokens + _MOST_AROUND, spec.n_text_ctx)
    return answer_bytes(spec, n_read, len(heads) * n_read * spec.n_audio_ctx)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignmentSetting:
    """What all windows of a job share."""

    tokenizer: Tokenizer
    heads: Heads  # whose attention follows the sound
    language: str | None  # None for a model that knows English only
    start: tuple[int, ...]  # the tokens before the text
    most_tokens: int  # of text, in one pass
    frames_per_column: int
    columns_per_second: float

    @classmethod
    def make(
        cls, spec: ModelSpec, tokenizer: Tokenizer, heads: Heads, language: str | None, task: Task, window_frames: int
    ) -> AlignmentSetting:
        """Make the setting from model and options."""
        start = (*tokenizer.start_sequence(language, task), *tokenizer.without_timestamps)
        frames_per_column = window_frames // spec.n_audio_ctx
        return cls(
            tokenizer=tokenizer,
            heads=heads,
            language=language if tokenizer.multilingual else None,
            start=start,
            most_tokens=spec.n_text_ctx - len(start) - 1,
            frames_per_column=frames_per_column,
            columns_per_second=100 / frames_per_column,
        )


class WindowAligner(ForcedPass[Alignment]):
    """Aligns one window."""

    def __init__(
        self, backend: Backend, window: WindowId, setting: AlignmentSetting, tokens: Sequence[int], n_frames: int
    ) -> None:
        """Take a window's memory, its text, and how many of its frames have content.

        Text that is longer than the context allows is aligned as far as it fits.
        """
        super().__init__(backend, window)
        self._setting = setting
        self._tokens = tuple(tokens[: setting.most_tokens])
        self._n_frames = n_frames

    def _question(self) -> tuple[tuple[int, ...], RowExtras]:
        setting, special = self._setting, self._setting.tokenizer.special
        first = len(setting.start) - 1  # what follows the last token of the start is the first one of the text
        # Probabilities are among text alone: after the start, a timestamp would be far likelier.
        probes = (Probe(position, (token,), below=special.eot) for position, token in enumerate(self._tokens, first))
        tokens = (*setting.start, *self._tokens, special.eot)
        return tokens, RowExtras(probes=tuple(probes), attention=setting.heads)

    def _answer(self, answers: ExtraAnswers) -> Alignment:
        setting = self._setting
        assert answers.attention is not None
        columns = self._backend.token_columns(
            answers.attention, self._n_frames // setting.frames_per_column, len(setting.start) - 1
        )
        probabilities = [float(one.probabilities[0]) for one in answers.probes]
        words = time_words(
            setting.tokenizer, setting.language, self._tokens, columns, probabilities, setting.columns_per_second
        )
        return Alignment(words)
