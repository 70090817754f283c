"""The seek loop of one recording, as a state machine: no model, no audio, no clock.

`next` says what is needed, `accept` takes the answer:

    while (request := loop.next()) is not None:
        segments = loop.accept(answer(request))

Requests count frames in the loop's own time: the recording's, without pauses that were left out (`frames` maps them).
Whatever is told is in the recording's.

Word times change where the loop goes on: behind a window's result stands a question for its alignment (`Align`). Where
its scores are doubtful, the guards ask first who speaks there (`DetectSpeech`).

Source: openai/whisper transcribe.py at c0d2f62, transcribe(). Deviations, each where the reference would never end:
a clip's end is clamped to the recording's, and a window that points nowhere moves the loop on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from stapes.audio.mel import FRAMES_PER_SECOND
from stapes.decoding.quality import is_silence
from stapes.languages import LANGUAGES
from stapes.options import TranscribeOptions
from stapes.recording.guards.pause import Pause
from stapes.recording.guards.rules import Guarded
from stapes.recording.guards.state import Watch
from stapes.recording.language.per_window import Detect, LanguagePerWindow, most_spoken
from stapes.recording.prompts import Hotwords, prompt_limit, prompt_of
from stapes.recording.segments import Cut, Piece, Place, WindowGeometry, bounded, cut
from stapes.recording.time_map import Seam, Timeline, clips_in_frames
from stapes.recording.words.hallucination import Settled, Stretch, settle
from stapes.recording.words.timing import in_order, last_word_end, place_words
from stapes.results import Alignment, Flag, LanguageGuess, Segment, Transcript, Window, WindowResult, WordTiming
from stapes.tokenizer import Tokenizer
from stapes.vad.detector import DetectSpeech, Frames, SpeechMap

#: above this temperature a window's text is too wild to be the next window's prompt
_WILD = 0.5


@dataclass(frozen=True, slots=True)
class Decode:
    """Decode `n_frames` frames from frame `seek` on, behind the text `prompt`. Answer: WindowResult."""

    seek: int
    n_frames: int
    prompt: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Align:
    """Say where `tokens` of text lie in the window that was decoded just now. Answer: Alignment."""

    seek: int
    n_frames: int
    tokens: tuple[int, ...]


Request = Detect | Decode | Align | DetectSpeech
#: A window's result takes its alignment in: a result that has one needs no other answer. What is heard is not kept:
#: to listen again gives the same.
Answer = LanguageGuess | WindowResult | Alignment | SpeechMap


class SeekLoop:
    """Where a recording's transcription stands: the window to decode next, the text so far."""

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
        spliced_at: Sequence[Seam] = (),
    ) -> None:
        """Take the recording's length and the window's (3000), in frames of 10 ms, and the model's sizes.

        has_vad: whether `DetectSpeech` has an answer; the guards that need one stand only then.
        spliced_at: where the recording was put together out of spans.
        """
        self._content_frames = content_frames
        self._window_frames = window_frames
        self._frames_per_timestamp = window_frames // n_audio_ctx
        self._tokenizer = tokenizer
        self._options = options
        self._clips = clips_in_frames(options.clips.clip_timestamps, content_frames)
        self._seek = self._clips[0][0] if self._clips else content_frames
        prompt = options.context.initial_prompt
        self._initial = [] if prompt is None else tokenizer.encode(" " + prompt.strip())
        self._history: list[int] = list(self._initial)
        self._reset = 0  # the prompt begins here in the history
        self._prompt_limit = prompt_limit(n_text_ctx)
        self._hotwords = Hotwords.of(options.context.hotwords, tokenizer, n_text_ctx)
        self._segments: list[Segment] = []
        self._windows: list[Window] = []
        self._spoken = LanguagePerWindow(
            options.speech,
            content_frames=content_frames,
            only=None if tokenizer.multilingual else next(iter(LANGUAGES)),
            has_vad=has_vad,
        )
        self._asked: Request | None = None
        self._decoded: tuple[Decode, WindowResult] | None = None  # waits for its alignment
        self._last_word_end_s = 0.0  # as the reference has it: of the words as they were settled, before the guards
        self._told_until_s = 0.0  # where what was told ends, words or segments: nothing that is told later overlaps it
        self._timeline = Timeline(content_frames, spliced_at)
        self._watch = Watch(options.guards_on, tokenizer, self._timeline, has_vad=has_vad)

    @property
    def language(self) -> str | None:
        """The code of the language that the next window is decoded in; None while it is not known."""
        return self._spoken.language

    @property
    def language_guess(self) -> LanguageGuess | None:
        """What was detected; None if nothing was, or not yet."""
        return self._spoken.guess

    @property
    def last_window(self) -> Window:
        """The window whose result was accepted last."""
        return self._windows[-1]

    @property
    def flags(self) -> tuple[Flag, ...]:
        """What the guards did so far."""
        return self._watch.flags

    @property
    def seek(self) -> int:
        """How far the loop has come, in frames of the recording."""
        return self._timeline.frame(self._seek)

    def frames(self, first: int, end: int) -> Frames:
        """Say which frames of the recording a request's frames first..end are."""
        return self._timeline.frames(first, end)

    def voices(self, first: int, end: int) -> Frames:
        """Say where somebody speaks in a request's frames, counted from the first; none: no quiet voice is raised."""
        return self._spoken.voices(first, end) or self._watch.voices(first, end)

    def next(self) -> Request | None:
        """Say what is needed next; the same until it is answered. None: the recording is done."""
        if self._asked is None:
            self._asked = self._next_window()
        return self._asked

    def accept(self, answer: Answer) -> list[Segment]:
        """Take the answer to the last request; give the segments that came of it."""
        asked, self._asked = self._asked, None
        if isinstance(asked, Detect) and isinstance(answer, LanguageGuess):
            self._spoken.accept(answer)
            return []
        if isinstance(asked, Decode) and isinstance(answer, WindowResult):
            return self._accept_window(asked, answer)
        if isinstance(asked, Align) and isinstance(answer, Alignment) and self._decoded is not None:
            (decoded, result), self._decoded = self._decoded, None
            return self._accept_window(decoded, replace(result, timings=answer.words))
        if isinstance(asked, DetectSpeech) and isinstance(answer, SpeechMap):
            if self._spoken.is_listening:
                self._spoken.accept(answer)
                return []
            self._watch.hear(answer, is_opening=asked.is_opening)
            if self._decoded is None:
                return []
            (decoded, result), self._decoded = self._decoded, None
            return self._accept_window(decoded, result)
        raise TypeError(f"{type(answer).__name__} does not answer {asked!r}")

    def transcript(self, duration_s: float, warnings: tuple[str, ...] = ()) -> Transcript:
        """Give everything found so far."""
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

    # Where to decode.

    def _next_window(self) -> Detect | Decode | DetectSpeech | None:
        if self.language is None and (question := self._spoken.question_of_all()):
            return question
        while self._clips:
            start, end = self._clip()
            self._seek = self._spoken.start(max(self._seek, start))
            size = min(self._window_frames, end - self._seek)
            if size <= 0:
                self._next_clip()
                continue
            is_rest, is_first = size < self._window_frames, self._seek == start
            if self._watch.wants_to_know(is_rest=is_rest, is_first=is_first):
                return DetectSpeech(self._seek, size)
            if pauses := self._watch.other_pauses(Place(self._seek, size)):
                self._leave_out(pauses)
            elif self._watch.hears_nobody(is_rest=is_rest, is_first=is_first):
                self._watch.leave_out(Place(self._seek, size), is_rest=is_rest)
                self._seek += size
            else:
                return self._asked_or_decoded(self._watch.size(Place(self._seek, size), is_rest=is_rest))
        return None

    def _clip(self) -> tuple[int, int]:
        """The first frame of the clip that is decoded, and the first behind it, in the loop's own time."""
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
        self._told_until_s = 0.0 if goes_back else self._timeline.end(self._told_until_s)
        self._timeline.put_back()

    def _leave_out(self, pauses: Sequence[Pause]) -> None:
        self._watch.leave_out_pauses(pauses)
        self._spoken.forget_from(pauses[0].start)

    def _asked_or_decoded(self, size: int) -> Detect | Decode | DetectSpeech:
        """Ask for the language of a window, as far as that is to be asked, then for its text."""
        question = self._spoken.question(self._seek, size)
        if question is not None:
            return question
        if self._spoken.changed:  # text in another language pulls the decoder back to it
            self._reset = len(self._history)
        return Decode(self._seek, self._spoken.size(self._seek, size), tuple(self._prompt()))

    def _prompt(self) -> list[int]:
        return prompt_of(
            self._history,
            n_initial=len(self._initial),
            reset=self._reset,
            hotwords=self._hotwords.tokens,
            limit=self._prompt_limit,
            carry=self._options.context.carry_initial_prompt,
        )

    # What came of it.

    def _accept_window(self, asked: Decode, result: WindowResult) -> list[Segment]:
        place = Place(asked.seek, asked.n_frames)
        found = self._cut(asked, result)
        guarded = self._watch.filtered(found, place, asked.prompt)
        if (question := self._question(place, result, found, guarded)) is not None:
            self._decoded, self._asked = (asked, result), question
            return []
        if self._reads_again(asked, result, found, place):
            return []
        silent = is_silence(result, self._options.thresholds)
        if silent or not guarded.found.pieces:
            if not silent:
                self._watch.keep(guarded, place)
                self._forget_prompt_of(guarded)
            return self._move_on(asked, result, self._watch.go_on(place, (), place.end), segments=None)
        settled = Settled(guarded.found.pieces, asked.seek + guarded.found.advance)
        if self._options.words.word_timestamps:
            result = replace(result, timings=result.timings or ())  # no text has no words
            settled = self._with_words(asked, guarded.found, result.timings or ())
        self._watch.keep(guarded, place)
        if settled.pieces is None:
            return self._move_on(asked, result, settled.next_seek, segments=None)
        pieces = self._watch.heard_pieces(settled.pieces, place)
        segments = [self._segment(piece, asked.seek, result, i) for i, piece in enumerate(pieces)]
        segments, next_seek = self._watch.out_of_pauses(segments, place), settled.next_seek
        if self._options.words.word_timestamps:
            segments = in_order(segments, self._told_until_s)
            if (whole := self._watch.whole(place, segments, next_seek)) is not None:
                segments, next_seek = whole
                self._last_word_end_s = min(self._last_word_end_s, next_seek / FRAMES_PER_SECOND)
            for segment in segments:
                if segment.words:
                    self._told_until_s = max(segment.end_s, segment.words[-1].end_s)
        self._history.extend(token for segment in segments for token in segment.tokens)
        if not self._options.context.condition_on_previous_text or result.temperature > _WILD:
            self._reset = len(self._history)
        self._forget_prompt_of(guarded)
        if not guarded.looped:  # that guard has said where to go on
            next_seek = self._watch.go_on(place, segments, next_seek)
        return self._move_on(asked, result, next_seek, segments=segments)

    def _reads_again(self, asked: Decode, result: WindowResult, found: Cut, place: Place) -> bool:
        """Refuse a window's text for another reading: without its long pauses, and then without the text before it."""
        pauses = self._watch.spoiling_pauses(result, found, place, self._clip())
        silent = is_silence(result, self._options.thresholds) and self._watch.doubts_silence(place)
        if not pauses and not (silent and self._reset < len(self._history)):
            return False
        self._move_on(asked, result, asked.seek, segments=None)
        if pauses:
            self._leave_out(pauses)
        else:
            self._reset = len(self._history)
            self._watch.go_again(place)
        return True

    def _question(self, place: Place, result: WindowResult, found: Cut, guarded: Guarded) -> Request | None:
        """Say what else must be known of a window before it is settled."""
        if self._watch.doubts(result, found, place):
            return DetectSpeech(place.seek, place.n_frames)
        if is_silence(result, self._options.thresholds) or not self._options.words.word_timestamps:
            return None
        text = tuple(token for piece in guarded.found.pieces for token in self._text_of(piece))
        if text and result.timings is None:
            return Align(place.seek, place.n_frames, text)
        return self._watch.question_of_words(result, place) if text else None

    def _forget_prompt_of(self, guarded: Guarded) -> None:
        """Give no window behind a loop the text that led to it."""
        if guarded.looped:
            self._reset = len(self._history)

    def _cut(self, asked: Decode, result: WindowResult) -> Cut:
        geometry = WindowGeometry(
            seek=asked.seek,
            n_frames=asked.n_frames,
            frames_per_timestamp=self._frames_per_timestamp,
            timestamp_begin=self._tokenizer.special.timestamp_begin,
        )
        found = cut(result.tokens, geometry)
        ends_early = asked.n_frames < min(self._window_frames, self._clip()[1] - asked.seek)
        return bounded(found, geometry) if ends_early else found

    def _text_of(self, piece: Piece) -> tuple[int, ...]:
        return tuple(token for token in piece.tokens if token < self._tokenizer.special.eot)

    def _with_words(self, asked: Decode, found: Cut, timings: tuple[WordTiming, ...]) -> Settled:
        """Give a window's pieces their words, which may drop some of them, and change where the loop goes on."""
        stretch = Stretch(
            seek=asked.seek,
            n_frames=asked.n_frames,
            window_frames=self._window_frames,
            content_frames=self._timeline.n_frames,
            next_seek=asked.seek + found.advance,
            closed=found.closed,
        )
        options, eot = self._options.words, self._tokenizer.special.eot
        pieces = place_words(
            found.pieces, timings, options, offset_s=stretch.offset_s, last_speech_s=self._last_word_end_s, eot=eot
        )
        settled = settle(pieces, stretch, options.hallucination_silence_threshold, self._last_word_end_s)
        if settled.pieces:
            self._last_word_end_s = last_word_end(settled.pieces) or 0.0
        return settled

    def _segment(self, piece: Piece, seek: int, result: WindowResult, offset: int) -> Segment:
        """Make a segment; one that is as long as nothing, or says nothing, stays with empty text and tokens."""
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
            language=self._spoken.of_segments,
        )

    def _move_on(
        self, asked: Decode, result: WindowResult, next_seek: int, *, segments: list[Segment] | None
    ) -> list[Segment]:
        """Keep a window's segments and go on behind it; None: the window is skipped."""
        self._seek = next_seek
        window = Window(
            seek=asked.seek,
            n_frames=asked.n_frames,
            next_seek=next_seek,
            skipped=segments is None,
            result=result,
            voices=self.voices(asked.seek, asked.seek + asked.n_frames),
        )
        self._watch.moved_on()
        self._spoken.moved_on(with_text=any(one.text for one in segments or ()))
        self._windows.append(self._timeline.window(window))
        told = self._timeline.segments(segments or ())
        self._segments.extend(told)
        return told
