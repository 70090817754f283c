"""The interface of openai-whisper on a scripted model: shapes, names that programs replace, refusals."""

from __future__ import annotations

import inspect
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stapes
from stapes.compat import whisper
from stapes.compat.loading import RUN_AS_VARIABLE
from stapes.compat.tensors import TensorLike
from stapes.compat.whisper.model import ModelDimensions, Whisper, disable_sdpa, sinusoids
from stapes.engine.engine import Engine
from stapes.errors import StapesWarning
from stapes.testing import noise, random_engine, scripted_engine, small_vocabulary, tiny_spec
from stapes.tokenizer import Tokenizer

TOKENIZER = Tokenizer(tiny_spec(), small_vocabulary())
MODULE = sys.modules["stapes.compat.whisper.transcribe"]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    with scripted_engine([" One two three.", " Four five.", " Six."]) as made:
        monkeypatch.setattr(stapes, "load", lambda name, **_: made)
        yield made


@pytest.fixture
def model(engine: Engine) -> Any:
    return whisper.load_model("tiny")


def test_names_are_reachable_as_in_the_original() -> None:
    for name in ("audio", "decoding", "model", "timing", "tokenizer", "utils"):
        assert inspect.ismodule(getattr(whisper, name))
    assert inspect.isfunction(whisper.transcribe)
    assert MODULE.transcribe is whisper.transcribe
    assert vars(Whisper)["transcribe"] is whisper.transcribe
    assert vars(Whisper)["decode"] is whisper.decode
    assert whisper.__version__ == "20250625"
    assert len(whisper.available_models()) == 14
    assert whisper._MODELS["turbo"] == whisper._MODELS["large-v3-turbo"]
    assert "language" not in inspect.signature(whisper.transcribe).parameters
    assert "verbose" in Whisper.transcribe.__code__.co_varnames


def test_a_transcript_is_the_reference_s(engine: Engine, model: Any) -> None:
    sound = noise(70.0)
    cases: list[dict[str, Any]] = [
        {},
        {"language": "en", "word_timestamps": True},
        {"task": "translate", "temperature": 0},
    ]
    for options in cases:
        expected = engine.transcribe(sound, mode="reference", **options)
        assert model.transcribe(sound, **options) == expected.to_dict()
        assert whisper.transcribe(model, sound.view(TensorLike), fp16=False, **options) == expected.to_dict()
    assert model.transcribe(sound, language="English")["language"] == "English"
    found = model.transcribe(sound, prompt="is set by the loop")
    assert found["text"] == " One two three. Four five. Six."


