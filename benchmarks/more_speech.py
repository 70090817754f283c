"""Lays out recorded speech with transcripts beside the project's corpus: some 13,000 English words, more of others.

    python -m benchmarks.more_speech FOLDER [--repository OWNER/NAME=CLONE ...]

Writes FOLDER/manifest.jsonl and 16 kHz FLAC files. Short utterances of one voice are joined, up to a window of Whisper.
What the project's corpus has already is left out, and so are prompts without words: tones, letters and numbers.

Debian's packages need `apt-get` and `dpkg-deb`, and an archive that has the versions of `_PACKAGES`. The others are
read from local clones that have the commits of `_REPOSITORIES`. A source that is not there is named and left out.
The same sources and the same PyAV give the same files. Recordings under 6 s are left out.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.int16]
#: reads the files of a package, or of folders of a repository: {path: content}
Read = Callable[..., dict[str, bytes]]

_RATE: Final = 16_000
_LONGEST_S: Final = 28.0
_SHORTEST_S: Final = 6.0  # a window costs the same whatever it holds
_SILENCE_S: Final = 0.6
#: Debian's packages: version and sha256
_PACKAGES: Final = {
    "asterisk-core-sounds-en": ("1.6.1-1", "973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50"),
    "asterisk-core-sounds-en-g722": ("1.6.1-1", "38c5261820b406dcb0ecb37675720da2b0864850690690352ca52707eb623806"),
    "asterisk-core-sounds-es": ("1.6.1-1", "9afdab7f559f036649fb406e625899306ca1004df8ebe39c30bfbd5912d66f74"),
    "asterisk-core-sounds-es-g722": ("1.6.1-1", "e4e3b4281057d3b81b779298fd6be705f57411513955c518eed1bcaabbd615b8"),
    "asterisk-core-sounds-fr": ("1.6.1-1", "04c82c78c570c43a7136cbc5e2488d0c470b775468dff9fbce4a131b18cf1056"),
    "asterisk-core-sounds-fr-g722": ("1.6.1-1", "7add61d5e42279ecff1bbdf842a5a946ac3644fac9a0fe44384731aa7270c8e0"),
    "asterisk-core-sounds-it": ("1.6.1-1", "3884d9457e12f21caa018c18f0d587df5d53ebea14b673d8453a134c5941ab3b"),
    "asterisk-core-sounds-it-g722": ("1.6.1-1", "46b4cf7afc508a5fcfc051b7ea233251c0d195dd4ef83cc4b7facb4c6429b016"),
    "asterisk-core-sounds-ru": ("1.6.1-1", "28a61616bb0cd3345a7ea532dec4df9f071e5d0fa9f8c1a563ea9669002f39ab"),
    "asterisk-core-sounds-ru-g722": ("1.6.1-1", "673b4238a6b8269960f055d868c6a11083f7a0d00979167cb01554046b48ed9b"),
    "fillets-ng-data": ("1.0.1-1.1", "25de89afd8b1adf7bcace8290248a6a22c89cd42300317e69000e162c032cf84"),
    "fillets-ng-data-cs": ("1.0.1-1.1", "3ecef99b9456f1c80c9625c6f2418642b52d58e7167a46bad7a412db17991b14"),
    "fillets-ng-data-nl": ("1.0.1-1.1", "afb4443fda9ab507dee578b75be857d121718a1cd6017a474f30e0eb13dc9d10"),
}
_LIBRI_AUDIO: Final = "resemble-ai/Resemblyzer"
_LIBRI_TRAIN_TEXTS: Final = "proger/flaky-librispeech"
_LIBRI_TEST_TEXTS: Final = "facebookresearch/fbai-speech"
_LJ: Final = "Aliaa-Kashwa/Deep-learning-based-end-to-end-speech-recognition"
_FLEURS: Final = "sebastian-software/cuttledoc"
_REPOSITORIES: Final = {
    _LIBRI_AUDIO: "15d828edebe06bc72b9cabc8ef8ca5ab2cb457ce",
    _LIBRI_TRAIN_TEXTS: "1a9c1e96eb83e8de856c10b72d982982612e11b0",
    _LIBRI_TEST_TEXTS: "43cdb3ca9644a755d5c6cc55cbcc91132f85ed44",
    _LJ: "ac5950f9a87e754e655ba32db1d98598b22ac0c7",
    _FLEURS: "e0c587883f1fdf67d521f8e0b3c216b22d91fda6",
}
#: prompts of Asterisk that the project's corpus has
_ASTERISK_KNOWN: Final = {
    "en": "conf-adminmenu-162 conf-placeintoconf confbridge-begin-glorious-c confbridge-pin-bad confbridge-removed",
    "es": "agent-newlocation confbridge-begin-glorious-b conf-adminmenu-162 followme/pls-hold-while-try "
    "priv-callee-options",
    "fr": "conf-getpin conf-muted conf-usermenu-162 confbridge-lock-no-join demo-echotest dir-intro",
    "it": "demo-nogo priv-callee-options unidentified-no-callback vm-msgforwarded vm-next",
    "ru": "cannot-complete-as-dialed check-number-dial-again conf-adminmenu conf-adminmenu-162 vm-dialout",
}
#: in every language: known, or a sound that is no speech
_ASTERISK_LEFT_OUT: Final = (
    "demo-congrats beep beeperr ascending-2tone descending-2tone confbridge-join confbridge-leave tt-monkeys"
)
#: chapters of LibriSpeech that the project's corpus has
_LIBRI_KNOWN: Final = ("1688-142285", "2033-164914", "3005-163389", "367-130732")
_LJ_KNOWN: Final = 16


class SourceError(Exception):
    """A source that cannot be had here."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """One recording of a source; those of one voice may be joined."""

    name: str
    voice: str
    text: str
    audio: bytes


@dataclass(frozen=True, slots=True)
class Source:
    """Utterances of one language, and what the manifest says of them."""

    dataset: str
    language: str
    license: str
    origin: str
    utterances: Callable[[Read, Read], Iterator[Utterance]]
    audio_format: str | None = None  # None: the content tells


def main() -> int:
    """Build the folder, and print what each source gave."""
    parser = argparse.ArgumentParser(prog="benchmarks.more_speech", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repository", action="append", default=[], metavar="OWNER/NAME=CLONE")
    arguments = parser.parse_args()
    clones = dict(one.split("=", 1) for one in arguments.repository)
    rows: list[dict[str, Any]] = []
    for source in sources():
        try:
            added = _lay_out(source, arguments.folder, partial(_repository_files, clones))
        except SourceError as error:
            print(f"{source.dataset} {source.language}: left out. {error}")
            continue
        words = sum(len(row["reference"].split()) for row in added)
        minutes = sum(row["duration_s"] for row in added) / 60
        print(f"{source.dataset} {source.language}: {len(added)} recordings, {words} words, {minutes:.1f} minutes")
        rows += added
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (arguments.folder / "manifest.jsonl").write_text(lines, encoding="utf-8")
    return 0


def sources() -> list[Source]:
    """Return every source, in the manifest's order."""
    libri, lj = "CC-BY-4.0 (LibriSpeech)", "public domain (LJ Speech)"
    repository = "github:{}".format
    found = [
        Source("librispeech-train-clean-100", "en", libri, repository(_LIBRI_AUDIO), _libri_train),
        Source("librispeech-test-other", "en", libri, repository(_LIBRI_AUDIO), _libri_test),
        Source("ljspeech", "en", lj, repository(_LJ), _lj_speech),
    ]
    for language in ("en", "de", "es", "fr", "pt"):
        read = partial(_fleurs, language)
        found.append(Source("fleurs", language, "CC-BY-4.0 (FLEURS)", repository(_FLEURS), read))
    for language, terms in (("en", "SA-"), ("es", "SA-"), ("fr", "SA-"), ("it", ""), ("ru", "")):
        package, read = f"asterisk-core-sounds-{language}-g722", partial(_asterisk, language)
        found.append(Source("asterisk-core-sounds", language, f"CC-BY-{terms}3.0", _debian(package), read, "g722"))
    for language in ("cs", "nl"):
        origin = _debian(f"fillets-ng-data-{language}")
        found.append(Source("fillets-ng", language, "GPL-2", origin, partial(_fillets, language)))
    return found


