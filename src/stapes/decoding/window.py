"""One window, from its prompt to its result: the first try, and hotter ones while the text is not good enough.

A state machine: `add_to` adds rows to a step, `accept` takes their answers; rows of many windows share a step.
Source: openai/whisper decoding.py (DecodingTask) and transcribe.py (decode_with_fallback) at c0d2f62.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stapes.audio.mel import FRAMES_PER_SECOND, N_FRAMES
from stapes.backends.base import Backend, Probe, RowExtras, RowId, WindowId
from stapes.backends.batch import AnswerShare, StepBuilder, StepLoad
from stapes.checkpoint.base import ModelSpec
from stapes.decoding.beam import BeamRows
from stapes.decoding.pick import PickRows
from stapes.decoding.quality import check_answer, compression_ratio, is_silence, threshold_refusal
from stapes.decoding.repetition import find_loop
from stapes.decoding.rows import SearchRows, SearchSetting, rank
from stapes.decoding.rules import DecodingRules
from stapes.errors import OptionError
from stapes.options import Beam, Greedy, Search, Task, Thresholds, TranscribeOptions
from stapes.results import Try, WindowResult
from stapes.tokenizer import Tokenizer

_WINDOW_S = N_FRAMES / FRAMES_PER_SECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSetting:
    """What is the same for every window of a job."""

    tokenizer: Tokenizer
    task: Task
    rules: DecodingRules
    search: Search
    thresholds: Thresholds
    loop_guard: bool
    token_logprobs: bool
    start: tuple[int, ...]  # start of transcript, language, task, no-timestamps, as the options ask
    prefix: tuple[int, ...]
    sample_len: int
    n_text_ctx: int
    as_faster_whisper: bool = False  # whose rules count (`Method.rules_of`)
    max_new_tokens: int | None = None  # sample_len, as given

    @classmethod
    def make(
        cls, spec: ModelSpec, tokenizer: Tokenizer, options: TranscribeOptions, language: str | None
    ) -> WindowSetting:
        """Make the setting of a model and options. language: a code, None for a model that knows English only.
        Raises OptionError for a language that the model does not know, or a prefix that leaves no room.
        """
        start = tokenizer.start_sequence(language, options.speech.task)
        if options.rules.without_timestamps or not tokenizer.has_timestamps:
            start = (*start, *tokenizer.without_timestamps)
        half = spec.n_text_ctx // 2
        sample_len = options.rules.sample_len or half
        as_faster_whisper = options.method.as_faster_whisper
        prefix = tokenizer.encode(" " + options.context.prefix.strip()) if options.context.prefix else []
        if as_faster_whisper:
            opening = () if not prefix or options.rules.without_timestamps else (tokenizer.special.timestamp_begin,)
            prefix = [*opening, *prefix[: half - 1]]
        else:
            # The reference's slice, to the letter: at the default length it keeps the whole prefix.
            prefix = prefix[-(half - sample_len) :]
        if 1 + (half - 1) * (not as_faster_whisper) + len(start) + len(prefix) > spec.n_text_ctx:
            raise OptionError(
                f"prefix has {len(prefix)} tokens; {spec.n_text_ctx - half - len(start)} fit beside a full prompt"
            )
        return cls(
            tokenizer=tokenizer,
            task=options.speech.task,
            rules=DecodingRules.make(
                tokenizer,
                options.rules,
                _WINDOW_S / spec.n_audio_ctx,
                options.search.no_repeat_ngram_size,
                zero_is_a_cap=as_faster_whisper,
            ),
            search=options.search,
            thresholds=options.thresholds,
            loop_guard=options.guards_on.loop_guard,
            token_logprobs=options.words.token_logprobs,
            start=start,
            prefix=tuple(prefix),
            sample_len=sample_len,
            n_text_ctx=spec.n_text_ctx,
            as_faster_whisper=as_faster_whisper,
            max_new_tokens=options.rules.sample_len,
        )

    def speaking(self, language: str | None) -> WindowSetting:
        """Return the setting for windows in another language, its rules the same object."""
        tokens = self.tokenizer.start_sequence(language, self.task)
        return replace(self, start=(*tokens, *self.start[len(tokens) :]))

    def initial_tokens(self, prompt: Sequence[int]) -> tuple[int, ...]:
        """Return all tokens before the first sampled one.
        prompt: ids of the text before the window; its last n_text_ctx // 2 - 1 are used, or, with faster-whisper's
        rules, as many as leave room for two tokens.
        """
        before: tuple[int, ...] = ()
        if prompt:
            room = self.n_text_ctx // 2 - 1
            if self.as_faster_whisper:
                room = self.n_text_ctx - len(self.start) - len(self.prefix) - 2
            before = (self.tokenizer.special.sot_prev, *prompt[-room:])
        return (*before, *self.start, *self.prefix)

    def refusal(self, result: WindowResult, before: Sequence[int]) -> str | None:
        """Return why a try is refused, or None if it is to be kept. before: ids before the first sampled one."""
        refused = threshold_refusal(result, self.thresholds)
        if refused is None and self.loop_guard and not is_silence(result, self.thresholds):
            eot = self.tokenizer.special.eot
            text, previous = ([token for token in ids if token < eot] for ids in (result.tokens, before))
            loop = find_loop(text, previous)
            if loop is not None:
                return f"repeats {loop.phrase} tokens {loop.times} times"
        return refused

    def max_tokens(self, n_initial: int) -> int:
        """Return how many tokens may be sampled: the row stops once it holds more than the context.

        Source of faster-whisper's: CTranslate2 4.8 whisper.cc: half of prompt and limit together, prefix included.
        """
        if not self.as_faster_whisper:
            return min(self.sample_len, self.n_text_ctx - n_initial + 1)
        total, n_prefix = self.n_text_ctx, len(self.prefix)
        if self.max_new_tokens is not None:
            total = min(total, n_initial + self.max_new_tokens)
        return max(1, min(total // 2, total - n_initial + n_prefix + 1) - n_prefix)


class WindowDecoder:
    """Decodes one encoded window. The memory of the window belongs to the caller."""

    def __init__(
        self,
        backend: Backend,
        window: WindowId,
        setting: WindowSetting,
        prompt: Sequence[int],
        random_key: tuple[int, ...],
    ) -> None:
        """Take a window's memory and the text before it.
        random_key: names this window in its job (seed, seek); draws depend on nothing else.
        """
        self._backend = backend
        self._setting = setting
        positions = backend.positions(window)
        self._is_short = positions < backend.spec.n_audio_ctx
        self._rules = setting.rules.up_to(positions) if self._is_short else setting.rules
        if setting.as_faster_whisper and setting.prefix:
            self._rules = self._rules.after_prefix()
        self._initial = setting.initial_tokens(prompt)
        # The first one: with nothing suppressed, the text before may hold that id too, and the reference looks there.
        self._sot_position = self._initial.index(setting.tokenizer.special.sot)
        self._random_key = random_key
        self._no_speech_prob: float | None = None
        self._tries: list[Try] = []
        self._refused: list[WindowResult] = []
        #: the prompt's row (prefilled once): every try forks from it
        self._prompt_row: RowId | None = backend.open(window)
        self._rows: SearchRows = self._new_rows()
        self._begun = False
        self.result: WindowResult | None = None

    @property
    def _temperature(self) -> float:
        return self._setting.search.temperature[len(self._tries)]

    def _new_rows(self) -> SearchRows:
        setting = SearchSetting(
            self._backend,
            self._rules,
            self._setting.max_tokens(len(self._initial)),
            self._setting.token_logprobs,
            self._setting.search.repetition_penalty,
            as_faster_whisper=self._setting.as_faster_whisper,
        )
        strategy = self._setting.search.at(self._temperature)
        if isinstance(strategy, Beam):
            return BeamRows(setting, strategy)
        if isinstance(strategy, Greedy):  # and numpy.random, 50 ms to import, stays out
            return PickRows(setting, strategy, None)
        seed = np.random.SeedSequence((*self._random_key, len(self._tries)))
        return PickRows(setting, strategy, np.random.Generator(np.random.PCG64(seed)))

    def load(self) -> StepLoad:
        """Return what the next step takes; nothing once there is a result."""
        if self.result is not None or self._prompt_row is None:
            return StepLoad()
        if self._begun:
            n = self._rows.n_live
            return StepLoad(n, n)
        return StepLoad(1, len(self._initial) - self._backend.length(self._prompt_row))

    def add_to(self, step: StepBuilder) -> None:
        """Add what the backend is to do next."""
        if self._begun:
            return self._rows.add_to(step)
        assert self._prompt_row is not None
        tokens, extras = self._initial[self._backend.length(self._prompt_row) :], None
        if len(tokens) == len(self._initial):
            tokenizer = self._setting.tokenizer
            probe = Probe(self._sot_position, (tokenizer.special.no_speech,), below=tokenizer.measured_below)
            extras = RowExtras(probes=(probe,))
        step.add(self._prompt_row, tokens, extras)
        return step.choose(len(tokens) - 1, self._rows.first_choice, self._rules.constraint(()))

    def accept(self, share: AnswerShare) -> None:
        """Take the answers to what `add_to` added."""
        if self._begun:
            self._rows.accept(share)
        else:
            self._begin(share)
        if self._rows.done:
            self._end_try()

    def _begin(self, share: AnswerShare) -> None:
        assert self._prompt_row is not None
        if share.extras is not None:
            self._no_speech_prob = float(share.extras.probes[0].probabilities[0])
            check_answer(self._no_speech_prob)
        self._rows.begin(self._backend.fork(self._prompt_row), share)
        self._begun = True

    def _end_try(self) -> None:
        setting, temperature = self._setting, self._temperature
        n_before = len(setting.prefix) if setting.as_faster_whisper else 0
        best = rank(
            self._rows.candidates(),
            setting.search.length_penalty,
            in_powers=setting.as_faster_whisper,
            n_before=n_before,
        )
        check_answer(best.sum_logprob)
        self._rows.close()
        tokens, logprobs = best.tokens, best.logprobs
        if setting.as_faster_whisper:  # the prefix is part of the result, and certain
            tokens = (*setting.prefix, *tokens)
            logprobs = None if logprobs is None else (*[0.0] * len(setting.prefix), *logprobs)
        text = setting.tokenizer.decode(tokens).strip()
        assert self._no_speech_prob is not None
        result = WindowResult(
            tokens=tokens,
            text=text,
            avg_logprob=best.sum_logprob / (len(tokens) + 1),
            no_speech_prob=self._no_speech_prob,
            temperature=temperature,
            compression_ratio=compression_ratio(text),
            token_logprobs=logprobs,
        )
        refused = setting.refusal(result, self._initial)
        self._tries.append(Try(temperature=temperature, avg_logprob=result.avg_logprob,
                               compression_ratio=result.compression_ratio, refused=refused))  # fmt: skip
        # What a short window's text is refused for is no reason to try hotter: the caller encodes a full one.
        if refused is None or self._is_short:
            self._finish(result)
            return
        self._refused.append(result)
        if len(self._tries) < len(setting.search.temperature):
            self._retry()
        else:
            self._finish(self._most_probable() if setting.as_faster_whisper else result)

    def _most_probable(self) -> WindowResult:
        """Return the refused result that is most probable, one that does not repeat itself first.

        It has the last try's temperature, as faster-whisper has it, for `prompt_reset_on_temperature`.
        """
        limit = self._setting.thresholds.compression_ratio_threshold
        varied = [one for one in self._refused if limit is not None and one.compression_ratio <= limit]
        best = max(varied or self._refused, key=lambda one: one.avg_logprob)
        return replace(best, temperature=self._refused[-1].temperature)

    def _retry(self) -> None:
        """Start the next try from the prompt's row: its last token is stepped again, to choose after it."""
        assert self._prompt_row is not None
        self._backend.truncate(self._prompt_row, len(self._initial) - 1)
        self._rows = self._new_rows()
        self._begun = False

    def _finish(self, result: WindowResult) -> None:
        self.result = replace(result, tries=tuple(self._tries))
        self.close()

    def close(self) -> None:
        """Give every row back; may be called at any time, and twice."""
        self._rows.close()
        if self._prompt_row is not None:
            self._backend.close(self._prompt_row)
            self._prompt_row = None
