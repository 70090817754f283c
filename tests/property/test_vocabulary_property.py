"""For any vocabulary, a checkpoint is decoded with the ids that its files state, or refused with the reason."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stapes.backends.numpy.backend import NumpyBackend
from stapes.checkpoint.open import open_checkpoint
from stapes.decoding.rules import DecodingRules
from stapes.engine.engine import Engine
from stapes.engine.tasks import tokenizer_of
from stapes.errors import CheckpointError
from stapes.options import Rules
from stapes.testing import noise
from stapes.tokenizer import Tokenizer
from tests.random_cases import random_cases
from tests.vocabularies import Files, Vocabulary, put, stated_files, tokenizer_json, vocabularies, write_folder


@contextmanager
def written(files: Files) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield files.write(Path(folder) / "model")


def hold_to(found: Tokenizer, files: Files) -> None:
    """Compare ids, prompts, and what may be chosen, with what the files state."""
    stated, special = files.vocabulary, found.special
    named = stated.named
    assert (special.eot, special.sot) == (named["<|endoftext|>"], named["<|startoftranscript|>"])
    assert special.languages == files.languages
    assert special.no_timestamps == named["<|notimestamps|>"]
    assert (special.timestamp_begin, special.n_timestamps) == (stated.begin, stated.n_timestamps)
    assert (special.sot_prev, special.no_speech) == (named["<|startofprev|>"], named["<|nospeech|>"])
    for code, one in files.languages.items():
        assert found.start_sequence(code, "transcribe") == (special.sot, one, named["<|transcribe|>"])
        assert found.start_sequence(code, "translate") == (special.sot, one, named["<|translate|>"])
    text, times = range(len(stated.tokens)), range(stated.begin, stated.end)
    places = {special.eot, *named.values()} | {one for one in files.languages.values() if one < stated.begin}
    for options in (Rules(), Rules(suppress_tokens=()), Rules(without_timestamps=True)):
        never = set(DecodingRules.make(found, options, 0.02).permanent.array.tolist())
        free = set(range(stated.n_vocab)) - never
        assert free <= {*text, *times, *places}
        assert {special.eot, *times} <= free


@random_cases(40, 2000)
@given(files=stated_files())
def test_a_model_is_decoded_with_the_ids_that_its_files_state(files: Files) -> None:
    with written(files) as folder:
        hold_to(tokenizer_of(open_checkpoint(folder)), files)


@pytest.mark.filterwarnings("ignore::stapes.errors.StapesWarning")
@random_cases(5, 200)
@given(files=stated_files(with_generation=True))
def test_any_of_them_is_transcribed_with_nothing_but_text_and_timestamps(files: Files) -> None:
    with written(files) as folder:
        checkpoint = open_checkpoint(folder)
        with Engine(checkpoint, NumpyBackend(checkpoint, threads=1)) as engine:
            done = engine.transcribe(
                noise(3.0), mode="reference", temperature=(0.0, 1.0), sample_len=12, no_speech_threshold=None
            )
    assert done.language in files.languages
    known = {*files.languages.values(), *files.vocabulary.named.values()}
    for window in done.windows:
        assert all(one < files.vocabulary.end for one in window.result.tokens)
        assert not any(one in files.vocabulary.appended.values() for one in window.result.tokens)
        assert all(
            one < len(files.vocabulary.tokens) or one >= files.vocabulary.begin or one in known
            for one in window.result.tokens
        )


KEYS = ("eos_token_id", "decoder_start_token_id", "no_timestamps_token_id")


@random_cases(25, 1000)
@given(files=stated_files(with_generation=True), data=st.data())
def test_statements_that_contradict_each_other_are_refused_with_both_values(files: Files, data: st.DataObject) -> None:
    assert files.generation is not None
    generation: dict[str, Any] = {**files.generation}
    place = data.draw(st.sampled_from([*KEYS, "lang_to_id", "task_to_id"]))
    off = data.draw(st.integers(1, 1500)) * data.draw(st.sampled_from([-1, 1]))
    if place in KEYS:
        right, generation[place] = generation[place], max(0, generation[place] + off)
        wrong = generation[place]
    else:
        key = data.draw(st.sampled_from(sorted(generation[place])))
        right = generation[place][key]
        wrong = max(0, right + off)
        generation[place] = generation[place] | {key: wrong}
    assume(files.tokenizer is not None)  # two files have to state something
    with written(replace(files, generation=generation)) as folder:
        with pytest.raises(CheckpointError) as caught:
            tokenizer_of(open_checkpoint(folder))
        said = str(caught.value)
        assert re.search(rf"\b{wrong}\b", said)
        assert re.search(rf"\b{right}\b", said)
        assert str(folder) in said


MISSING = ("<|startoftranscript|>", "<|transcribe|>", "the languages", "<|endoftext|>")


@random_cases(15, 500)
@given(vocabulary=vocabularies(), missing=st.sampled_from(MISSING))
def test_what_no_file_states_is_named_and_nothing_is_guessed(vocabulary: Vocabulary, missing: str) -> None:
    named = vocabulary.in_tokenizer
    left_out = set(vocabulary.lang_to_id) if missing == "the languages" else {missing}
    stated = {name: one for name, one in named.items() if name not in left_out}
    if missing == "<|transcribe|>":  # where its place is free, that tells it
        stated["<|spare|>"] = named[missing]
    with tempfile.TemporaryDirectory() as name:
        folder = write_folder(Path(name), vocabulary, tokenizer=None)
        put(folder / "tokenizer.json", tokenizer_json(vocabulary.tokens, stated))
        with pytest.raises(CheckpointError, match="does not state the ids of") as caught:
            tokenizer_of(open_checkpoint(folder))
        assert missing in str(caught.value)
        assert str(folder) in str(caught.value)
