"""One window's decoding against the reference's DecodingTask, both fed the same logits for the same tokens.

Tokens must be equal. Log-probabilities may differ by the rounding of float32 sums over 51,865 ids: below 1e-5.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest

from stapes.audio.mel import LogMel
from stapes.audio.pcm import recording_of_array
from stapes.backends.base import FloatArray
from stapes.backends.batch import step_one
from stapes.decoding.window import WindowDecoder, WindowSetting
from stapes.options import TranscribeOptions
from stapes.recording.base import TaskInputs
from stapes.recording.task import RecordingTask
from stapes.results import WindowResult
from stapes.testing import ScriptedBackend, tone
from tests.reference.both import (
    ENGLISH,
    LARGE_V3,
    MULTILINGUAL,
    FakeModel,
    TokenScript,
    our_tokenizer,
    spec_of,
    torch,
    whisper_decoding,
    whisper_transcribe,
)

pytest.importorskip("whisper")
pytestmark = [
    pytest.mark.reference,
    # The reference hands a tensor to np.argsort.
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]

LOGPROB_TOLERANCE = 1e-5


def talking(seed: int, n_vocab: int, *, ends: float = 0.12) -> TokenScript:
    """Random logits: a few likely words, timestamps that often win the vote, sometimes an end."""
    special = our_tokenizer(n_vocab).special
    known: dict[tuple[int, ...], FloatArray] = {}

    def script(tokens: tuple[int, ...]) -> FloatArray:
        if tokens not in known:
            random = np.random.default_rng((seed, zlib.crc32(np.array(tokens, dtype=np.int64).tobytes())))
            logits = random.standard_normal(n_vocab, dtype=np.float32)
            # Every sort of id is a candidate somewhere: words, forbidden signs, blanks, special ids.
            likely = [
                *random.integers(0, special.eot, size=6),
                *random.integers(special.eot, n_vocab, size=3),
                220,
                220,
            ]
            logits[likely] += random.uniform(4, 12, size=len(likely)).astype(np.float32)
            mood = random.random()
            if mood < 0.35:  # a time is likely: some single one, or all together
                logits[special.timestamp_begin + int(random.integers(0, 1501))] += np.float32(12)
                logits[special.timestamp_begin :] += np.float32(random.uniform(0, 4))
            elif mood < 0.35 + ends:
                logits[special.eot] += np.float32(random.uniform(9, 13))
            logits[special.eot] += np.float32(random.uniform(2, 8))
            logits[special.no_speech] += np.float32(random.uniform(0, 14))
            known[tokens] = logits
        return known[tokens].copy()

    return script


class ScriptedInference:
    """In the place of the reference's PyTorchInference: the script gives the logits of whole rows."""

    def __init__(self, model: ScriptedTask, initial_token_length: int) -> None:
        self._model = model
        self._n_initial = initial_token_length

    def logits(self, tokens, audio_features):
        n_rows, length = tokens.shape
        rows = [tuple(row.tolist()) for row in tokens]
        script, n_vocab = self._model.script, self._model.dims.n_vocab
        if length > self._n_initial:
            return torch.from_numpy(np.stack([script(row) for row in rows]))[:, None]
        # The first pass: only the last position and those of start-of-transcript are ever looked at.
        whole = np.zeros((n_rows, length, n_vocab), np.float32)
        sot = self._model.sot
        for position in {length - 1, *(i for i, one in enumerate(rows[0]) if one == sot)}:
            whole[:, position] = script(rows[0][: position + 1])
        return torch.from_numpy(whole)

    def rearrange_kv_cache(self, source_indices):
        pass

    def cleanup_caching(self):
        pass


class ScriptedTask(FakeModel):
    """A model that is a script."""

    def __init__(self, n_vocab: int, script: TokenScript) -> None:
        super().__init__(n_vocab)
        self.script = script
        self.sot = our_tokenizer(n_vocab).special.sot


@pytest.fixture(autouse=True)
def scripted_inference(monkeypatch):
    monkeypatch.setattr(whisper_decoding, "PyTorchInference", ScriptedInference)


