"""Which ids a model is decoded with: those that its files state, with any added or padded vocabulary."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stapes
from stapes.backends.native.library import is_built
from stapes.checkpoint.open import open_checkpoint
from stapes.engine.engine import Engine
from stapes.engine.tasks import tokenizer_of
from stapes.errors import CheckpointError, OptionError, StapesWarning
from stapes.languages import LANGUAGES
from stapes.testing import noise, small_vocabulary, tiny_spec
from stapes.tokenizer import Tokenizer
from stapes.tokenizer.vocabulary import shipped_tokens
from tests import writers_of_checkpoints as write
from tests.vocabularies import Vocabulary, put, tensors_of, tokenizer_json, write_folder, write_tokenizer

SMALL = Vocabulary()
LARGER = dataclasses.replace(SMALL, codes=tuple(LANGUAGES))  # one language more, as large-v3 has
BASE = Vocabulary(tokens=shipped_tokens("multilingual"))
LARGE_V3 = dataclasses.replace(BASE, codes=tuple(LANGUAGES))
ENGLISH = Vocabulary(tokens=shipped_tokens("english"), multilingual=False)
#: sizes of weights of which nothing but the vocabulary matters
NARROW = dict.fromkeys(("n_audio_state", "n_text_state"), 2) | dict.fromkeys(
    ("n_audio_head", "n_text_head", "n_audio_layer", "n_text_layer"), 1
)
#: which of the tokenizer's files are there
EACH_TOKENIZER = ("tokenizer.json", "added_tokens.json", "tokenizer_config.json")


def tokenizer(folder: Path) -> Tokenizer:
    return tokenizer_of(open_checkpoint(folder))


def hold_to_statement(found: Tokenizer, stated: Vocabulary) -> None:
    """Compare all ids that the rules speak of with those of the description."""
    s, named = found.special, stated.named
    steering = (s.eot, s.sot, s.translate, s.transcribe, s.sot_lm, s.sot_prev, s.no_speech, s.no_timestamps)
    assert steering == tuple(named[name] for name in ("<|endoftext|>", "<|startoftranscript|>", *list(named)[-6:]))
    assert (s.timestamp_begin, s.n_timestamps) == (stated.begin, stated.n_timestamps)
    assert {f"<|{code}|>": one for code, one in s.languages.items()} == stated.lang_to_id
    assert found.multilingual == stated.multilingual
    assert found.unused == tuple(range(stated.end, stated.n_vocab))


# Added tokens and padding.


@pytest.mark.parametrize("tokenizer_file", EACH_TOKENIZER)
@pytest.mark.parametrize("with_generation", [True, False])
@pytest.mark.parametrize(
    "vocabulary",
    [
        SMALL,
        dataclasses.replace(SMALL, added=("<|foo|>",)),
        dataclasses.replace(SMALL, added=("concord", " returned", "<|foo|>"), padding=4),
        dataclasses.replace(SMALL, padding=1, timestamps_named=False),
        dataclasses.replace(SMALL, codes=("en", "gsw", "de", "tlh"), padding=64),
        dataclasses.replace(SMALL, tokens=SMALL.tokens[:300], codes=("nan",)),
    ],
    ids=["plain", "added", "words added", "unnamed", "other languages", "one language"],
)
def test_ids_are_those_of_the_files(
    tmp_path: Path, vocabulary: Vocabulary, tokenizer_file: str, with_generation: bool
) -> None:
    generation = vocabulary.generation_config() if with_generation else None
    folder = write_folder(tmp_path, vocabulary, tokenizer=tokenizer_file, generation=generation)
    hold_to_statement(tokenizer(folder), vocabulary)


@pytest.mark.parametrize(
    ("vocabulary", "n_mels"),
    [(BASE, 80), (LARGE_V3, 128), (ENGLISH, 80)],
    ids=["base", "large-v3", "tiny.en"],
)
@pytest.mark.parametrize(("padding", "with_tokenizer"), [(1, True), (0, False), (1, False), (7, False)])
def test_published_models_with_rows_added_keep_their_ids(
    tmp_path: Path, vocabulary: Vocabulary, n_mels: int, padding: int, with_tokenizer: bool
) -> None:
    """A row more makes base as large as large-v3, and tiny.en as large as base."""
    vocabulary = dataclasses.replace(vocabulary, padding=padding)
    spec = vocabulary.spec(n_mels=n_mels, **NARROW)
    kind = "tokenizer.json" if with_tokenizer else None
    folder = write_folder(tmp_path, vocabulary, tokenizer=kind, generation=vocabulary.generation_config(), spec=spec)
    found = tokenizer(folder)
    if padding and not with_tokenizer and not vocabulary.multilingual:  # nothing names languages then
        assert found.special == dataclasses.replace(tokenizer_of_published(ENGLISH, 80).special, languages={})
    else:
        hold_to_statement(found, vocabulary)
        assert found.special == tokenizer_of_published(vocabulary, n_mels).special
    assert found.encode(" hello there") == tokenizer_of_published(vocabulary, n_mels).encode(" hello there")


def tokenizer_of_published(vocabulary: Vocabulary, n_mels: int) -> Tokenizer:
    return Tokenizer(dataclasses.replace(vocabulary, padding=0).spec(n_mels=n_mels))


@pytest.mark.parametrize("n_added", [1, 7])
@pytest.mark.parametrize("format", ["huggingface", "openai", "ggml"])
def test_an_unpublished_size_is_refused_where_nothing_states_ids(tmp_path: Path, n_added: int, format: str) -> None:
    spec = dataclasses.replace(BASE, padding=n_added).spec(n_mels=80, **NARROW)
    tensors = tensors_of(dataclasses.replace(BASE, padding=n_added), spec)
    if format == "huggingface":
        path = write_folder(tmp_path / "m", dataclasses.replace(BASE, padding=n_added), tokenizer=None, spec=spec)
    elif format == "ggml":
        path = tmp_path / "ggml-m.bin"
        path.write_bytes(write.ggml_bytes(tensors, spec, tokens=BASE.tokens))
    else:
        path = write.write_openai(tmp_path / "m.pt", tensors, spec)
    with pytest.raises(CheckpointError) as caught:
        stapes.load(path, backend="numpy")
    said = str(caught.value)
    assert said.startswith(str(path))
    assert f"{51865 + n_added} ids" in said
    assert "tokenizer.json and generation_config.json" in said


def test_a_ggml_file_of_a_published_size_is_read_with_its_own_tokens(tmp_path: Path) -> None:
    spec = BASE.spec(n_mels=80, **NARROW)
    path = tmp_path / "ggml-m.bin"
    path.write_bytes(write.ggml_bytes(tensors_of(BASE, spec), spec, tokens=BASE.tokens))
    hold_to_statement(tokenizer(path), BASE)


def test_a_ggml_file_that_names_its_special_tokens_may_have_any_size(tmp_path: Path) -> None:
    vocabulary = dataclasses.replace(SMALL, codes=("en", "gsw"), padding=3)
    spec = vocabulary.spec(**NARROW)
    path = tmp_path / "ggml-m.bin"
    tokens = [*vocabulary.tokens, *(name.encode() for name in vocabulary.named)]
    path.write_bytes(write.ggml_bytes(tensors_of(vocabulary, spec), spec, tokens=tokens))
    hold_to_statement(tokenizer(path), vocabulary)


def test_a_tokenizer_without_generation_config_tells_languages_by_place_or_by_name(tmp_path: Path) -> None:
    """What stands between the start and the tasks is a language; of what was added, only what Whisper knows as one."""
    vocabulary = dataclasses.replace(SMALL, codes=("en", "gsw"), added=("<|foo|>",), appended_codes=("yue", "tlh"))
    found = tokenizer(write_folder(tmp_path, vocabulary))
    assert found.special.languages == {"en": 366, "gsw": 367, "yue": vocabulary.appended["<|yue|>"]}
    assert found.start_sequence("tlh", "transcribe")[1] == vocabulary.appended["<|tlh|>"]  # asked for by name


# What is never chosen.


def backends() -> list[Any]:
    kinds = [("numpy", "float32")]
    if is_built():
        kinds += [("native", precision) for precision in ("float32", "bfloat16", "int8")]
    return [pytest.param(*kind, id="-".join(kind)) for kind in kinds]


@pytest.mark.filterwarnings("ignore::stapes.errors.StapesWarning")
@pytest.mark.parametrize(("backend", "precision"), backends())
@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {"temperature": 0.0, "suppress_tokens": ""},
        {"temperature": 0.0, "beam_size": 5, "suppress_tokens": "5"},
        {"temperature": 1.0, "best_of": 3, "suppress_tokens": ""},
        {"temperature": 0.0, "without_timestamps": True},
        {"temperature": 0.0, "word_timestamps": True},
    ],
    ids=["greedy", "nothing suppressed", "beam", "sampled", "no timestamps", "words"],
)
def test_ids_after_the_timestamps_change_no_token(
    tmp_path: Path, backend: str, precision: str, options: dict[str, Any]
) -> None:
    """The rows after them are forty times as long as the others: unmasked, they would win every step."""
    padded = dataclasses.replace(SMALL, added=("<|foo|>",), padding=62)
    sound, found = noise(12.0, seed=3), []
    options = {"mode": "reference", "sample_len": 24, "logprob_threshold": None, "no_speech_threshold": None, **options}
    for vocabulary in (SMALL, padded):
        folder = write_folder(tmp_path / str(vocabulary.n_vocab), vocabulary, generation=vocabulary.generation_config())
        with stapes.load(folder, backend=backend, precision=precision) as engine:
            detected = engine.detect_language(sound)
            done = engine.transcribe(sound, **options)
            results = [one.result for one in done.windows]
            found.append((detected.language, done.text, [one.tokens for one in results]))
            scores = [(one.no_speech_prob, one.avg_logprob) for one in results]
            assert all(token < SMALL.end for one in results for token in one.tokens)
            assert any(one.tokens for one in results)
            if vocabulary is SMALL:
                expected = scores
            np.testing.assert_allclose(scores, expected, atol=0.02 if precision == "int8" else 1e-5)
    assert found[0] == found[1]


def test_ids_without_a_name_inside_the_vocabulary_are_never_chosen_either(tmp_path: Path) -> None:
    """A tokenizer that skips ids, and a list of languages that leaves some out."""
    named = SMALL.named
    generation = SMALL.generation_config() | {"lang_to_id": {"<|de|>": named["<|de|>"], "<|en|>": named["<|en|>"]}}
    found = tokenizer(write_folder(tmp_path, SMALL, generation=generation))
    others = {one for name, one in SMALL.lang_to_id.items() if name not in generation["lang_to_id"]}
    assert set(found.unused) == others
    assert tuple(found.special.languages) == ("en", "de")
    assert found.start_sequence("fr", "transcribe")[1] == named["<|fr|>"]  # the tokenizer names it: it may be asked for
    assert found.decode_with_timestamps([*found.encode("a"), named["<|fr|>"]]) == "a"


# Models without timestamps.


@pytest.mark.parametrize("with_tokenizer", [True, False])
def test_a_model_without_timestamps_says_so_and_runs_without(tmp_path: Path, with_tokenizer: bool) -> None:
    """An embedding that was cut to the tokenizer's length: older ones name no timestamps."""
    plainly: dict[str, Any] = {"mode": "reference", "temperature": 0.0, "sample_len": 8, "no_speech_threshold": None}
    vocabulary = dataclasses.replace(BASE, n_timestamps=0, added=("<|foo|>", "concord"))
    spec = vocabulary.spec(n_mels=80, **NARROW)
    kind = "tokenizer.json" if with_tokenizer else None
    folder = write_folder(tmp_path, vocabulary, tokenizer=kind, generation=vocabulary.generation_config(), spec=spec)
    with stapes.load(folder, backend="numpy") as engine:
        with pytest.warns(StapesWarning, match="has no timestamps: each window of up to 30 s becomes one segment"):
            done = engine.transcribe(noise(40.0), **plainly)
        assert [one.n_frames for one in done.windows] == [3000, 1000]
        assert len(done.segments) == 2
        assert all(token < vocabulary.begin for one in done.windows for token in one.result.tokens)
        with pytest.warns(StapesWarning) as caught:
            again = engine.transcribe(noise(40.0), word_timestamps=True, **plainly)
        assert len(caught) == 1
        assert again.windows[0].result.tokens == done.windows[0].result.tokens
        assert any(one.words for one in again.segments)
        done = engine.transcribe(noise(5.0), without_timestamps=True, **plainly)  # asked for: nothing to warn of


