"""Replay the seek loop on fixed answers and write what it does, to show that a change leaves every decision as it was.

    python tools/replay.py scripts --count 100000 --out old.txt            random answers, no weights, minutes
    python tools/replay.py corpus FOLDER --modes default words --out old.txt    real recordings and weights
    python tools/replay.py compare old.txt new.txt                         what differs; ends with 1

`--source PATH` names the `src` folder of the tree to run; run it once for each tree (`git worktree add ../old COMMIT`).
Each line of the output holds a case and a digest of all its steps: request, its frames and language, voices, segments,
flags without their reason, windows, and the transcript. `--show CASE` prints these steps instead.
A script is also interrupted at a random step and resumed from the results a journal would hold; its digest stays.

What differs between trees (names of modules, requests and answers) is in `Loop` alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib
import importlib.util
import inspect
import itertools
import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parent.parent
Spans = tuple[tuple[int, int], ...]
#: the keywords of each mode of `record`
MODES: Final[dict[str, dict[str, Any]]] = {
    "default": {},
    "words": {"word_timestamps": True},
    "vad": {"vad": True},
    "multilingual": {"multilingual": True, "word_timestamps": True},
    "chunked": {"mode": "chunked"},
}
_LANGUAGES: Final = ("en", "de", "es", "fr")
_TEXTS: Final = (
    " the bone", " and then", " hello in there.", " one, two, three", " her", " -", " ...", " Re: order!", "♪♪", "a",
    " to to to",
)  # fmt: skip


def use_source(folder: Path | None) -> None:
    """Import stapes from a folder, whatever is installed; the native library stays the installed one."""
    if folder is None:
        return
    native = importlib.util.find_spec("stapes._native")
    for name in [one for one in sys.modules if one.split(".")[0] == "stapes"]:
        del sys.modules[name]
    sys.meta_path[:] = [one for one in sys.meta_path if "editable" not in type(one).__module__]
    sys.path.insert(0, str(folder.resolve()))
    if native is not None and native.origin is not None:
        importlib.import_module("stapes").__path__.append(str(Path(native.origin).parent))


@cache
def found(*places: str) -> Any:
    """Return the first of several `module:name` that this tree has."""
    for place in places:
        module, _, name = place.partition(":")
        try:
            return getattr(importlib.import_module(f"stapes.{module}"), name)
        except (ImportError, AttributeError):
            continue
    raise LookupError(f"this tree has none of {', '.join(places)}; add its name to tools/replay.py")


class Loop:
    """One seek loop of this tree, under names that do not change."""

    #: class of a request -> what it asks for
    KINDS: Final = {
        "Decode": "decode",
        "Align": "align",
        "Detect": "detect",
        "Listen": "speech",
        "DetectSpeech": "speech",
    }

    def __init__(self, loop: Any) -> None:
        self.inner = loop

    @classmethod
    def make(cls, content_frames: int, keywords: dict[str, Any], seams: Sequence[tuple[int, tuple[int, int]]]) -> Loop:
        """Make a loop over `content_frames` frames on the tiny vocabulary; seams: (frame, quiet frames around it)."""
        seam = found("recording.splice:Seam", "recording.time_map:Seam")
        return cls(
            found("recording.loop:SeekLoop")(
                content_frames=content_frames,
                window_frames=3000,
                n_audio_ctx=1500,
                n_text_ctx=448,
                tokenizer=tokenizer(),
                options=found("options:TranscribeOptions").from_keywords(keywords),
                spliced_at=[seam(*one) for one in seams],
                **{_parameter_for_vad(): True},
            )
        )

    def next(self) -> tuple[str, Any] | None:
        """Return (kind, request) of what is needed next."""
        request = self.inner.next()
        return None if request is None else (self.KINDS[type(request).__name__], request)

    def frames(self, request: Any) -> Spans:
        """Return the frames of the recording that a request is about."""
        if request.n_frames is None:
            return ((0, 3000),)
        stated = getattr(request, "frames", None)
        if stated is not None:
            return tuple(map(tuple, stated))
        return tuple(map(tuple, self.inner.frames(request.seek, request.seek + request.n_frames)))

    def voices(self, request: Any) -> Spans:
        """Return the speech that a request states."""
        stated = getattr(request, "voices", None)
        if stated is not None:
            return tuple(map(tuple, stated))
        return tuple(map(tuple, self.inner.voices(request.seek, request.seek + request.n_frames)))

    def language(self, request: Any) -> str | None:
        """Return the language that goes with a request."""
        stated = getattr(request, "language", None)
        language: str | None = stated if stated is not None else self.inner.language
        return language

    @staticmethod
    def speech(spans: Spans) -> Any:
        """Make the answer to a request for speech; spans: in the request's own frames."""
        return found("recording.listening:Heard", "vad.detector:SpeechMap", "vad.spans:SpeechMap")(spans)