def by_reference(n_vocab: int, script: TokenScript, options: dict[str, Any]) -> Any:
    model = ScriptedTask(n_vocab, script)
    encoded = torch.zeros((model.dims.n_audio_ctx, model.dims.n_audio_state))
    return whisper_decoding.decode(model, encoded, whisper_decoding.DecodingOptions(fp16=False, **options))


NO_THRESHOLDS = {"compression_ratio_threshold": None, "logprob_threshold": None, "no_speech_threshold": None}


def by_us(n_vocab: int, script: TokenScript, keywords: dict[str, Any], key: tuple[int, ...] = (0, 0)) -> WindowResult:
    keywords = {**NO_THRESHOLDS, "temperature": 0.0, **keywords}
    prompt = keywords.pop("prompt", None) or []
    options = TranscribeOptions.from_keywords({**keywords, "mode": "reference"})
    spec, tokenizer = spec_of(n_vocab), our_tokenizer(n_vocab)
    backend = ScriptedBackend(spec, lambda _, tokens: script(tokens))
    (window,) = backend.encode(np.zeros((1, spec.n_mels, 2 * spec.n_audio_ctx), np.float32))
    setting = WindowSetting.make(spec, tokenizer, options, options.speech.language_code)
    decoder = WindowDecoder(backend, window, setting, prompt, random_key=key)
    while decoder.result is None:
        decoder.accept(step_one(backend, decoder))
    backend.release(window)
    assert backend.n_open == 0
    assert decoder.result is not None
    return decoder.result


def compare(n_vocab: int, script: TokenScript, options: dict[str, Any]) -> WindowResult:
    """Decode on both sides, and hold every field of the results against each other."""
    options = {"language": "en", **options}
    theirs = by_reference(n_vocab, script, options)
    ours = by_us(n_vocab, script, options)
    hold_equal(ours, theirs)
    return ours


def hold_equal(ours: WindowResult, theirs: Any) -> None:
    assert list(ours.tokens) == theirs.tokens
    assert ours.text == theirs.text
    assert ours.avg_logprob == pytest.approx(theirs.avg_logprob, rel=0, abs=LOGPROB_TOLERANCE)
    assert ours.no_speech_prob == pytest.approx(theirs.no_speech_prob, rel=1e-5, abs=1e-9)
    assert ours.compression_ratio == theirs.compression_ratio
    assert ours.temperature == theirs.temperature


# Searches.

SEARCHES = [
    {},
    *(
        {"beam_size": size, "patience": patience}
        for size in (1, 2, 5)
        for patience in (None, 0.5, 1.0, 2.0)
        if round(size * (patience or 1)) > 0
    ),
]


def name_of(options: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in options.items()) or "greedy"


@pytest.mark.parametrize("length_penalty", [None, 0.0, 0.6, 1.0])
@pytest.mark.parametrize("search", SEARCHES, ids=name_of)
def test_searches_find_the_same_row(search, length_penalty):
    for seed in range(3):
        options = {**search, "length_penalty": length_penalty, "sample_len": 8}
        compare(MULTILINGUAL, talking(seed, MULTILINGUAL, ends=0.4), options)


@pytest.mark.parametrize("search", [{}, {"beam_size": 3, "patience": 2.0}], ids=name_of)
@pytest.mark.parametrize(
    "rules",
    [
        {"suppress_tokens": "-1"},
        {"suppress_tokens": ""},
        {"suppress_tokens": "-1,50"},
        {"suppress_tokens": [50, 220, 1000]},
        {"suppress_tokens": [-1, 7]},
        {"suppress_tokens": []},
        {"suppress_tokens": None},
        {"suppress_blank": False},
        {"suppress_blank": False, "without_timestamps": True, "length_penalty": 1.0},
        {"without_timestamps": True},
        {"without_timestamps": True, "suppress_tokens": ""},
        {"max_initial_timestamp": None},
        {"max_initial_timestamp": 0.0},
        {"max_initial_timestamp": 0.5},
        {"max_initial_timestamp": 0.03},
        {"max_initial_timestamp": 30.0},
    ],
    ids=name_of,
)
def test_rules_forbid_the_same_ids(rules, search):
    for seed in range(4):
        fresh = {key: list(value) if isinstance(value, list) else value for key, value in rules.items()}
        script = talking(100 + seed, MULTILINGUAL, ends=0.2)
        theirs = by_reference(MULTILINGUAL, script, {"language": "en", "sample_len": 8, **search, **fresh})
        ours = by_us(MULTILINGUAL, script, {"language": "en", "sample_len": 8, **search, **rules})
        hold_equal(ours, theirs)