def test_an_embedding_that_ends_before_the_named_timestamps_has_none(tmp_path: Path) -> None:
    spec = dataclasses.replace(SMALL, n_timestamps=0).spec(**NARROW)
    folder = write_folder(tmp_path, dataclasses.replace(SMALL, n_timestamps=0), spec=spec)
    put(folder / "tokenizer.json", tokenizer_json(SMALL.tokens, SMALL.in_tokenizer))
    found = tokenizer(folder)
    assert not found.has_timestamps
    assert found.unused == ()


def test_a_token_that_was_added_where_timestamps_begin_leaves_none(tmp_path: Path) -> None:
    """Older tokenizers name no timestamps, and add a token right after no-timestamps."""
    vocabulary = dataclasses.replace(SMALL, timestamps_named=False)
    folder = write_folder(tmp_path, vocabulary, tokenizer=None, generation=vocabulary.generation_config())
    put(folder / "tokenizer.json", tokenizer_json(SMALL.tokens, SMALL.named | {"<|foo|>": SMALL.begin}))
    found = tokenizer(folder)
    assert not found.has_timestamps
    assert set(found.unused) == set(range(SMALL.begin, SMALL.end))


def test_a_model_without_a_token_for_no_timestamps_is_prompted_without_it(tmp_path: Path) -> None:
    vocabulary = dataclasses.replace(SMALL, n_timestamps=0)
    named = {name: one for name, one in vocabulary.named.items() if name != "<|notimestamps|>"}
    folder = write_folder(tmp_path, vocabulary, tokenizer=None)
    put(folder / "tokenizer.json", tokenizer_json(SMALL.tokens, named))
    found = tokenizer(folder)
    assert (found.has_timestamps, found.without_timestamps) == (False, ())
    with stapes.load(folder, backend="numpy") as engine, pytest.warns(StapesWarning, match="no timestamps"):
        engine.transcribe(noise(2.0), sample_len=4, word_timestamps=True)