def joined(lengths_s: Sequence[float]) -> list[list[int]]:
    """Group consecutive utterances, with silence between them, as long as a group fits; a longer one stays alone."""
    groups: list[list[int]] = []
    total_s = 0.0
    for i, length_s in enumerate(lengths_s):
        if groups and total_s + _SILENCE_S + length_s <= _LONGEST_S:
            groups[-1].append(i)
            total_s += _SILENCE_S + length_s
        else:
            groups.append([i])
            total_s = length_s
    return groups


def _lay_out(source: Source, folder: Path, repository: Read) -> list[dict[str, Any]]:
    """Write a source's recordings; return their lines of the manifest."""
    spoken = sorted(source.utterances(_package_files, repository), key=lambda one: (one.voice, one.name))
    rows = []
    for voice, group in groupby(spoken, key=lambda one: one.voice):
        both = [(one, _decode(one.audio, source.audio_format)) for one in group]
        utterances, decoded = zip(*(pair for pair in both if len(pair[1])), strict=True)
        for number, members in enumerate(joined([len(samples) / _RATE for samples in decoded])):
            path = f"{source.dataset}/{source.language}-{voice}-{number:03}.flac"
            silence = np.zeros(round(_SILENCE_S * _RATE), np.int16)
            samples = np.concatenate([part for i in members for part in (silence, decoded[i])][1:])
            if len(samples) < _SHORTEST_S * _RATE:
                continue
            row = {
                "path": path,
                "dataset": source.dataset,
                "language": source.language,
                "duration_s": round(len(samples) / _RATE, 3),
                "reference": " ".join(" ".join(utterances[i].text for i in members).split()),
                "license": source.license,
                "source": source.origin,
                "sha256": _write_flac(folder / path, samples),
                "unit": f"{source.dataset}/{source.language}/{'+'.join(utterances[i].name for i in members)}",
                "wer_ok": True,
            }
            rows.append(row)
    return rows