@pytest.mark.parametrize(
    ("n_vocab", "language"),
    [*((n, code) for n in (ENGLISH, MULTILINGUAL, LARGE_V3) for code in ("en", "German", "su")), (LARGE_V3, "yue")],
)
@pytest.mark.parametrize("task", ["transcribe", "translate"])
def test_models_languages_and_tasks_start_alike(n_vocab, task, language):
    for options in ({}, {"without_timestamps": True}, {"beam_size": 2}):
        compare(n_vocab, talking(7, n_vocab), {"language": language, "task": task, "sample_len": 6, **options})


def prompt_of(n: int) -> list[int]:
    return [int(one) for one in np.random.default_rng(n).integers(0, 50256, size=n)]


@pytest.mark.parametrize("n_prompt", [0, 1, 5, 222, 223, 224, 400])
@pytest.mark.parametrize("prefix", [None, "", "  So, in the beginning ", " "])
@pytest.mark.parametrize("n_vocab", [ENGLISH, MULTILINGUAL])
def test_prompts_and_prefixes_come_before_alike(n_prompt, prefix, n_vocab):
    for without_timestamps in (False, True):
        options = {"prompt": prompt_of(n_prompt), "prefix": prefix, "without_timestamps": without_timestamps}
        compare(n_vocab, talking(11, n_vocab), {"sample_len": 6, **options})


@pytest.mark.parametrize("sample_len", [None, 0, 1, 3, 219, 222, 224, 227])
@pytest.mark.parametrize("prefix", ["one two three four five six", "stop"])
def test_prefixes_are_cut_by_sample_len_alike(sample_len, prefix):
    script = talking(13, MULTILINGUAL, ends=0.5)
    ours = compare(MULTILINGUAL, script, {"prefix": prefix, "sample_len": sample_len})
    assert len(ours.tokens) <= (sample_len or 224)


def droning(n_vocab: int) -> TokenScript:
    """Text that never ends, with one time at its beginning."""
    special = our_tokenizer(n_vocab).special

    def script(tokens: tuple[int, ...]) -> FloatArray:
        logits = np.random.default_rng(len(tokens)).standard_normal(n_vocab, dtype=np.float32)
        logits[special.timestamp_begin] += np.float32(20)
        logits[300 + len(tokens)] += np.float32(30)
        return logits

    return script


@pytest.mark.parametrize(
    ("n_vocab", "n_prompt", "expected"),
    [(MULTILINGUAL, 0, 224), (MULTILINGUAL, 400, 222), (ENGLISH, 400, 224), (MULTILINGUAL, 221, 224)],
)
def test_a_row_stops_where_the_context_is_full(n_vocab, n_prompt, expected):
    ours = compare(n_vocab, droning(n_vocab), {"prompt": prompt_of(n_prompt)})
    assert len(ours.tokens) == expected


def test_a_beam_stops_where_the_context_is_full():
    options = {"prompt": prompt_of(300), "prefix": "word " * 216, "beam_size": 2, "without_timestamps": True}
    ours = compare(MULTILINGUAL, droning(MULTILINGUAL), options)
    assert 0 < len(ours.tokens) < 10