# Contradictions.


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"no_timestamps_token_id": 471}, ("471 for <|notimestamps|> (no_timestamps_token_id)", "states 470")),
        ({"eos_token_id": 365}, ("365 for <|endoftext|> (eos_token_id)", "states 364")),
        ({"eos_token_id": [365]}, ("365 for <|endoftext|>", "states 364")),
        ({"decoder_start_token_id": 366}, ("366 for <|startoftranscript|>", "states 365")),
        ({"prev_sot_token_id": 467}, ("467 for <|startofprev|> (prev_sot_token_id)", "states 468")),
        ({"task_to_id": {"transcribe": 465}}, ("465 for <|transcribe|> (task_to_id['transcribe'])", "states 466")),
        ({"lang_to_id": {"<|en|>": 367}}, ("367 for <|en|> (lang_to_id)", "states 366")),
        ({"lang_to_id": {"<|gsw|>": 368, "<|de|>": 368}}, ("<|de|> and <|gsw|> share one id, 368",)),
        ({"lang_to_id": {"<|gsw|>": 99999}}, ("<|gsw|> has id 99999; the model has ids 0 to 1971",)),
        ({"lang_to_id": {"<|gsw|>": 465}}, ("<|translate|> and <|gsw|> share one id, 465",)),
        ({"lang_to_id": {"en": 366}}, ("lang_to_id has 'en', expected a name such as '<|en|>'",)),
        ({"lang_to_id": {"<|a\x1b[2Jb|>": 366}}, (r"lang_to_id has '<|a\x1b[2Jb|>', expected a name",)),
        ({"lang_to_id": [366]}, ("lang_to_id is [366], expected names with their ids",)),
        ({"no_timestamps_token_id": "470"}, ("no_timestamps_token_id is '470', expected a token id",)),
        ({"no_timestamps_token_id": True}, ("no_timestamps_token_id is True",)),
        ({"task_to_id": {"transcribe": -1}}, ("task_to_id['transcribe'] is -1",)),
        ({"lang_to_id": {"<|gsw|>": 1 << 40}}, ("lang_to_id is 1099511627776",)),
    ],
)
def test_files_that_contradict_each_other_are_refused_with_both_values(
    tmp_path: Path, change: dict[str, Any], said: tuple[str, ...]
) -> None:
    folder = write_folder(tmp_path, SMALL, generation=SMALL.generation_config() | change)
    with pytest.raises(CheckpointError) as caught:
        stapes.load(folder, backend="numpy")
    assert all(one in str(caught.value) for one in said), caught.value
    assert str(tmp_path) in str(caught.value)