def _decode(audio: bytes, audio_format: str | None) -> Samples:
    resampler = av.AudioResampler(format="s16", layout="mono", rate=_RATE)
    with av.open(io.BytesIO(audio), mode="r", format=audio_format) as container:
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    frames += resampler.resample(None)
    return np.concatenate([np.zeros(0, np.int16), *(frame.to_ndarray()[0] for frame in frames)])


def _write_flac(path: Path, samples: Samples) -> str:
    """Return the file's sha256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="flac") as container:
        stream = container.add_stream("flac", rate=_RATE, layout="mono", format="s16")
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = _RATE
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _libri_train(_: Read, repository: Read) -> Iterator[Utterance]:
    """Yield one utterance of each of 251 speakers; the texts are there as word pieces."""
    texts: dict[str, str] = {}
    for content in repository(_LIBRI_TRAIN_TEXTS, "spin/*.query.txt.spin").values():  # a thirteenth each
        for line in content.decode().splitlines():
            name, pieces = line.split("\t")
            text = pieces.removeprefix("<\u2191>").replace(" ", "").replace("\u2581", " ")
            texts[Path(name).stem] = text.strip()
    yield from _libri("audio_data/librispeech_train-clean-100", texts, repository)


def _libri_test(_: Read, repository: Read) -> Iterator[Utterance]:
    path = "is21_deep_bias/ref/test-other.biasing_100.tsv"
    lines = repository(_LIBRI_TEST_TEXTS, path)[path].decode().splitlines()
    texts = dict(line.split("\t")[:2] for line in lines)
    yield from _libri("audio_data/librispeech_test-other", texts, repository)


def _libri(folder: str, texts: Mapping[str, str], repository: Read) -> Iterator[Utterance]:
    for path, audio in repository(_LIBRI_AUDIO, folder).items():
        name = Path(path).stem
        chapter = name.rpartition("-")[0]
        if name in texts and chapter not in _LIBRI_KNOWN:
            yield Utterance(name, chapter, texts[name], audio)


def _lj_speech(_: Read, repository: Read) -> Iterator[Utterance]:
    files = repository(_LJ, "labels.csv", "wavs")
    for line in files["labels.csv"].decode("utf-8-sig").splitlines():
        name, text = line.replace('"', "").rstrip(",").split("|")[::2]
        audio = files.get(f"wavs/{name}.wav")  # the first hundred
        if audio and int(name.split("-")[1]) > _LJ_KNOWN:
            yield Utterance(name, "LJ", re.sub("[()]", "", text), audio)  # spoken, but normalisers drop it


def _fleurs(language: str, _: Read, repository: Read) -> Iterator[Utterance]:
    """Yield those that the project's corpus has not; their speakers differ."""
    start = f"packages/cuttledoc/fixtures/fleurs-{language}-"
    files = repository(_FLEURS, f"{start}*")
    for number in range(5, 10):
        path = f"{start}{number:03}"
        yield Utterance(Path(path).name, f"{number}", files[f"{path}.txt"].decode(), files[f"{path}.ogg"])


