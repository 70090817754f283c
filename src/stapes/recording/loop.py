"""The seek loop of one recording: a generator that asks, and is sent the answers. No model, no audio, no clock.

    while (request := loop.next()) is not None:
        segments = loop.accept(answer(request))

The order of requests:

    DetectSpeech?   after a silent window, in the last one, without pauses    guards/order.py: before_window
    DetectSpeech?, Detect*   the window's language, with `multilingual`       language/per_window.py: detect
    Decode          again if a short window's text is refused: all 30 s are encoded then (audio_context.py)
    DetectSpeech?   where its scores are doubtful                             guards/order.py: check_text
    Align?          where words are asked for, and there is text that is not taken for silence
    DetectSpeech?   where the words' times are doubtful                       guards/order.py: check_words
    then the window is decoded again (without its pauses, or without its prompt), or it ends: its segments are yielded

Detect comes first where the recording has one language. Requests count frames in the loop's own time: the
recording's, without pauses that were cut out (`Timeline`). Segments, windows and flags have the recording's time.

Source: openai/whisper transcribe.py at c0d2f62, transcribe(). Deviations, each where the reference would never end:
a clip's end is clamped to the recording's (time_map.py: clips_in_frames), and a window that points nowhere moves the
loop on (segments.py: cut).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

from stapes.audio.mel import FRAMES_PER_SECOND
from stapes.decoding.quality import is_silence
from stapes.languages import LANGUAGES
from stapes.options import TranscribeOptions
from stapes.recording.audio_context import encoded_frames
from stapes.recording.guards.order import Guards
from stapes.recording.guards.rules import ChooseAnew, Guarded, Skip
from stapes.recording.language.per_window import LanguagePerWindow, most_spoken
from stapes.recording.prompts import Hotwords, initial_prompt_of, prompt_limit, prompt_of
from stapes.recording.requests import ANSWERS, Align, Answer, Asking, Decode, Detect, DetectSpeech, Request
from stapes.recording.segments import Cut, Piece, TimestampIds, WindowSpan, bounded, cut, text_of
from stapes.recording.time_map import Seam, Timeline, clips_in_frames
from stapes.recording.words.hallucination import Settled, settle
from stapes.recording.words.timing import in_order, last_word_end, place_words
from stapes.results import Flag, LanguageGuess, Segment, TokenLogprob, Transcript, Window, WindowResult, WordTiming
from stapes.tokenizer import Tokenizer


class SeekLoop:
    """State of one recording's transcription: the window to decode next, the text so far."""

    def __init__(
        self,
        *,
        content_frames: int,
        window_frames: int,
        n_audio_ctx: int,
        n_text_ctx: int,
        tokenizer: Tokenizer,
        options: TranscribeOptions,
        has_vad: bool = False,
        is_exact: bool = True,
        spliced_at: Sequence[Seam] = (),
    ) -> None:
        """Take the recording's length and the window's (3000), in frames of 10 ms, and the model's sizes.

        has_vad: whether `DetectSpeech` has an answer; guards that need one act only then.
        is_exact: as for LanguagePerWindow.
        spliced_at: where the recording was joined from spans.
        """
        self._content_frames = content_frames
        self._window_frames = window_frames
        limit_s = options.method.chunk_length
        self._most_frames = window_frames if limit_s is None else min(window_frames, round(limit_s * FRAMES_PER_SECOND))
        self._tokenizer = tokenizer
        self._times = TimestampIds(tokenizer.special.timestamp_begin, window_frames // n_audio_ctx)
        self._options = options
        self._clips = clips_in_frames(options.clips.clip_timestamps, content_frames)
        self._seek = self._clips[0][0] if self._clips else content_frames
        self._initial = initial_prompt_of(options.context, tokenizer)
        self._history: list[int] = list(self._initial)
        self._reset = 0  # the prompt begins here in the history
        self._prompt_limit = prompt_limit(n_text_ctx)
        self._as_faster_whisper = options.method.as_faster_whisper
        self._hotwords = Hotwords.of(
            options.context.hotwords, tokenizer, n_text_ctx, as_faster_whisper=self._as_faster_whisper
        )
        self._segments: list[Segment] = []
        self._windows: list[Window] = []
        self._spoken = LanguagePerWindow(
            options.speech,
            content_frames=content_frames,
            only=None if tokenizer.multilingual else next(iter(LANGUAGES)),
            has_vad=has_vad,
            audio_context=options.method.audio_context,
            plain=self._as_faster_whisper,
            first_frame=self._seek,
            window_frames=self._most_frames,
            is_exact=is_exact,
        )
        self._last_word_end_s = 0.0  # as in the reference: from the words before the guards acted
        self._given_until_s = 0.0  # where the last yielded words or segments end: nothing later overlaps them
        self._timeline = Timeline(content_frames, spliced_at)
        self._guards = Guards(options, tokenizer, self._timeline, has_vad=has_vad)
        self._asked: Request | None = None
        self._steps = self._run()

    @property
    def language(self) -> str | None:
        """The code of the language that the next window is decoded in; None while it is not known."""
        return self._spoken.language

    @property
    def language_guess(self) -> LanguageGuess | None:
        """The detected language; None if there is none, or not yet."""
        return self._spoken.guess

    @property
    def last_window(self) -> Window:
        """The window that ended last."""
        return self._windows[-1]

    @property
    def flags(self) -> tuple[Flag, ...]:
        """What the guards did so far."""
        return self._guards.flags

    @property
    def seek(self) -> int:
        """How far the loop has come, in frames of the recording."""
        return self._timeline.frame(self._seek)

    def next(self) -> Request | None:
        """Return the next request; the same until it is answered. None: the recording is done."""
        if self._asked is None:
            step = next(self._steps, None)
            assert not isinstance(step, list)  # segments come of an answer
            self._asked = step
        return self._asked

    def accept(self, answer: Answer) -> list[Segment]:
        """Take the answer to the last request; return the segments of the window that ends with it.

        Raises TypeError for an answer of another kind; the request then stays open.
        """
        if self._asked is None or not isinstance(answer, ANSWERS[type(self._asked)]):
            raise TypeError(f"{type(answer).__name__} does not answer {self._asked!r}")
        self._asked = None
        try:
            step = self._steps.send(answer)
        except StopIteration:
            return []
        if isinstance(step, list):
            return step
        self._asked = step
        return []

    def transcript(self, duration_s: float, warnings: tuple[str, ...] = ()) -> Transcript:
        """Return everything found so far."""
        return Transcript(
            text=self._tokenizer.decode(self._history[len(self._initial) :]),
            segments=tuple(self._segments),
            language=most_spoken(self._segments) or self.language or "",
            duration_s=duration_s,
            language_as_given=self._options.speech.language,
            language_guess=self.language_guess,
            windows=tuple(self._windows),
            warnings=warnings,
            flags=self.flags,
        )

    # The loop. It yields requests, and the segments of each window where that ends.

    def _run(self) -> Generator[Request | list[Segment], Any, None]:
        """Decode window after window."""
        if self.language is None and (self._as_faster_whisper or not self._spoken.each):
            yield from self._spoken.detect_once()
        while self._clips:
            start, end = self._clip()
            self._seek = self._spoken.start(max(self._seek, start))
            window = WindowSpan(self._seek, min(self._most_frames, end - self._seek))
            if window.n_frames <= 0:
                self._next_clip()
                continue
            is_rest, is_first = window.n_frames < self._most_frames, self._seek == start
            match (yield from self._guards.before_window(window, is_rest=is_rest, is_first=is_first)):
                case ChooseAnew(first):
                    self._spoken.forget_from(first)
                case Skip():
                    self._seek = window.end
                case WindowSpan() as decoded:
                    yield from self._window(decoded)

    def _window(self, window: WindowSpan) -> Generator[Request | list[Segment], Any, None]:
        """Decode one window: yield its requests in order, and its segments."""
        asked = yield from self._request(window)
        result: WindowResult = yield asked
        if asked.encoded_frames is not None and result.tries and result.tries[-1].refused is not None:
            self._keep_window(asked, result, asked.seek, skipped=True)
            yield []
            asked = replace(asked, encoded_frames=None)
            result = yield asked
        found = self._cut(asked, result)
        guarded = yield from self._guards.check_text(asked, result, found)
        if self._options.words.word_timestamps and not is_silence(result, self._options.thresholds):
            tokens = self._text_of(*guarded.found.pieces)
            if tokens and result.timings is None:  # a resumed result has its timings, and is not aligned again
                alignment = yield Align(
                    asked.seek, asked.n_frames, tokens, asked.language, asked.frames, asked.encoded_frames
                )
                result = replace(result, timings=alignment.words)
            if tokens:
                guarded = yield from self._guards.check_words(asked, result, found, guarded)
        has_prompt = self._reset < len(self._history)
        again = self._guards.must_decode_again(asked, result, found, self._clip(), has_prompt=has_prompt)
        if again is None:
            yield self._end_window(asked, result, guarded)
            return
        segments = self._move_on(asked, result, asked.seek, segments=None)
        self._guards.note_again(again, asked.span)
        if again.without_prompt:
            self._reset = len(self._history)
        else:
            self._spoken.forget_from(again.pauses[0].start)
        yield segments

    def _end_window(self, asked: Decode, result: WindowResult, guarded: Guarded) -> list[Segment]:
        """Make a window's segments, keep them, and move on."""
        window, with_words = asked.span, self._options.words.word_timestamps
        silent = is_silence(result, self._options.thresholds)
        if silent or not guarded.found.pieces:
            if not silent:
                self._keep(guarded, window)
            return self._move_on(asked, result, self._guards.go_on((), window, window.end), segments=None)
        settled = Settled(guarded.found.pieces, window.seek + guarded.found.advance)
        if with_words:
            result = replace(result, timings=result.timings or ())  # no text has no words
            settled = self._with_words(asked, guarded.found, result.timings or ())
        self._guards.keep(guarded, window)
        next_seek = settled.next_seek
        if settled.pieces is None:
            return self._move_on(asked, result, next_seek, segments=None)
        pieces = self._guards.check_pieces(settled.pieces, window)
        segments = [self._segment(piece, window.seek, result, i) for i, piece in enumerate(pieces)]
        segments = self._guards.place_words(segments, window)
        if with_words and not self._as_faster_whisper:
            segments = in_order(segments, self._given_until_s)
            if (cut_short := self._guards.before_overlong_word(segments, window, next_seek)) is not None:
                segments, next_seek = cut_short
                self._last_word_end_s = min(self._last_word_end_s, next_seek / FRAMES_PER_SECOND)
            for segment in segments:
                if segment.words:
                    self._given_until_s = max(segment.end_s, segment.words[-1].end_s)
        self._history.extend(token for segment in segments for token in segment.tokens)
        is_wild = result.temperature > self._options.context.prompt_reset_on_temperature
        if guarded.looped or is_wild or not self._options.context.condition_on_previous_text:
            self._reset = len(self._history)  # no window after a loop has the text that led to it as its prompt
        if not guarded.looped:  # the loop guard has set where to go on
            next_seek = self._guards.go_on(segments, window, next_seek)
        return self._move_on(asked, result, next_seek, segments=segments)

    def _keep(self, guarded: Guarded, window: WindowSpan) -> None:
        """Note what the guards removed from a window without remaining text."""
        self._guards.keep(guarded, window)
        if guarded.looped:
            self._reset = len(self._history)

    def _move_on(
        self, asked: Decode, result: WindowResult, next_seek: int, *, segments: list[Segment] | None
    ) -> list[Segment]:
        """Keep a window and its segments, and go on at `next_seek`; None: it is skipped, or decoded again."""
        self._seek = next_seek
        self._guards.end_window()
        self._spoken.end_window(with_text=any(one.text for one in segments or ()))
        self._keep_window(asked, result, next_seek, skipped=segments is None)
        given = self._timeline.segments(segments or ())
        self._segments.extend(given)
        return given

    def _keep_window(self, asked: Decode, result: WindowResult, next_seek: int, *, skipped: bool) -> None:
        window = Window(
            seek=asked.seek,
            n_frames=asked.n_frames,
            next_seek=next_seek,
            skipped=skipped,
            result=result,
            voices=asked.voices,
            encoded_frames=asked.encoded_frames,
        )
        self._windows.append(self._timeline.window(window))

    # Requests.

    def _request(self, window: WindowSpan) -> Asking[Detect | DetectSpeech, Decode]:
        """Ask for a window's language where needed; return the request for its text.

        A change of language resets the prompt.
        """
        voices = self._guards.voices(window.seek, window.end)
        yield from self._spoken.detect(window, self._timeline.frames(window.seek, window.end), voices)
        # Text in another language makes the decoder continue in it.
        if self._spoken.changed and not self._as_faster_whisper:
            self._reset = len(self._history)
        n_frames = self._spoken.size(window.seek, window.n_frames)
        end = window.seek + n_frames
        return Decode(
            seek=window.seek,
            n_frames=n_frames,
            prompt=tuple(self._prompt()),
            language=self.language,
            frames=self._timeline.frames(window.seek, end),
            voices=self._spoken.voices(window.seek, end) or self._guards.voices(window.seek, end),
            encoded_frames=encoded_frames(n_frames, self._options.method.audio_context),
        )

    def _prompt(self) -> list[int]:
        context, hotwords = self._options.context, self._hotwords.tokens
        if self._as_faster_whisper and context.prefix and not (context.prefix_once and self._seek):
            hotwords = ()
        return prompt_of(
            self._history,
            n_initial=len(self._initial),
            reset=self._reset,
            hotwords=hotwords,
            limit=self._prompt_limit,
            carry=self._options.context.carry_initial_prompt,
            hotwords_first=self._as_faster_whisper,
        )

    def _clip(self) -> tuple[int, int]:
        """The first frame of the clip that is decoded, and the first after it, in the loop's time."""
        start, end = self._clips[0]
        return start, end - (self._content_frames - self._timeline.n_frames)

    def _next_clip(self) -> None:
        """Go on with the next clip, in the recording's time."""
        del self._clips[0]
        if not self._clips:
            return
        self._seek = self._clips[0][0]
        self._last_word_end_s = self._timeline.end(self._last_word_end_s)
        goes_back = bool(self._windows) and self._windows[-1].seek > self._seek
        self._given_until_s = 0.0 if goes_back else self._timeline.end(self._given_until_s)
        self._timeline.put_back()

    # Answers.

    def _cut(self, asked: Decode, result: WindowResult) -> Cut:
        found = cut(result.tokens, asked.span, self._times, result.token_logprobs)
        ends_early = asked.n_frames < min(self._most_frames, self._clip()[1] - asked.seek)
        return bounded(found, asked.span) if ends_early else found

    def _text_of(self, *pieces: Piece) -> tuple[int, ...]:
        return text_of((token for piece in pieces for token in piece.tokens), self._tokenizer.special.eot)

    def _with_words(self, asked: Decode, found: Cut, timings: tuple[WordTiming, ...]) -> Settled:
        """Return a window's pieces with their words; words may drop pieces and change where the loop goes on."""
        window, options, last_word_end_s = asked.span, self._options.words, self._last_word_end_s
        pieces = place_words(
            found.pieces,
            timings,
            options,
            offset_s=window.start_s,
            last_speech_s=last_word_end_s,
            eot=self._tokenizer.special.eot,
        )
        settled = settle(
            replace(found, pieces=pieces),
            window,
            options.hallucination_silence_threshold,
            window_frames=self._most_frames if self._as_faster_whisper else asked.encoded_frames or self._window_frames,
            content_frames=self._timeline.n_frames,
            last_speech_s=last_word_end_s,
            to_last_word=self._as_faster_whisper,
        )
        if settled.pieces:
            self._last_word_end_s = last_word_end(settled.pieces) or 0.0
        return settled

    def _token_logprobs(self, piece: Piece) -> tuple[TokenLogprob, ...]:
        """Return a piece's tokens of text with their log-probabilities and bytes."""
        tokenizer = self._tokenizer
        return tuple(
            TokenLogprob(id=token, logprob=logprob, bytes=tokenizer.token_bytes(token))
            for token, logprob in zip(piece.tokens, piece.logprobs or (), strict=True)
            if token < tokenizer.special.eot
        )

    def _segment(self, piece: Piece, seek: int, result: WindowResult, offset: int) -> Segment:
        """Make a segment; one without length or text stays, with empty text and tokens."""
        text = self._tokenizer.decode(self._text_of(piece))
        empty = piece.start_s == piece.end_s or not text.strip()
        return Segment(
            id=len(self._segments) + offset,
            seek=seek,
            start_s=piece.start_s,
            end_s=piece.end_s,
            text="" if empty else text,
            tokens=() if empty else piece.tokens,
            temperature=result.temperature,
            avg_logprob=result.avg_logprob,
            compression_ratio=result.compression_ratio,
            no_speech_prob=result.no_speech_prob,
            flags=piece.flags,
            words=() if empty else piece.words if self._options.words.word_timestamps else None,
            token_logprobs=None if piece.logprobs is None else () if empty else self._token_logprobs(piece),
            language=self._spoken.of_segments,
        )