def test_the_tokenizers_own_files_may_not_contradict_each_other(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, SMALL)
    put(folder / "tokenizer_config.json", {"added_tokens_decoder": {"467": {"content": "<|transcribe|>"}}})
    with pytest.raises(CheckpointError, match=r"467 for <\|transcribe\|>, and tokenizer.json states 466"):
        tokenizer(folder)


def test_an_added_tokens_file_beside_a_tokenizer_may_not_contradict_it(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, SMALL)
    put(folder / "added_tokens.json", LARGER.in_tokenizer)
    with pytest.raises(
        CheckpointError, match=r"added_tokens.json states id 466 for <\|translate\|>, and tokenizer.json"
    ):
        tokenizer(folder)
    put(folder / "added_tokens.json", SMALL.in_tokenizer | {"": 5})  # a token of text is no statement
    hold_to_statement(tokenizer(folder), SMALL)


def test_a_tokenizer_with_more_timestamps_than_ids_is_another_models(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, SMALL)
    put(folder / "tokenizer.json", tokenizer_json(LARGER.tokens, LARGER.in_tokenizer))
    with pytest.raises(CheckpointError, match="named up to id 1972, and the model has ids 0 to 1971"):
        tokenizer(folder)


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"no_timestamps_token_id": 50364}, "50364 for <|notimestamps|>, which the published model of its size has at"),
        ({"task_to_id": {"transcribe": 50360, "translate": 50359}}, "50359 for <|translate|>"),
        ({"lang_to_id": {"<|en|>": 50260}}, "50260 for <|en|>, which the published model of its size has at 50259"),
    ],
)
def test_a_published_layout_is_not_mixed_with_ids_that_contradict_it(
    tmp_path: Path, stated: dict[str, Any], said: str
) -> None:
    """A folder without tokenizer, of base's size, with a part of large-v3's generation_config.json."""
    folder = write_folder(tmp_path, BASE, tokenizer=None, generation=stated, spec=BASE.spec(**NARROW, n_mels=80))
    with pytest.raises(CheckpointError, match="does not state the ids of") as caught:
        tokenizer(folder)
    assert said in str(caught.value)