def test_an_empty_row_ends_the_reference_but_not_us():
    """Divided by its length of nothing; we rank it as one token's length."""
    special = our_tokenizer(MULTILINGUAL).special
    options = {"language": "en", "suppress_blank": False, "without_timestamps": True}
    script = level(MULTILINGUAL, {special.eot: 0.0})
    with pytest.raises(ZeroDivisionError):
        by_reference(MULTILINGUAL, script, options)
    assert by_us(MULTILINGUAL, script, options).tokens == ()


# Equals.


def level(n_vocab: int, heights: dict[int, float]) -> TokenScript:
    """The same logits everywhere: a few ids stand out of a flat plain.

    The plain is deep: PyTorch's float32 sum loses small terms beside large ones (4e-5 for a plain 15 below).
    """

    def script(tokens: tuple[int, ...]) -> FloatArray:
        logits = np.full(n_vocab, -30, dtype=np.float32)
        for one, height in heights.items():
            logits[one] = height
        return logits

    return script


def test_of_equal_tokens_the_first_id_wins():
    script = level(MULTILINGUAL, {9000: 5.0, 400: 5.0, 30000: 5.0})
    ours = compare(MULTILINGUAL, script, {"sample_len": 3, "without_timestamps": True})
    assert ours.tokens == (400, 400, 400)


def test_the_larger_logit_wins_where_the_log_probabilities_round_to_the_same():
    larger = float(np.nextafter(np.float32(0.01), np.float32(1)))
    others = dict.fromkeys(range(1000, 4000), 0.0)  # so many that the two log-probabilities are about -8
    script = level(MULTILINGUAL, {**others, 400: 0.01, 9000: larger})
    ours = compare(MULTILINGUAL, script, {"sample_len": 3, "without_timestamps": True})
    assert ours.tokens == (9000, 9000, 9000)


def test_a_prompt_that_holds_start_of_transcript():
    """Only where nothing is suppressed can a window say it; the reference then looks for silence at the first one."""
    prompt = [500, our_tokenizer(MULTILINGUAL).special.sot, 600, 700]
    compare(MULTILINGUAL, talking(17, MULTILINGUAL), {"prompt": prompt, "suppress_tokens": "", "sample_len": 4})


# Sampling: the reference's draws are replaced by ours.


def draw_by(monkeypatch: pytest.MonkeyPatch, generators: Any) -> None:
    """Let the reference draw by inverting the distribution, with the numbers that our rows would use.

    generators: a function that gives the generator of the try that is going on.
    """

    def sample(self):
        logits = self.logits.double().numpy()
        uniforms = generators().random(len(logits))
        cumulated = np.cumsum(np.exp(logits - logits.max(axis=1, keepdims=True)), axis=1)
        found = [np.searchsorted(row, u * row[-1], side="right") for row, u in zip(cumulated, uniforms, strict=True)]
        return torch.tensor(found)

    monkeypatch.setattr(whisper_decoding.Categorical, "sample", sample)


def our_generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


@pytest.mark.parametrize("best_of", [None, 1, 2, 5])
@pytest.mark.parametrize("temperature", [0.2, 0.7, 1.0])
@pytest.mark.parametrize("length_penalty", [None, 0.0, 1.0])
def test_of_several_draws_the_same_row_wins(best_of, temperature, length_penalty, monkeypatch):
    for seed in range(4):
        key = (seed, 100 * seed)
        random = our_generator(*key, 0)
        draw_by(monkeypatch, lambda random=random: random)
        options = {"language": "en", "best_of": best_of, "length_penalty": length_penalty, "sample_len": 7}
        script = talking(seed, MULTILINGUAL, ends=0.4)
        theirs = by_reference(MULTILINGUAL, script, {**options, "temperature": temperature})
        ours = by_us(MULTILINGUAL, script, {**options, "temperature": temperature}, key)
        hold_equal(ours, theirs)


def test_of_equal_rows_the_first_wins(monkeypatch):
    script = level(MULTILINGUAL, dict.fromkeys((400, 9000, 20000, 30000), 30.0))
    for seed in range(8):
        random = our_generator(seed, 0, 0)
        draw_by(monkeypatch, lambda random=random: random)
        options = {"language": "en", "best_of": 5, "sample_len": 2, "without_timestamps": True, "temperature": 1.0}
        hold_equal(by_us(MULTILINGUAL, script, options, (seed, 0)), by_reference(MULTILINGUAL, script, options))