@cache
def tokenizer() -> Any:
    """Return the tokenizer of the tiny vocabulary."""
    testing = importlib.import_module("stapes.testing")
    return found("tokenizer:Tokenizer")(testing.tiny_spec(), testing.small_vocabulary())


@cache
def _parameter_for_vad() -> str:
    known = inspect.signature(found("recording.loop:SeekLoop")).parameters
    return next(one for one in ("can_listen", "has_vad", "can_detect_speech") if one in known)


# What a loop did.


def plain(value: Any) -> Any:
    """Turn results into values whose text is the same in every tree: no class names, no reasons of flags."""
    if isinstance(value, (int, float, str)) or value is None:
        return value
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return [[key, plain(one)] for key, one in value.items()]
    kind: Any = type(value)
    return [[name, plain(getattr(value, name))] for name in _field_names(kind)]


#: fields of results that older trees do not have, and no script or case here asks for
_LATER = ("encoded_frames", "token_logprobs")


@cache
def _field_names(kind: Any) -> tuple[str, ...]:
    return tuple(one.name for one in dataclasses.fields(kind) if one.name not in ("reason", *_LATER))


@dataclasses.dataclass
class Trace:
    """The steps of one case."""

    shown: bool = False
    digest: Any = dataclasses.field(default_factory=hashlib.sha256)

    def step(self, *values: Any) -> None:
        """Note what happened."""
        line = repr(plain(values))
        self.digest.update(line.encode("utf-8", "surrogatepass"))
        if self.shown:
            print(line)


Answerer = Callable[[str, Any, Loop], Any]


def drive(loop: Loop, answer: Answerer, trace: Trace, *, until: int | None = None) -> list[Any]:
    """Drive a loop to its end, or for `until` answers; return a journal's answers: guesses and windows' results."""
    kept, n_windows, n_flags, n_answers = list[Any](), 0, 0, 0
    while True:
        asked = loop.next()
        flags = loop.inner.flags  # what a guard does before the next request counts with the answer before it
        trace.step(flags[n_flags:])
        n_flags = len(flags)
        if asked is None or (until is not None and n_answers >= until):
            return kept
        kind, request = asked
        described = _described(loop, kind, request)
        given = answer(kind, request, loop)
        segments = loop.inner.accept(given)
        n_answers += kind != "speech"
        trace.step(*described, segments)
        if kind == "detect":
            kept.append(given)
        windows = loop.inner.transcript(0.0).windows
        kept += [window.result for window in windows[n_windows:]]
        trace.step(windows[n_windows:])
        n_windows = len(windows)
        if n_answers > 5000:
            raise RuntimeError("the loop does not end")


def _described(loop: Loop, kind: str, request: Any) -> list[Any]:
    described = [kind, request.seek, request.n_frames, loop.frames(request)]
    if kind == "decode":
        return [*described, request.prompt, loop.language(request), loop.voices(request)]
    if kind == "align":
        return [*described, request.tokens, loop.language(request)]
    return [*described, request.part] if kind == "detect" else described


def resumed(loop: Loop, kept: Sequence[Any], answer: Answerer) -> None:
    """Run a new loop to the end of a journal's answers; requests for speech are answered again."""

    def answer_speech() -> None:
        while (asked := loop.next()) is not None and asked[0] == "speech":
            loop.inner.accept(answer(*asked, loop))

    answer_speech()
    for one in kept:
        loop.inner.accept(one)
        answer_speech()


# Random answers.