@pytest.mark.parametrize("decoder", [{"x": {"content": "a"}}, {"5": {}}, {"5": "a"}, {"-5": {"content": "a"}}])
def test_a_damaged_tokenizer_config_is_refused(tmp_path: Path, decoder: dict[str, Any]) -> None:
    folder = write_folder(tmp_path, SMALL)
    put(folder / "tokenizer_config.json", {"added_tokens_decoder": decoder})
    with pytest.raises(CheckpointError, match="added_tokens_decoder has"):
        tokenizer(folder)


def test_config_counts_only_without_a_generation_config(tmp_path: Path) -> None:
    """As in transformers: a stale config.json beside a generation_config.json is of no account."""
    stale = {"eos_token_id": 5, "decoder_start_token_id": 6}
    folder = write_folder(tmp_path / "a", SMALL, generation=SMALL.generation_config(), config=stale)
    hold_to_statement(tokenizer(folder), SMALL)
    folder = write_folder(tmp_path / "b", SMALL, config=stale)
    with pytest.raises(CheckpointError, match=r"config.json states id 5 for <\|endoftext\|>"):
        tokenizer(folder)


def test_what_is_null_or_of_no_account_states_nothing(tmp_path: Path) -> None:
    generation = dict.fromkeys(SMALL.generation_config()) | {"eos_token_id": [364, 99999], "suppress_tokens": []}
    hold_to_statement(tokenizer(write_folder(tmp_path, SMALL, generation=generation)), SMALL)