def _asterisk(language: str, package: Read, _: Read) -> Iterator[Utterance]:
    audio = package(f"asterisk-core-sounds-{language}-g722")
    prompts = {path.split("/sounds/")[-1].split("/", 1)[-1]: one for path, one in audio.items()}
    listed = package(f"asterisk-core-sounds-{language}")
    (packed,) = (one for path, one in listed.items() if path.endswith(f"core-sounds-{language}.txt.gz"))
    left_out = f"{_ASTERISK_KNOWN[language]} {_ASTERISK_LEFT_OUT}".split()
    seen = set()
    for line in gzip.decompress(packed).decode().splitlines():
        name, text = line.split(":", 1) if ":" in line else (line, "")
        text = text.strip().removeprefix(f"{name}:")
        numbers = name.startswith(("digits/", "letters/", "phonetic/", "silence/"))
        content = prompts.get(f"{name}.g722")
        if content and not numbers and name not in left_out and name not in seen and _as_spoken(text):
            seen.add(name)
            yield Utterance(name, "prompts", text, content)


def _fillets(language: str, package: Read, _: Read) -> Iterator[Utterance]:
    """Yield the talk of the two fish; the game's other voices are distorted."""
    dialogues = re.compile(r'dialogId\("([^"]+)",\s*"font_(small|big)",.*\)\s*dialogStr\("((?:[^"\\]|\\.)*)"\)')
    sounds = package(f"fillets-ng-data-{language}")
    root = "usr/share/games/fillets-ng"
    for path, content in package("fillets-ng-data").items():
        if path.startswith(f"{root}/script/") and path.endswith(f"/dialogs_{language}.lua"):
            level = path.split("/")[-2]
            for name, voice, text in dialogues.findall(content.decode()):
                audio = sounds.get(f"{root}/sound/{level}/{language}/{name}.ogg")
                if audio and _as_spoken(text):
                    yield Utterance(f"{level}/{name}", voice, text.replace("\\", ""), audio)


def _as_spoken(text: str) -> bool:
    """Is a text of words only, without remarks, alternatives and characters that were lost?"""
    return re.search(r"[^\W\d_]{2}", text) is not None and re.search(r"[][(){}<>/*#_]|\?.|\ufffd", text) is None


def _debian(package: str) -> str:
    return f"debian:{package} {_PACKAGES[package][0]}"


def _package_files(name: str) -> dict[str, bytes]:
    """Download and unpack a package of Debian; raises SourceError."""
    version, sha256 = _PACKAGES[name]
    with tempfile.TemporaryDirectory() as folder:
        _run("apt-get", "download", f"{name}={version}", folder=folder)
        (path,) = Path(folder).glob("*.deb")
        if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise SourceError(f"{path.name}: not the package that is meant (its sha256 differs).")
        return _unpacked(_run("dpkg-deb", "--fsys-tarfile", path.name, folder=folder))


def _repository_files(clones: Mapping[str, str], name: str, *paths: str) -> dict[str, bytes]:
    """Read folders and files of a clone at the commit that is meant; raises SourceError."""
    commit = _REPOSITORIES[name]
    if name not in clones:
        raise SourceError(f"--repository {name}=CLONE is needed, at {commit}.")
    return _unpacked(_run("git", "archive", "--format=tar", commit, *paths, folder=clones[name]))


def _run(*command: str, folder: str) -> bytes:
    try:
        return subprocess.run(command, cwd=folder, check=True, capture_output=True).stdout
    except subprocess.CalledProcessError as error:
        raise SourceError(f"{' '.join(command)}: {error.stderr.decode(errors='replace').strip()}") from error
    except OSError as error:
        raise SourceError(f"{command[0]}: {error}") from error


def _unpacked(archive: bytes) -> dict[str, bytes]:
    """Return the files of a tar archive: {path: content}."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        opened = ((one.name.removeprefix("./"), members.extractfile(one)) for one in members if one.isfile())
        return {path: file.read() for path, file in opened if file is not None}


if __name__ == "__main__":
    sys.exit(main())
