"""The names that people know models by, and where each is published. Knows names, not files."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stapes.errors import ModelNotFoundError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
#: How names of weight files end, so that owner/name does not.
_FILE = re.compile(r"\.(pt|pth|bin|ckpt|gguf|safetensors|onnx|npz|zip)$", re.IGNORECASE)
#: hf:owner/name, and pages on the hub: https://huggingface.co/owner/name/tree/main.
_ADDRESS = re.compile(
    r"(?:hf:(?://)?|(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co|hf-mirror\.com)/)(?:models/)?"
    r"(?P<path>[^?#]*)(?:[?#].*)?",
    re.IGNORECASE | re.DOTALL,
)
_PAGES = ("tree", "blob", "resolve", "raw")
_OTHER_PAGES = ("datasets", "spaces", "docs", "papers", "collections")
_LONGEST = 1000  # an address is shorter
#: What other programs write around a model's name.
_AROUND = re.compile(r"^((openai|ggml|faster|whisper)-)+|[-.](q\d_\w+|f16|f32|fp16|int8)$")


@dataclass(frozen=True, slots=True)
class KnownModel:
    """One published model."""

    name: str
    hub_id: str
    n_parameters: int  # as published, rounded to millions
    languages: str
    other_hub_ids: tuple[str, ...] = ()  # the same weights in another format: used where cached, never fetched
    aliases: tuple[str, ...] = ()


def _openai(name: str, millions: int, languages: str, *, hub: str = "", aliases: tuple[str, ...] = ()) -> KnownModel:
    converted = tuple(f"{owner}/faster-whisper-{name}" for owner in ("Systran", "guillaumekln"))
    return KnownModel(name, f"openai/whisper-{hub or name}", millions * 1_000_000, languages, converted, aliases)


def _distil(name: str, millions: int) -> KnownModel:
    other = name.replace("distil-", "faster-distil-whisper-")
    others = (f"Systran/{other}",)
    return KnownModel(name, f"distil-whisper/{name}", millions * 1_000_000, "English", others)


_MANY = "99 languages"
#: Source of sizes: https://github.com/openai/whisper/blob/c0d2f62/README.md and the model cards on the hub.
KNOWN: tuple[KnownModel, ...] = (
    _openai("tiny", 39, _MANY),
    _openai("tiny.en", 39, "English"),
    _openai("base", 74, _MANY),
    _openai("base.en", 74, "English"),
    _openai("small", 244, _MANY),
    _openai("small.en", 244, "English"),
    _openai("medium", 769, _MANY),
    _openai("medium.en", 769, "English"),
    _openai("large-v1", 1550, _MANY, hub="large"),
    _openai("large-v2", 1550, _MANY),
    _openai("large-v3", 1550, "100 languages", aliases=("large",)),
    KnownModel(
        "turbo",
        "openai/whisper-large-v3-turbo",
        809_000_000,
        "100 languages",
        ("mobiuslabsgmbh/faster-whisper-large-v3-turbo",),
        ("large-v3-turbo",),
    ),
    _distil("distil-small.en", 166),
    _distil("distil-medium.en", 394),
    _distil("distil-large-v2", 756),
    _distil("distil-large-v3", 756),
    KnownModel(
        "distil-large-v3.5",
        "distil-whisper/distil-large-v3.5",
        756_000_000,
        "English",
        ("distil-whisper/distil-large-v3.5-ct2",),
    ),
)


def known_models() -> tuple[KnownModel, ...]:
    """Return every named model, small ones first."""
    return KNOWN


def model_named(name: str) -> KnownModel | None:
    """Return the model of this name, alias or hub id, in any case; None if it is no such name.

    "whisper-base" and "faster-whisper-base" are names too. A name that two models could have is refused: as
    openai/whisper-large, "whisper-large" is large-v1; the whisper command's large is large-v3.
    """
    wanted = name.lower()
    for spelled in (_names, _hub_ids, _short_names):
        found = [model for model in KNOWN if wanted in map(str.lower, spelled(model))]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _names(model: KnownModel) -> tuple[str, ...]:
    return (model.name, *model.aliases)


def _hub_ids(model: KnownModel) -> tuple[str, ...]:
    return (model.hub_id, *model.other_hub_ids)


def _short_names(model: KnownModel) -> tuple[str, ...]:
    return (*(hub_id.partition("/")[2] for hub_id in _hub_ids(model)), *(f"whisper-{name}" for name in _names(model)))


def hub_ids_of(name: str, model: KnownModel | None) -> tuple[str, ...]:
    """Return the hub ids under which a model may be had, the one that was asked for first; empty if there is none."""
    if model is None:
        return (name,) if is_hub_id(name) else ()
    return tuple(sorted(_hub_ids(model), key=lambda hub_id: hub_id.lower() != name.lower()))


def is_hub_id(text: str) -> bool:
    """Whether a text has the form owner/name."""
    return _HUB_ID.fullmatch(text) is not None and ".." not in text and "--" not in text and not _FILE.search(text)


def name_in(text: str) -> str:
    """Return the model's name in what people paste: a page or file on the hub, hf:NAME, base/, "Base ".
    What is not understood comes back without the spaces around it.
    """
    text = text.strip()
    if page := _Page.of(text):
        main = page.kind in _PAGES and page.revision == "main" and not page.is_other_file
        return page.name if main or not page.kind else text
    if text.startswith("models--") and "/" not in text:  # a model's folder in the hub's cache
        return text.removeprefix("models--").replace("--", "/", 1)
    return text if text.startswith((".", "/", "~", "\\")) else text.rstrip("/")


@dataclass(frozen=True, slots=True)
class _Page:
    name: str  # owner/name
    kind: str  # "tree", "blob", "resolve", ..., or empty for a model's own page
    revision: str
    file: str

    @classmethod
    def of(cls, text: str) -> _Page | None:
        found = _ADDRESS.fullmatch(text) if len(text) <= _LONGEST else None
        if found is None:
            return None
        parts = found["path"].rstrip("/").split("/")
        if parts[0].lower() in _OTHER_PAGES:
            return None
        kind, revision = (*parts[2:4], "", "")[:2]
        return cls("/".join(parts[:2]), kind, revision, "/".join(parts[4:]))

    @property
    def is_other_file(self) -> bool:
        """Whether this is a file that is not the model itself: a variant, a ggml file."""
        own = ("model.safetensors", "model.bin", "pytorch_model.bin")
        return bool(_FILE.search(self.file)) and self.file not in own


def no_such_model(text: str) -> ModelNotFoundError:
    """Make the error for a text that is no path and no name; it says what is close and what there is."""
    hint = did_you_mean(text)
    if (page := _Page.of(text.strip())) and page.kind:
        why = "not a model's page on the hub"
        if page.is_other_file:
            why = "one file on the hub, not a model's page; download it and give its path"
        elif page.kind in _PAGES:
            why = f"stapes fetches the revision main only, not {page.revision!r:.80}; download it and give its path"
        return ModelNotFoundError(f"{text!r:.200}: {why}, or give {page.name:.120} for the whole model.{hint}")
    if "://" in text:
        return ModelNotFoundError(
            f"{text!r:.200}: not a model's page on the Hugging Face hub, and stapes fetches from there only; download "
            f"the file and give its path.{hint}"
        )
    if text.startswith((".", "/", "~")) or "\\" in text or text.count("/") > 1 or ("/" in text and _FILE.search(text)):
        return ModelNotFoundError(f"{text!r:.200}: no such file or folder; check the path")
    if text.lower() == "whisper-1":
        hint = " whisper-1 is the name of OpenAI's service; the model that it was made from is large-v2."
    names = [name for model in KNOWN for name in _names(model)]
    return ModelNotFoundError(
        f"{text!r:.200}: no such file or folder, and no model of this name.{hint} Known names: "
        f"{', '.join(names)}; or give an owner/name on the Hugging Face hub, or the path of a checkpoint"
    )


def did_you_mean(text: str) -> str:
    """Return " Did you mean ...?" with the known names that a text is close to; empty where none is."""
    import difflib  # noqa: PLC0415 (needed for errors only)

    names = {name.lower(): name for model in KNOWN for name in _names(model)}
    last = text.lower().strip().rstrip("/").rpartition("/")[2].partition("?")[0]
    stem = _AROUND.sub("", _FILE.sub("", last))
    if model_named(text):
        return ""
    if stem in names:
        return f" Did you mean {names[stem]}?"
    if is_hub_id(text):  # most are users' names, so only a small typing error counts
        names = {hub_id.lower(): hub_id for model in KNOWN for hub_id in _hub_ids(model)}
        close = difflib.get_close_matches(text.lower(), names, n=2, cutoff=0.85)
    else:
        close = difflib.get_close_matches(stem[:80], names, n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(names[one] for one in close)}?" if close else ""