def test_special_tokens_before_text_are_refused_for_what_they_are(tmp_path: Path) -> None:
    """A newly trained tokenizer lists its special tokens first."""
    folder = write_folder(tmp_path, SMALL)
    names = list(SMALL.named)
    vocab = {name: i for i, name in enumerate(names)}
    vocab |= {write.spelled(token): len(names) + i for i, token in enumerate(SMALL.tokens)}
    put(folder / "tokenizer.json", tokenizer_json((), vocab) | {"model": {"type": "BPE", "vocab": vocab}})
    with pytest.raises(CheckpointError, match=r"special token '<\|endoftext\|>' has id 0; .* text come first"):
        tokenizer(folder)


# Languages.

OTHERS = dataclasses.replace(SMALL, codes=("en", "de", "gsw"), appended_codes=("zh-TW", "tlh"))


def others_engine(folder: Path) -> Engine:
    return stapes.load(write_folder(folder, OTHERS, generation=OTHERS.generation_config()), backend="numpy")


def test_languages_outside_the_table_are_detected_and_reported_by_code(tmp_path: Path) -> None:
    with others_engine(tmp_path) as engine:
        assert engine.info.languages == ("en", "de", "gsw", "zh-TW", "tlh")
        guess = engine.detect_language(noise(3.0), languages=["gsw", "<|zh-TW|>", "tlh"])
        assert sorted(guess.probabilities) == ["gsw", "tlh", "zh-TW"]
        for given in ({"languages": ["tlh"]}, {"language": "tlh"}, {"language": "<|tlh|>"}, {"language": "TLH"}):
            done = engine.transcribe(noise(3.0), sample_len=4, **given)
            assert done.language == "tlh"
        assert done.to_dict()["language"] == "TLH"  # as it was given, as in the reference
        done = engine.transcribe(noise(3.0), sample_len=4, multilingual=True, languages=["<|zh-TW|>", "gsw"])
        assert done.language in ("zh-TW", "gsw")
        done = engine.transcribe(noise(40.0), sample_len=4, mode="chunked", languages=["<|zh-TW|>"])
        assert done.language == "zh-TW"


def test_a_language_that_the_model_does_not_know_is_refused_before_audio_is_read(tmp_path: Path) -> None:
    missing = tmp_path / "no such recording.wav"
    with others_engine(tmp_path / "m") as engine:
        for given in ({"language": "fr"}, {"languages": ["en", "fr"]}, {"language": "xx"}, {"language": "<|zh-tw|>"}):
            with pytest.raises(OptionError, match=r"this model does not know .* has no language token <\|"):
                engine.transcribe(missing, **given)
        with pytest.raises(OptionError, match="xx"):
            engine.detect_language(missing, languages=["xx"])
        with pytest.raises(OptionError, match="French"):
            engine.align(missing, "a", language="fr")
        for name in ("transcribe", "notimestamps", "startoftranscript", "endoftext"):
            with pytest.raises(OptionError, match="unknown language"):
                engine.transcribe(missing, language=f"<|{name}|>")