# Whole recordings over one script: the ladder of temperatures, prompts and seeks together.


class ScriptedRecording(ScriptedTask):
    """A model for the reference's transcribe(), whose mel frames hold their own number."""

    def __init__(self, n_vocab: int, script: TokenScript, seed: int, temperatures: tuple[float, ...]) -> None:
        super().__init__(n_vocab, script)
        self._seed, self._temperatures = seed, temperatures
        self.random = our_generator(0)
        self.tried: list[tuple[int, float]] = []

    def decode(self, mel, options):
        seek = int(mel[0, 0]) - 1
        self.tried.append((seek, options.temperature))
        self.random = our_generator(self._seed, seek, self._temperatures.index(options.temperature))
        encoded = torch.zeros((self.dims.n_audio_ctx, self.dims.n_audio_state))
        return whisper_decoding.decode(self, encoded, options)


@pytest.mark.parametrize("seed", range(12))
def test_whole_recordings_climb_the_same_ladder(seed, monkeypatch):
    temperatures = (0.0, 0.3, 0.6, 1.0)
    keywords: dict[str, Any] = {
        "language": "en",
        "temperature": temperatures,
        "beam_size": [None, 2, 3][seed % 3],
        "best_of": [None, 3][seed % 2],
        "sample_len": 9,
        "logprob_threshold": [-1.4, -1.8, -2.2][seed % 3],
        "no_speech_threshold": [0.6, 0.2, None][seed // 3 % 3],
        "initial_prompt": [None, "Names: Ada and Bob."][seed // 2 % 2],
        "carry_initial_prompt": seed % 4 == 1,
        "max_initial_timestamp": None,
        "condition_on_previous_text": seed % 5 != 0,
    }
    content_frames = 9000 + 100 * seed
    script = talking(seed, MULTILINGUAL, ends=0.35)
    model = ScriptedRecording(MULTILINGUAL, script, seed, temperatures)
    draw_by(monkeypatch, lambda: model.random)
    mel = torch.arange(1, content_frames + 3001, dtype=torch.float32)[None]
    monkeypatch.setattr(whisper_transcribe, "log_mel_spectrogram", lambda *_, **__: mel)
    theirs = whisper_transcribe.transcribe(model, "", fp16=False, **keywords)

    transcript = our_transcript(script, content_frames, {**keywords, "seed": seed})
    tried = [(window.seek, one.temperature) for window in transcript.windows for one in window.result.tries]
    assert tried == model.tried
    hold_segments_equal(transcript.to_dict(), theirs)


def our_transcript(script: TokenScript, content_frames: int, keywords: dict[str, Any]) -> Any:
    spec = spec_of(MULTILINGUAL)
    backend = ScriptedBackend(spec, lambda _, tokens: script(tokens))
    recording = recording_of_array("tone", tone(content_frames / 100))
    inputs = TaskInputs(
        recording=recording,
        mel=LogMel(recording, spec.n_mels, kernel=backend.log10_mel),
        backend=backend,
        tokenizer=our_tokenizer(MULTILINGUAL),
    )
    task = RecordingTask(inputs, TranscribeOptions.from_keywords({**keywords, "mode": "reference"}))
    while not task.done:
        if task.needs_window:
            task.attach(backend.encode(task.mel()[None])[0])
        task.accept(step_one(backend, task))
    assert backend.n_open == 0
    return task.result()


def hold_segments_equal(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Equal, but for the rounding of the window's scores."""
    for one, other in zip(ours["segments"], theirs["segments"], strict=True):
        for name in ("avg_logprob", "no_speech_prob"):
            assert one.pop(name) == pytest.approx(other.pop(name), rel=1e-5, abs=LOGPROB_TOLERANCE)
    assert ours == theirs
