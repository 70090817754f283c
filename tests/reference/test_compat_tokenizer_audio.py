"""`stapes.compat.whisper` beside the original: every id, word, signature and language equal, log-mel within rounding;
and what stands for tensors beside PyTorch's.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stapes.compat.loading import usable_device
from stapes.compat.tensors import TensorLike, as_device, float32_of, is_tensor, tensor_of
from stapes.compat.whisper import audio, tokenizer
from stapes.languages import LANGUAGES
from stapes.testing import noise
from tests.reference.both import torch, whisper_audio, whisper_tokenizer

pytest.importorskip("whisper")
pytestmark = pytest.mark.reference

PATH = str(Path(__file__).parents[2] / "samples" / "stapes.flac")
#: PyTorch's float32 transform is itself up to 2.1e-5 from the exact log-mel
TOLERANCE = 1e-4
#: multilingual, languages of the model
MODELS = [(False, 99), (True, 99), (True, 100)]
each_model = pytest.mark.parametrize(("multilingual", "num_languages"), MODELS, ids=["english", "99", "100"])
quick = settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
#: the original refuses names of special tokens
texts = st.text(max_size=60).filter(lambda text: "<|" not in text)


# Tokenizer.


def both_tokenizers(multilingual: bool, num_languages: int, language: str | None = None, task: str | None = None):
    options = {"num_languages": num_languages, "language": language, "task": task}
    return [one.get_tokenizer(multilingual, **options) for one in (tokenizer, whisper_tokenizer)]


def test_languages_are_equal_in_order():
    assert list(tokenizer.LANGUAGES.items()) == list(whisper_tokenizer.LANGUAGES.items())
    assert list(tokenizer.TO_LANGUAGE_CODE.items()) == list(whisper_tokenizer.TO_LANGUAGE_CODE.items())


@each_model
@pytest.mark.parametrize("task", [None, "transcribe", "translate"])
@pytest.mark.parametrize("language", [None, "en", "Japanese", "CASTILIAN", "su"])
def test_every_property_is_equal(multilingual, num_languages, language, task):
    ours, theirs = both_tokenizers(multilingual, num_languages, language, task)
    theirs_has = [
        name for name, one in vars(whisper_tokenizer.Tokenizer).items() if isinstance(one, cached_property)
    ]  # fmt: skip
    assert len(theirs_has) == 14
    for name in (*theirs_has, "num_languages", "language", "task", "sot_sequence", "special_tokens"):
        if name == "language_token" and theirs.language is None:
            for one in (ours, theirs):
                with pytest.raises(ValueError, match="language"):
                    _ = one.language_token
        elif name.startswith("all_language_"):  # in the order of a set of texts, there
            assert sorted(getattr(ours, name)) == sorted(getattr(theirs, name))
        else:
            assert getattr(ours, name) == getattr(theirs, name), name
    assert dict(zip(ours.all_language_tokens, ours.all_language_codes, strict=True)) == dict(
        zip(theirs.all_language_tokens, theirs.all_language_codes, strict=True)
    )


@each_model
def test_every_language_starts_alike(multilingual, num_languages):
    for code in list(LANGUAGES)[:num_languages]:
        ours, theirs = both_tokenizers(multilingual, num_languages, code, "translate")
        assert ours.sot_sequence_including_notimestamps == theirs.sot_sequence_including_notimestamps
        assert ours.to_language_token(code) == theirs.to_language_token(code)


@each_model
def test_encodings_are_equal(multilingual, num_languages):
    name = "multilingual" if multilingual else "gpt2"
    # By keyword, as in both.py: the original's cache knows a call by its form, and its files stay open.
    ours, theirs = (one.get_encoding(name=name, num_languages=num_languages) for one in (tokenizer, whisper_tokenizer))
    assert (ours.name, ours.n_vocab, ours.eot_token) == (theirs.name, theirs.n_vocab, theirs.eot_token)
    assert ours.special_tokens_set == theirs.special_tokens_set
    assert ours.token_byte_values() == theirs.token_byte_values()
    for one in range(theirs.n_vocab):
        assert ours.decode_single_token_bytes(one) == theirs.decode_single_token_bytes(one)


@each_model
@quick
@given(text=texts, language=st.sampled_from(["en", "fr", "ja", "th"]))
def test_any_text_is_encoded_decoded_and_split_alike(multilingual, num_languages, text, language):
    ours, theirs = both_tokenizers(multilingual, num_languages, language)
    ids = ours.encode(text)
    assert ids == theirs.encode(text)
    ids += [ours.timestamp_begin + 7, ours.eot]
    assert ours.decode(ids) == theirs.decode(ids) == text + "<|endoftext|>"
    assert ours.decode_with_timestamps(ids) == theirs.decode_with_timestamps(ids)
    for name in ("split_to_word_tokens", "split_tokens_on_unicode", "split_tokens_on_spaces"):
        assert getattr(ours, name)(ids) == getattr(theirs, name)(ids)


def test_ids_of_arrays_and_tensors_are_taken():
    ours, theirs = both_tokenizers(True, 99)
    ids = torch.tensor(ours.encode(" Hello there"))
    assert ours.decode(ids.tolist()) == theirs.decode(ids.tolist())
    assert ours.decode(ids.numpy()) == theirs.decode(ids.numpy())


@pytest.mark.parametrize("text", ["<|endoftext|>", "a<|0.00|>"])
def test_names_of_special_tokens_are_refused_or_read_alike(text):
    ours, theirs = both_tokenizers(True, 99)
    for one in (ours, theirs):
        with pytest.raises(ValueError, match="special token"):
            one.encode(text)
    assert ours.encode(text, allowed_special="all") == theirs.encode(text, allowed_special="all")
    assert ours.encode(text, disallowed_special=()) == theirs.encode(text, disallowed_special=())


def test_the_same_errors():
    for module in (tokenizer, whisper_tokenizer):
        with pytest.raises(ValueError, match="Unsupported language: klingon"):
            module.get_tokenizer(True, language="Klingon")
        with pytest.raises(ValueError, match="not in"):
            module.get_tokenizer(True, language="yue")
        with pytest.raises(KeyError):
            module.get_tokenizer(True).to_language_token("yue")
        with pytest.raises(FileNotFoundError):
            module.get_encoding("cl100k")


def test_the_same_signatures():
    def parameters(function: Any) -> list[Any]:
        return [(one.name, one.kind, one.default) for one in inspect.signature(function).parameters.values()]

    for ours, theirs in ((audio, whisper_audio), (tokenizer, whisper_tokenizer)):
        named = {name: one for name, one in vars(theirs).items() if getattr(one, "__module__", "") == theirs.__name__}
        assert len(named) >= 3
        for name, one in named.items():
            if not inspect.isclass(one):
                assert parameters(getattr(ours, name)) == parameters(one), name
    own, original = tokenizer.Tokenizer, whisper_tokenizer.Tokenizer
    assert [one.name for one in dataclasses.fields(own)] == [one.name for one in dataclasses.fields(original)]
    for name, one in vars(original).items():
        if inspect.isfunction(one) and not name.startswith("__"):
            assert parameters(getattr(own, name)) == parameters(one), name


# Sound.


def test_constants_are_equal():
    names = [name for name, one in vars(whisper_audio).items() if name.isupper() and isinstance(one, int)]
    assert len(names) == 9
    assert {name: getattr(audio, name) for name in names} == {name: getattr(whisper_audio, name) for name in names}


def test_files_are_loaded_alike():
    ours, theirs = audio.load_audio(PATH), whisper_audio.load_audio(PATH)
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    assert np.abs(ours - theirs).max() <= 1 / 32768


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100])
def test_files_at_another_rate(rate):
    ours, theirs = audio.load_audio(PATH, rate), whisper_audio.load_audio(PATH, rate)
    assert ours.shape == theirs.shape
    assert np.sqrt(np.mean((ours - theirs) ** 2)) <= 0.02 * theirs.std()  # the filters differ at their edge


@pytest.mark.parametrize("n_mels", [80, 128])
def test_mel_filters_are_equal(n_mels):
    ours, theirs = audio.mel_filters("cpu", n_mels), whisper_audio.mel_filters("cpu", n_mels)
    assert ours.dtype == theirs.dtype
    assert torch.equal(ours, theirs)


SOUNDS = {
    "noise": noise(3.0, seed=1),
    "noise of a tensor": torch.from_numpy(noise(3.0, seed=1)),
    "half": torch.from_numpy(noise(3.0, seed=1)).half(),
    "with gradients": torch.from_numpy(noise(1.0, seed=1)).requires_grad_(),
    "batch": np.stack([noise(1.0, seed=1), noise(1.0, seed=2, level=1e-4), np.zeros(16000, np.float32)]),
    "batch of one": torch.from_numpy(noise(1.0, seed=1)[None]),
    "file": PATH,
    **{f"{n} samples": noise(1.0, seed=6)[:n] for n in (201, 319, 320, 399, 400, 401, 15999)},
}


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize("padding", [-1, 0, 1, 159, 400, 480_000])
@pytest.mark.parametrize("name", SOUNDS)
def test_log_mel_is_equal(name, padding, n_mels):
    ours = audio.log_mel_spectrogram(SOUNDS[name], n_mels, padding)
    theirs = whisper_audio.log_mel_spectrogram(SOUNDS[name], n_mels, padding).detach()
    assert torch.is_tensor(ours)
    assert (ours.dtype, ours.shape, ours.device) == (torch.float32, theirs.shape, theirs.device)
    assert (ours - theirs).abs().max() <= TOLERANCE


@pytest.mark.parametrize(("n", "padding"), [(0, 480_000), (1, 480_000), (100, 200)])
def test_nearly_nothing_and_zeros(n, padding):
    sound = noise(1.0)[:n]
    ours, theirs = (one.log_mel_spectrogram(sound, padding=padding) for one in (audio, whisper_audio))
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= TOLERANCE


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((noise(1.0), 81), AssertionError),
        ((noise(1.0)[:200],), RuntimeError),
        ((noise(1.0)[:0],), RuntimeError),
        ((noise(1.0).reshape(1, 1, -1),), RuntimeError),
        (((noise(1.0) * 32767).astype(np.int16),), RuntimeError),
        ((noise(1.0), 80, 1.5), TypeError),
        (("missing.wav",), RuntimeError),
        ((Path(PATH),), TypeError),
        (([0.0] * 1000,), TypeError),
        ((None,), TypeError),
        ((noise(1.0), 80, 0, "nowhere"), RuntimeError),
    ],
)
def test_log_mel_raises_the_same_errors(arguments, error):
    for module in (audio, whisper_audio):
        with pytest.raises(error):
            module.log_mel_spectrogram(*arguments)


@pytest.mark.parametrize("file", ["missing.wav", __file__, "", 3.5, None])
def test_load_audio_raises_the_same_errors(file):
    raised = []
    for module in (audio, whisper_audio):
        with pytest.raises((RuntimeError, TypeError)) as caught:
            module.load_audio(file)
        raised.append((caught.type, str(caught.value)[:21] if caught.type is RuntimeError else ""))
    assert raised[0] == raised[1]


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64])
@pytest.mark.parametrize("axis", [-1, 0, 1, 2])
@pytest.mark.parametrize("length", [0, 1, 3, 4, 9])
def test_padding_and_trimming_is_equal(length, axis, dtype):
    array = np.arange(60).reshape(3, 4, 5).astype(dtype)
    ours, theirs = (one.pad_or_trim(array, length, axis=axis) for one in (audio, whisper_audio))
    assert ours.dtype == theirs.dtype
    assert np.array_equal(ours, theirs)
    tensor = torch.from_numpy(array)
    ours, theirs = (one.pad_or_trim(tensor, length, axis=axis) for one in (audio, whisper_audio))
    assert ours.dtype == theirs.dtype
    assert torch.equal(ours, theirs)
    assert (ours is tensor) == (theirs is tensor)


# What stands for tensors, beside PyTorch's.

#: for each method or attribute that arrays and tensors both have: calls whose results must be equal, or be refused
CALLS = {
    "T": None, "mT": None, "real": None, "shape": None, "ndim": None, "itemsize": None, "nbytes": None, "data": None,
    "all": [(), (0,), (-1,)], "any": [(), (1,)], "argmax": [(), (0,)], "argmin": [(), (1,)], "argsort": [(), (0,)],
    "clip": [(1.0, 3.0)], "conj": [()], "cumprod": [(0,)], "cumsum": [(1,)], "diagonal": [(), (1,)],
    "flatten": [()], "max": [(), (0,)], "min": [(), (1,)], "mean": [(), (0,), ((0, 1),)], "nonzero": [()],
    "prod": [(), (0,)], "ravel": [()], "repeat": [(2,), (2, 1)], "reshape": [(3, 2), (-1,), ((6, 1),)],
    "round": [()], "size": [(), (0,)], "sort": [(), (0,)], "squeeze": [(), (0,), (1,), ((0, 1),)],
    "std": [(), (0,)], "sum": [(), (0,), (-1,), ((0, 1),)], "swapaxes": [(0, 1)], "tolist": [()], "trace": [()],
    "transpose": [(0, 1), (1, 0)], "var": [(), (0,)], "view": [(3, 2), (-1,)],
    "dot": [], "item": [], "take": [], "put": [], "resize": [], "imag": None, "device": None, "dtype": None,
}  # fmt: skip
#: those of them that are refused: name, number of arguments
REFUSED = {
    *((name, n) for name in ("nonzero", "repeat", "sort", "std", "transpose", "var") for n in range(3)),
    *((name, n) for name in ("max", "min", "view") for n in (1, 2)),
}
#: only tensors have these, and so does what stands for them
OF_TENSORS = {
    "cpu": [()], "detach": [()], "half": [()], "float": [()], "numpy": [()], "unsqueeze": [(0,), (1,), (-1,)],
    "to": [("cpu",), (as_device("cpu"),)],
}  # fmt: skip


def as_array(value: Any) -> Any:
    """Return a result in the same form from either side: numbers and their shape."""
    if isinstance(value, torch.Tensor):
        return value.numpy()
    assert not isinstance(value, tuple) or all(isinstance(one, int) for one in value), "several tensors"
    return np.asarray(value)


@pytest.mark.parametrize("name", [*CALLS, *OF_TENSORS])
@pytest.mark.parametrize("shape", [(2, 3), (1, 3), (1, 1)])
def test_methods_do_what_tensors_do_or_are_refused(name, shape, monkeypatch):
    array = np.array([3, 1, 2, 0.5, -1.25, 7], np.float32)[: np.prod(shape)].reshape(shape)
    tensor, ours = torch.from_numpy(array.copy()), array.copy().view(TensorLike)
    calls: Any = {**CALLS, **OF_TENSORS}[name]
    if calls is None:
        if name not in ("imag", "dtype", "device", "data"):
            assert np.array_equal(as_array(getattr(ours, name)), as_array(getattr(tensor, name)))
        return
    for arguments in calls:
        if name == "reshape" and array.size != 6 and arguments != (-1,):
            continue
        # The program has no PyTorch; this test has.
        with monkeypatch.context() as patch:
            patch.delitem(sys.modules, "torch")
            if (name, len(arguments)) in REFUSED:
                with pytest.raises(NotImplementedError, match="import torch first"):
                    getattr(ours, name)(*arguments)
                continue
            found = getattr(ours, name)(*arguments)
        expected = as_array(getattr(tensor, name)(*arguments))
        assert as_array(found).shape == expected.shape, arguments
        assert np.allclose(as_array(found), expected), arguments


def test_the_list_of_common_methods_is_complete():
    common = {name for name in dir(np.ndarray) if not name.startswith("_")} & set(dir(torch.Tensor))
    assert common == CALLS.keys()


def test_names_of_tensors_alone_are_refused():
    ours = np.ones((2, 3), np.float32).view(TensorLike)
    alone = {name for name in dir(torch.Tensor) if not name.startswith("_")} - set(dir(np.ndarray)) - OF_TENSORS.keys()
    assert len(alone) > 400
    for name in alone:
        with pytest.raises(AttributeError, match="import torch first"):
            getattr(ours, name)


def test_with_torch_there_are_tensors():
    array = noise(0.1)
    tensor = tensor_of(array)
    assert isinstance(tensor, torch.Tensor)
    assert is_tensor(tensor)
    assert np.shares_memory(tensor.numpy(), array)
    array.flags.writeable = False
    assert torch.equal(tensor_of(array), tensor)  # without PyTorch's warning
    assert as_device("cpu") == torch.device("cpu")
    assert usable_device(torch.device("cpu")) == "cpu"
    with pytest.raises(ValueError, match="cuda:0"):
        usable_device(torch.device("cuda:0"))


def test_numbers_of_any_tensor():
    numbers = torch.tensor([[1.0, -2.5], [0.25, 4.0]])
    for one in (numbers, numbers.half(), numbers.bfloat16(), numbers.double(), numbers.clone().requires_grad_()):
        assert float32_of(one).dtype == np.float32
        assert np.array_equal(float32_of(one), numbers.numpy())
    assert np.array_equal(float32_of(numbers.T), numbers.numpy().T)


def test_torch_that_comes_later(monkeypatch):
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "torch")
        mel, device = audio.log_mel_spectrogram(PATH), as_device("cpu")
    assert type(mel) is TensorLike
    assert device == torch.device("cpu")
    assert torch.device("cpu") == device
    assert device != torch.device("cuda")
    assert torch.device(device) == torch.device("cpu")
    assert mel.to(device, torch.float16).dtype == torch.float16
    assert torch.equal(torch.as_tensor(mel), audio.log_mel_spectrogram(PATH))