def test_the_name_of_a_language_that_is_no_code_is_none(tmp_path: Path) -> None:
    """Names of tokens are not trusted: one that would move a terminal's cursor is shown nowhere as a language."""
    named = {("<|\x1b[2J|>" if name == "<|de|>" else name): one for name, one in SMALL.in_tokenizer.items()}
    folder = write_folder(tmp_path, SMALL, tokenizer=None)
    put(folder / "tokenizer.json", tokenizer_json(SMALL.tokens, named))
    found = tokenizer(folder)
    assert list(found.special.languages) == [code for code in SMALL.codes if code != "de"]
    assert found.unused == (SMALL.named["<|de|>"],)


def test_an_english_only_model_refuses_what_is_no_language_and_warns_of_the_others() -> None:
    english = Tokenizer(tiny_spec("english"))
    assert english.start_sequence("de", "transcribe") == (english.special.sot,)
    with pytest.raises(OptionError, match="'xx': this model knows English only"):
        english.start_sequence("xx", "transcribe")


def test_a_model_without_a_token_for_translation_transcribes_only(tmp_path: Path) -> None:
    named = {name: one for name, one in SMALL.in_tokenizer.items() if name != "<|translate|>"}
    named["<|spare|>"] = SMALL.named["<|translate|>"]
    folder = write_folder(tmp_path, SMALL, tokenizer=None)
    put(folder / "tokenizer.json", tokenizer_json(SMALL.tokens, named))
    with stapes.load(folder, backend="numpy") as engine:
        assert engine.capabilities.tasks == ("transcribe",)
        with pytest.raises(OptionError, match="task 'translate': this model has no token for it"):
            engine.transcribe(noise(1.0), task="translate")
        assert engine.transcribe(noise(1.0), sample_len=2, language="en").language == "en"


# CTranslate2.


def write_ctranslate2(folder: Path, vocabulary: Vocabulary, config: dict[str, Any], listed: list[str] | None) -> Path:
    spec = vocabulary.spec()
    write.write_ctranslate2(folder, tensors_of(vocabulary, spec), spec)
    (folder / "vocabulary.txt").unlink()
    put(folder / "config.json", config)
    if listed is not None:
        put(folder / "vocabulary.json", listed)
    return folder


def listed(vocabulary: Vocabulary) -> list[str]:
    """List tokens as CTranslate2 does: filled up with timestamps to the embedding's size."""
    found = [*map(write.spelled, vocabulary.tokens), *vocabulary.in_tokenizer]
    return [*found, *(f"<|{i * 0.02:.2f}|>" for i in range(vocabulary.n_vocab - len(found)))]


@pytest.mark.parametrize("timestamps_named", [True, False])
@pytest.mark.parametrize("english_is_listed", [True, False])
def test_a_ctranslate2_folder_states_ids_in_its_vocabulary_and_languages_in_its_config(
    tmp_path: Path, timestamps_named: bool, english_is_listed: bool
) -> None:
    vocabulary = dataclasses.replace(SMALL, padding=7, timestamps_named=timestamps_named)
    lang_ids = list(vocabulary.lang_to_id.values())[not english_is_listed :]
    folder = write_ctranslate2(tmp_path, vocabulary, {"lang_ids": lang_ids}, listed(vocabulary))
    hold_to_statement(tokenizer(folder), vocabulary)


def test_languages_appended_in_ctranslate2_are_known_from_its_config(tmp_path: Path) -> None:
    vocabulary = dataclasses.replace(SMALL, added=("<|foo|>",), appended_codes=("tlh",), padding=1)
    config = {"lang_ids": sorted(vocabulary.lang_to_id.values())}
    hold_to_statement(tokenizer(write_ctranslate2(tmp_path, vocabulary, config, listed(vocabulary))), vocabulary)
    (tmp_path / "vocabulary.json").unlink()
    write_tokenizer(tmp_path, vocabulary, "tokenizer.json")
    hold_to_statement(tokenizer(tmp_path), vocabulary)