class Script:
    """One random case: options, a map of where speech is, and an answer for every request.

    An answer depends on the script and the request alone, so that a resumed loop gets the same ones.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._random = random.Random(number)  # noqa: S311 (cases, no secrets)
        self.content_frames = self._random.choice(
            (0, 1, 2999, 3000, 3001, *(self._random.randrange(1500 * i) for i in range(1, 9)))
        )
        self.keywords = self._options()
        self.speech = self._speech_map()
        self.seams = self._seams()

    def _options(self) -> dict[str, Any]:
        pick = self._random.choice
        n_clips = pick((0, 0, 0, 1, 2, 3, 4))
        clips = sorted(self._random.uniform(0, self.content_frames / 100 + 1) for _ in range(n_clips))
        if len(clips) > 2 and self._random.random() < 0.1:
            clips = [*clips[2:], *clips[:2]] if len(clips) % 2 == 0 else clips
        multilingual = pick((False, False, True))
        return {
            "language": None if multilingual else pick((None, "en", "de")),
            "multilingual": multilingual,
            "word_timestamps": pick((False, True)),
            "hallucination_silence_threshold": pick((None, None, 0.5, 2.0)),
            "condition_on_previous_text": pick((True, True, False)),
            "initial_prompt": pick((None, None, "names: Ada", "x" * 222)),
            "carry_initial_prompt": pick((False, True)),
            "hotwords": pick((None, None, "Malleus")),
            "no_speech_threshold": pick((0.6, 0.6, None)),
            "logprob_threshold": pick((-1.0, -1.0, None)),
            "clip_timestamps": tuple(clips) or (0.0,),
            "mode": pick(("sequential",) * 7 + ("reference",)),
            "language_detection_segments": pick((1, 1, 3)),
            **{name: self._random.random() < 0.9 for name in _GUARDS},
        }

    def _speech_map(self) -> Spans:
        at, spans = self._random.randrange(400), []
        while at < self.content_frames:
            length = self._random.choice((20, 60, 150, 400, 900, 2500))
            end = min(at + self._random.randrange(1, length), self.content_frames)
            spans.append((at, end))
            at = end + self._random.choice((10, 30, 80, 300, 700, 2500))
        return tuple(spans) if self._random.random() < 0.95 else ()

    def _seams(self) -> tuple[tuple[int, tuple[int, int]], ...]:
        if self._random.random() < 0.7 or self.content_frames < 1000:
            return ()
        places = sorted({self._random.randrange(100, self.content_frames - 100) for _ in range(3)})
        return tuple((at, (at - self._random.randrange(40), at + self._random.randrange(40))) for at in places)

    def answer(self, kind: str, request: Any, loop: Loop) -> Any:
        """Answer a request."""
        if kind == "speech":
            return loop.speech(self._speech_in(request, loop))
        content = [kind, request.seek, request.n_frames, loop.frames(request), getattr(request, "tokens", None)]
        key = repr((self.number, content, getattr(request, "prompt", None), getattr(request, "part", None)))
        draw = random.Random(key)  # noqa: S311
        return {"detect": self._guess, "decode": self._result, "align": self._alignment}[kind](request, draw)

    def _speech_in(self, request: Any, loop: Loop) -> Spans:
        speech, at = [], request.seek
        for first, end in loop.frames(request):
            inside = ((max(first, start), min(end, stop)) for start, stop in self.speech)
            speech += [(at + start - first, at + stop - first) for start, stop in inside if start < stop]
            at += end - first
        return tuple(speech)

    @staticmethod
    def _guess(_: Any, draw: random.Random) -> Any:
        order = draw.sample(_LANGUAGES, len(_LANGUAGES))
        share = draw.choice((0.97, 0.8, 0.55, 0.4))
        weights = (share, (1 - share) * 0.8, (1 - share) * 0.15, (1 - share) * 0.05)
        shares = dict(zip(order, weights, strict=True))
        language = max(shares, key=lambda code: shares[code])
        return found("results:LanguageGuess")(language=language, probabilities=shares)

    def _result(self, request: Any, draw: random.Random) -> Any:
        tokens = tuple(_tokens(request.n_frames, draw))
        special = tokenizer().special
        return found("results:WindowResult")(
            tokens=tokens,
            text=tokenizer().decode([one for one in tokens if one < special.eot]).strip(),
            avg_logprob=draw.choice((-0.1, -0.3, -0.6, -0.9, -1.2, -3.0)),
            no_speech_prob=draw.choice((0.0, 0.05, 0.3, 0.61, 0.9)),
            temperature=draw.choice((0.0, 0.0, 0.0, 0.4, 0.5, 0.6, 1.0)),
            compression_ratio=draw.choice((1.0, 1.5, 2.2, 2.5, 9.0)),
        )

    @staticmethod
    def _alignment(request: Any, draw: random.Random) -> Any:
        left, at, words = list(request.tokens), draw.choice((0.0, 0.0, 0.3, 2.0)), []
        timing = found("results:WordTiming")
        while left:
            size = draw.choice((1, 1, 2, 3))
            tokens, left = tuple(left[:size]), left[size:]
            at += draw.choice((0.0, 0.0, 0.0, 0.1, 0.5, 3.0, 9.0)) if draw.random() < 0.5 else 0.0
            end = at + draw.choice((0.0, 0.02, 0.2, 0.4, 1.2, 4.0))
            limit = request.n_frames / 100
            start, stop = min(at, limit), min(end, limit)
            text = tokenizer().decode(list(tokens))
            words.append(
                timing(text=text, tokens=tokens, start_s=start, end_s=stop, probability=draw.choice((0.05, 0.5, 0.99)))
            )
            at = end
        return found("results:Alignment")(tuple(words))


_GUARDS: Final = ("silence_guard", "tail_guard", "pause_guard", "loop_guard", "speech_guard")


def _tokens(n_frames: int, draw: random.Random) -> Iterator[int]:
    """Draw a window's tokens: most keep the timestamp rules, some loop, some are anything at all."""
    special, encode = tokenizer().special, tokenizer().encode
    begin, kind = special.timestamp_begin, draw.random()
    if kind < 0.05:
        yield from (draw.randrange(tokenizer().n_vocab) for _ in range(draw.randrange(9)))
        return
    if kind < 0.1:
        return
    last = draw.choice((n_frames // 2, 1500, max(1, n_frames // 5)))
    times = sorted(draw.randrange(last + 1) for _ in range(2 * draw.choice((1, 1, 2, 3, 6))))
    for start, end in (
        itertools.batched(times, 2) if hasattr(itertools, "batched") else zip(times[::2], times[1::2], strict=True)
    ):
        text = draw.choice(_TEXTS) * draw.choice((1, 1, 1, 2, 12 if kind > 0.9 else 3))
        yield begin + start
        yield from encode(text + draw.choice(_TEXTS))
        yield begin + end
    ending = draw.random()
    if ending < 0.3:
        yield begin + times[-1]
        yield from encode(draw.choice(_TEXTS))
    elif ending < 0.5:
        yield begin + times[-1]


def run_script(number: int, *, shown: bool = False) -> str:
    """Run one script, and once more interrupted and resumed; return its line."""
    script = Script(number)
    trace, make = Trace(shown), partial(Loop.make, script.content_frames, script.keywords, script.seams)
    loop = make()
    kept = drive(loop, script.answer, trace)
    whole = loop.inner.transcript(script.content_frames / 100)
    trace.step(whole)
    again = make()
    cut = random.Random(-number - 1).randrange(len(kept) + 1)  # noqa: S311
    resumed(again, kept[:cut], script.answer)
    drive(again, script.answer, Trace())
    if plain(again.inner.transcript(script.content_frames / 100)) != plain(whole):
        return f"{number} RESUMED OTHERWISE after {cut} of {len(kept)} answers"
    return f"{number} {trace.digest.hexdigest()[:32]}"


def _run_scripts(numbers: range, source: Path | None) -> list[str]:
    use_source(source)
    return [run_script(number) for number in numbers]


# Real recordings.


class _Traced:
    """While entered, every seek loop of the process notes its steps, each in its own trace."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._loops: list[tuple[Any, Trace]] = []
        self._class = found("recording.loop:SeekLoop")
        self._accept = self._class.accept

    def __enter__(self) -> _Traced:
        accept, traces = self._accept, self._loops

        def traced(inner: Any, answer: Any) -> Any:
            trace = next((trace for one, trace in traces if one is inner), None)
            if trace is None:
                trace = Trace(self._shown)
                traces.append((inner, trace))
            loop = Loop(inner)
            asked = loop.next()
            assert asked is not None
            described = _described(loop, *asked)
            segments = accept(inner, answer)
            trace.step(*described, None if asked[0] == "speech" else answer, segments)
            return segments

        self._class.accept = traced
        return self

    def __exit__(self, *_: object) -> None:
        self._class.accept = self._accept

    def digest(self) -> str:
        """Digest all loops in the order in which they were first answered."""
        whole = hashlib.sha256()
        for _, trace in self._loops:
            whole.update(trace.digest.digest())
        return whole.hexdigest()[:32]


def corpus_cases(folder: Path) -> Iterator[tuple[str, Path | list[Path]]]:
    """Yield (name, recording) of the corpus, and joined ones: every three that follow, with pauses of 3 to 30 s."""
    lines = (folder / "audio" / "manifest.jsonl").read_text("utf-8").splitlines()
    paths = [folder / "audio" / json.loads(line)["path"] for line in lines]
    paths = [path for path in paths if path.is_file() and "broken" not in path.parts and "formats" not in path.parts]
    for path in paths:
        yield path.relative_to(folder).as_posix(), path
    for at in range(0, len(paths) - 2, 3):
        yield f"joined {at}", paths[at : at + 3]


def _joined(paths: Sequence[Path], seed: int) -> Any:
    """Join recordings with pauses of faint noise between them: float32 samples at 16 kHz."""
    import numpy as np  # noqa: PLC0415 (not needed for comparing)

    from stapes.audio.load import load_audio  # noqa: PLC0415 (after use_source)

    draw, parts = np.random.default_rng(seed), []
    for path in paths:
        with load_audio(path) as recording:
            parts.append(recording.read(0, recording.n_samples))
        parts.append(draw.standard_normal(int(16_000 * draw.uniform(3, 30)), np.float32) * np.float32(1e-4))
    return np.concatenate(parts[:-1])


def run_corpus(
    folder: Path, modes: Sequence[str], *, model: str, precision: str, every: int = 1, case: str = ""
) -> Iterator[str]:
    """Transcribe the corpus in each mode; return a line for each.

    every: 1: all recordings; 5: every fifth.   case: only this one, printing its steps.
    """
    stapes = importlib.import_module("stapes")
    with stapes.load(model, precision=precision) as engine:
        for number, (name, what) in enumerate(corpus_cases(folder)):
            for mode in modes:
                if number % every or (case and case != f"{name} {mode}"):
                    continue
                audio = what if isinstance(what, Path) else _joined(what, number)
                with _Traced(shown=bool(case)) as traced:
                    transcript = engine.transcribe(audio, **MODES[mode])
                last = Trace(bool(case))
                last.step(transcript)
                yield f"{name} {mode} {traced.digest()} {last.digest.hexdigest()[:32]}"


def compare(old: Path, new: Path) -> int:
    """Print how many cases are equal, and the first that are not; return the exit status."""
    before, after = (path.read_text("utf-8").splitlines() for path in (old, new))
    if len(before) != len(after):
        print(f"{old} has {len(before)} cases, {new} has {len(after)}")
        return 1
    differing = [(one, other) for one, other in zip(before, after, strict=True) if one != other or "OTHERWISE" in one]
    for one, other in differing[:10]:
        print(f"- {one}\n+ {other}")
    print(f"{len(before) - len(differing)} of {len(before)} cases are equal")
    return 1 if differing or not before else 0


def main() -> int:
    """Run a subcommand."""
    parser = argparse.ArgumentParser(description="Replay the seek loop on fixed answers.")
    parser.add_argument("--source", type=Path, help="the src folder of the tree to run; left out: what is installed")
    commands = parser.add_subparsers(dest="command", required=True)
    scripts = commands.add_parser("scripts", help="random answers")
    scripts.add_argument("--count", type=int, default=100_000)
    scripts.add_argument("--jobs", type=int, default=2)
    scripts.add_argument("--out", type=Path)
    scripts.add_argument("--show", type=int, help="print the steps of one script")
    corpus = commands.add_parser("corpus", help="recordings through a real model")
    corpus.add_argument("folder", type=Path, help="holds audio/")
    corpus.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    corpus.add_argument("--model", default="base")
    corpus.add_argument("--precision", default="int8")
    corpus.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth recording")
    corpus.add_argument("--out", type=Path)
    corpus.add_argument("--show", default="", help="print the steps of one case, such as 'audio/jfk/jfk.flac words'")
    files = commands.add_parser("compare", help="two outputs")
    files.add_argument("old", type=Path)
    files.add_argument("new", type=Path)
    given = parser.parse_args()
    if given.command == "compare":
        return compare(given.old, given.new)
    use_source(given.source)
    if given.command == "scripts" and given.show is not None:
        print(run_script(given.show, shown=True))
        return 0
    lines = _script_lines(given) if given.command == "scripts" else run_corpus(
        given.folder, given.modes, model=given.model, precision=given.precision, every=given.every, case=given.show
    )  # fmt: skip
    with given.out.open("w", encoding="utf-8") if given.out else nullcontext(sys.stdout) as out:
        for line in lines:
            print(line, file=out, flush=True)
    return 0


def _script_lines(given: argparse.Namespace) -> Iterator[str]:
    parts = [range(at, min(at + 500, given.count)) for at in range(0, given.count, 500)]
    with ProcessPoolExecutor(given.jobs) as pool:
        for lines in pool.map(partial(_run_scripts, source=given.source), parts):
            yield from lines


if __name__ == "__main__":
    sys.exit(main())