def test_options_of_stapes_come_by_name(model: Any) -> None:
    assert model.transcribe(noise(3.0), mode="sequential", seed=3)["segments"]
    with pytest.raises(TypeError, match="unexpected keyword argument 'langage'"):
        model.transcribe(noise(3.0), langage="en")
    for wrong in ({"language": "xx"}, {"beam_size": 0}, {"temperature": "hot"}, {"patience": 2}, {"task": "sing"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            model.transcribe(noise(3.0), **wrong)
    with pytest.raises(RuntimeError, match=r"Failed to load audio: nothing\.wav: no such file"):
        model.transcribe("nothing.wav")


def test_segments_are_printed_as_they_come(model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    model.transcribe(noise(70.0), verbose=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Detecting the language")
    assert lines[1] == "Detected language: English"
    assert lines[2] == "[00:00.000 --> 00:29.980]  One two three."
    model.transcribe(noise(70.0), verbose=True, language="en")
    assert capsys.readouterr().out.splitlines()[0].startswith("[00:00.000")
    model.transcribe(noise(70.0))
    assert capsys.readouterr() == ("", "")
    model.transcribe(noise(70.0), verbose=False)
    out, err = capsys.readouterr()
    assert out == ""
    assert "7000/7000" in err


def test_programs_replace_the_bar(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Bar:
        def __init__(self, *, total: int, unit: str, disable: bool) -> None:
            seen.append((total, unit, disable))

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            seen.append("closed")

        def update(self, n: int) -> None:
            seen.append(n)

    monkeypatch.setattr(MODULE.tqdm, "tqdm", Bar)
    model.transcribe(noise(70.0))
    assert seen[0] == (7000, "frames", True)
    assert seen[-1] == "closed"
    assert sum(seen[1:-1]) == 7000


def test_a_model_looks_like_one_of_pytorch(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert issubclass(type(model), Whisper)
    assert isinstance(model.dims, ModelDimensions)
    assert (model.dims.n_mels, model.dims.n_text_ctx) == (80, 448)
    assert (model.device, model.device.type) == ("cpu", "cpu")
    assert model.is_multilingual
    assert model.num_languages == 99
    assert model.to("cpu") is model.cpu() is model.eval() is model.half() is model.float() is model
    assert model.to(np.float32) is model
    refused: list[Callable[[], object]] = [
        model.cuda, lambda: model.to("cuda:0"), lambda: whisper.load_model("tiny", device="cuda"),
    ]  # fmt: skip
    for call in refused:
        with pytest.raises(ValueError, match=r"device 'cuda:0'.*; or give 'cpu'"):
            call()
    monkeypatch.setenv(RUN_AS_VARIABLE, "whisper")
    with pytest.warns(StapesWarning, match="going on with the CPU"):
        assert model.cuda() is model
    model.transcribe = lambda: "replaced"
    assert model.transcribe() == "replaced"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = model.nothing
    with disable_sdpa():
        assert sinusoids(4, 6).shape == (4, 6)


def test_what_cannot_be_honoured_says_why(model: Any) -> None:
    calls: list[Callable[[], object]] = [
        lambda: model.encoder,
        lambda: model.decoder.blocks,
        lambda: model.parameters,
        lambda: model.state_dict,
        lambda: model.alignment_heads,
        lambda: model.embed_audio(None),
        lambda: model.logits(None, None),
        lambda: model(None, None),
        model.install_kv_cache_hooks,
        lambda: model.set_alignment_heads(b""),
        lambda: Whisper(model.dims),
        lambda: whisper.decoding.DecodingTask(model, whisper.DecodingOptions()),
        lambda: whisper.model.TextDecoder(1, 2, 3, 4, 5),
        lambda: model.decode(np.zeros((model.dims.n_audio_ctx, model.dims.n_audio_state), np.float32)),
    ]
    for call in calls:
        with pytest.raises(NotImplementedError, match=r"stapes|decode\(\)|load_model"):
            call()
    assert whisper.decoding.DecodingTask is whisper.decoding.DecodingTask
    assert issubclass(type("Mine", (whisper.model.AudioEncoder,), {}), whisper.model.AudioEncoder)
    for module in (whisper.decoding, whisper.model):
        with pytest.raises(AttributeError):
            _ = module.nothing


def test_windows_are_decoded() -> None:
    with random_engine() as engine:
        model = Whisper.of(engine)
        mels = np.stack([whisper.log_mel_spectrogram(whisper.pad_or_trim(noise(8.0, seed))) for seed in (1, 2)])
        options = whisper.DecodingOptions(language="en", sample_len=9, prompt="a b", prefix=[7, 8])
        both: Any = whisper.decode(model, mels, options)
        expected = engine.decode_windows(
            list(mels), language="en", sample_len=9, prompt=engine.tokenizer.encode(" a b"), prefix=[7, 8],
            max_initial_timestamp=1.0,
        )  # fmt: skip
        assert [one.tokens for one in both] == [list(one.result.tokens) for one in expected]
        assert model.decode(mels[1], options) == both[1]
        assert (both[0].temperature, both[0].language_probs, both[0].audio_features) == (0.0, None, None)
        assert whisper.decode(model, mels[0], options, sample_len=3).tokens == both[0].tokens[:3]  # type: ignore[union-attr]
        ids, shares = whisper.detect_language(model, mels)
        assert (ids.shape, len(shares), len(shares[0])) == ((2,), 2, 99)
        one_id, one_share = model.detect_language(mels[0])
        assert (int(one_id), one_share) == (int(ids[0]), shares[0])
        named: Any = whisper.decode(model, mels[0], task="lang_id")
        assert named.language_probs == shares[0]
        assert named.tokens == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"beam_size": 2, "best_of": 2, "temperature": 0.5},
        {"best_of": 2},
        {"patience": 2.0},
        {"beam_size": 2, "length_penalty": 1.5},
        {"language": "xx"},
    ],
)
def test_options_that_do_not_go_together(model: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"beam_size|best_of|length_penalty|language"):
        model.decode(np.zeros((80, 3000), np.float32), whisper.DecodingOptions(**wrong))


def test_an_unknown_model_is_a_runtime_error(tmp_path: Path) -> None:
    for wrong in ("nothing", str(tmp_path)):
        with pytest.raises(RuntimeError, match=wrong):
            whisper.load_model(wrong)


def test_a_file_is_fetched_once_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, fetched = b"weights" * 1000, []
    (tmp_path / "source").write_bytes(data)
    sha256 = whisper._sha256(tmp_path / "source")

    def opened(url: str) -> Any:
        fetched.append(url)
        return (tmp_path / "source").open("rb")

    monkeypatch.setattr("urllib.request.urlopen", opened)
    url = f"https://example.org/{sha256}/x.pt"
    path = whisper._download(url, str(tmp_path / "models"), False)
    assert path == str(tmp_path / "models" / "x.pt")
    assert whisper._download(url, str(tmp_path / "models"), True) == data
    assert fetched == [url]
    with pytest.raises(RuntimeError, match=f"has sha256 {sha256}"):
        whisper._download("https://example.org/abc/y.pt", str(tmp_path / "models"), False)
    with pytest.raises(ValueError, match="must begin with https"):
        whisper._download("file:///etc/passwd", str(tmp_path), False)
    assert [one.name for one in (tmp_path / "models").iterdir()] == ["x.pt"]


def test_the_command_is_that_of_stapes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(runpy, "run_module", lambda name, run_name: seen.append([name, run_name, *sys.argv[1:]]))
    monkeypatch.setattr(sys, "argv", ["whisper", "a.wav", "--model=base", "-f", "srt"])
    MODULE.cli()
    assert seen == [
        ["stapes", "__main__", "a.wav", "--model=base", "-f", "srt", "--output_dir", ".", "--mode", "reference",
         "--verbose", "True", "--precision", "float32"],
    ]  # fmt: skip