def test_a_ctranslate2_list_of_languages_that_the_vocabulary_contradicts_is_refused(tmp_path: Path) -> None:
    for lang_ids, said in (([366, 5], "has 5"), ([366, 99999], "has 99999"), (["<|en|>"], "has '<|en|>'")):
        folder = write_ctranslate2(tmp_path / said, SMALL, {"lang_ids": lang_ids}, listed(SMALL))
        with pytest.raises(CheckpointError, match=r"lang_ids has .*, and no language of the vocabulary") as caught:
            tokenizer(folder)
        assert said in str(caught.value)


@pytest.mark.parametrize("with_list", [True, False])
@pytest.mark.parametrize("with_languages", [True, False])
def test_a_tokenizer_of_another_model_in_a_ctranslate2_folder_is_refused(
    tmp_path: Path, with_list: bool, with_languages: bool
) -> None:
    """large-v2's tokenizer.json beside large-v3's model.bin: every id after the languages is off by one."""
    lang_ids = list(LARGER.lang_to_id.values()) if with_languages else []
    folder = write_ctranslate2(tmp_path, LARGER, {"lang_ids": lang_ids}, listed(LARGER) if with_list else None)
    put(folder / "tokenizer.json", tokenizer_json(LARGER.tokens, LARGER.in_tokenizer))
    hold_to_statement(tokenizer(folder), LARGER)
    put(folder / "tokenizer.json", tokenizer_json(SMALL.tokens, SMALL.in_tokenizer))
    said = r"lang_ids has 465, and no language of the vocabulary has this id, which <\|translate\|> has"
    if with_list:
        said = r"vocabulary.json states id 466 for <\|translate\|>, and tokenizer.json states 465"
    if with_list or with_languages:
        with pytest.raises(CheckpointError, match=said):
            tokenizer(folder)
    else:  # nothing tells it from a model with a row more
        tokenizer(folder)


def test_ctranslate2s_list_of_languages_may_hold_other_added_tokens(tmp_path: Path) -> None:
    """Without lang_to_id, its converter lists what a tokenizer names as special and does not name as it does."""
    vocabulary = dataclasses.replace(SMALL, added=("[SPEAKER]", "<|pad|>"))
    others = [vocabulary.named["<|nospeech|>"], vocabulary.appended["[SPEAKER]"]]
    config = {"lang_ids": sorted([*vocabulary.lang_to_id.values(), *others])}
    folder = write_ctranslate2(tmp_path, vocabulary, config, None)
    put(folder / "tokenizer.json", tokenizer_json(vocabulary.tokens, vocabulary.in_tokenizer))
    hold_to_statement(tokenizer(folder), vocabulary)


def test_a_ctranslate2_folder_without_vocabulary_needs_a_published_size(tmp_path: Path) -> None:
    folder = write_ctranslate2(tmp_path, SMALL, {"lang_ids": [366]}, None)
    with pytest.raises(CheckpointError, match="states no vocabulary, and no published model has 1972 ids"):
        tokenizer(folder)


# Windows.


@pytest.mark.parametrize("positions", [1, 750, 1499, 3000])
@pytest.mark.parametrize("format", ["huggingface", "openai", "ctranslate2", "ggml"])
def test_windows_of_another_length_are_refused_before_weights_are_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, positions: int, format: str
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("weights were packed")

    monkeypatch.setattr("stapes.engine.load.open_backend", never)
    spec = dataclasses.replace(tiny_spec(), n_audio_ctx=positions)
    path = write.WRITERS[format](tmp_path / "model", write.random_tensors(spec), spec)
    seconds = f"{positions / 50:g} s"
    with pytest.raises(CheckpointError) as caught:
        stapes.load(path)
    assert f"max_source_positions (n_audio_ctx) is {positions}, for windows of {seconds}" in str(caught.value)
    assert "windows of 30 s, 1500 positions" in str(caught.value)


def test_small_vocabulary_states_all_special_tokens() -> None:
    assert dict(small_vocabulary().special) == SMALL.named
