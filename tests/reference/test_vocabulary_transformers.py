"""Ids as transformers reads them from the same files: end, start, languages, tasks, no-timestamps, first timestamp."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from stapes.checkpoint.open import open_checkpoint
from stapes.engine.tasks import tokenizer_of
from stapes.options import Task
from stapes.tokenizer import Tokenizer
from tests.random_cases import cases
from tests.vocabularies import Files, stated_files

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
generation_whisper = pytest.importorskip("transformers.models.whisper.generation_whisper")
pytestmark = [pytest.mark.reference, pytest.mark.filterwarnings("ignore")]

TASKS: tuple[Task, ...] = ("transcribe", "translate")


@settings(max_examples=cases(40, 400), deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(files=stated_files(with_generation=True))
def test_ids_are_those_that_transformers_decodes_with(files: Files) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = files.write(Path(name) / "model")
        ours = tokenizer_of(open_checkpoint(folder))
        model = transformers.WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        hold_to_generation(ours, model)
        # The library counts added tokens on, whatever ids a file with gaps states for them.
        has_gap = not files.vocabulary.timestamps_named and files.vocabulary.appended
        if files.tokenizer == "tokenizer.json" and not has_gap:
            theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
            hold_to_names(ours, theirs)


def hold_to_generation(ours: Tokenizer, model: Any) -> None:
    config, special = model.generation_config, ours.special
    assert special.eot == config.eos_token_id
    assert special.sot == config.decoder_start_token_id
    assert special.no_timestamps == config.no_timestamps_token_id
    assert {f"<|{code}|>": one for code, one in special.languages.items()} == config.lang_to_id
    assert {"transcribe": special.transcribe, "translate": special.translate} == config.task_to_id
    rules = generation_whisper.WhisperTimeStampLogitsProcessor(config, begin_index=1)
    assert special.timestamp_begin == rules.timestamp_begin
    for task in TASKS:
        for code in filter(str.islower, special.languages):  # others it does not find: it looks for lower case
            assert ours.start_sequence(code, task) == tuple(their_prompt(model, f"<|{code}|>", task, timestamps=True))
            untimed = (*ours.start_sequence(code, task), *ours.without_timestamps)
            assert untimed == tuple(their_prompt(model, f"<|{code}|>", task, timestamps=False))


def their_prompt(model: Any, language: str, task: str, *, timestamps: bool) -> list[int]:
    """The tokens that transformers' generate() begins with."""
    config = copy.deepcopy(model.generation_config)
    config.language, config.task, config.return_timestamps = language, task, timestamps
    made = model._retrieve_init_tokens(
        torch.zeros(1, 80, 3000), batch_size=1, generation_config=config, config=model.config,
        num_segment_frames=3000, kwargs={},
    )  # fmt: skip
    found: list[int] = made[0].tolist()
    return found


def hold_to_names(ours: Tokenizer, theirs: Any) -> None:
    """Every special token's id, by its name."""
    for one, name in ours.special.names.items():
        if name in theirs.get_vocab():
            assert theirs.convert_tokens_to_ids(name) == one
    for text in (" hello there", "don't", " ♪ é"):
        assert theirs.decode(ours.encode(text), clean_up_tokenization_spaces=False) == text
