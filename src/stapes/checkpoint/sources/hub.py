"""The Hugging Face hub and its cache: what is here, and fetching what is not: one copy of the weights, no pickle.

huggingface_hub does the work (it resumes, verifies, and knows HF_HOME, HF_TOKEN, HF_HUB_OFFLINE, HF_ENDPOINT) and
is imported when first needed.
"""

from __future__ import annotations

import errno
import importlib
import os
import queue
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stapes.checkpoint.files import read_json_object
from stapes.checkpoint.formats.ctranslate2 import CT2_WEIGHTS
from stapes.checkpoint.formats.folders import weights_in
from stapes.checkpoint.formats.huggingface import INDEX, WEIGHTS, check_network, shard_names
from stapes.checkpoint.formats.unsupported import describe_names
from stapes.checkpoint.open import looks_like_whisper
from stapes.checkpoint.sources.registry import did_you_mean
from stapes.errors import CheckpointError, ModelNotFoundError
from stapes.runtime.warn import warn

if TYPE_CHECKING:
    from types import ModuleType

#: Called with bytes so far and bytes in all, from any thread.
DownloadProgress = Callable[[int, int], None]

#: Seconds until the hub must have answered for the first time, and the hub's own variable for such a limit.
ANSWER_S = 3.0
ANSWER_VARIABLE = "HF_HUB_ETAG_TIMEOUT"

_NOT_WRITTEN = (errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
#: Small files beside the weights, where a model has them.
_COMPANIONS = (
    "config.json", "generation_config.json", "tokenizer.json", "vocab.json", "added_tokens.json",
    "tokenizer_config.json", "vocabulary.json", "vocabulary.txt",
)  # fmt: skip


def cached_folder(hub_id: str) -> Path | None:
    """Return the folder of a model that is whole in the hub's cache; None if it is not. Asks no network."""
    hub = _hub()

    def cached(name: str) -> Path | None:
        try:
            found = hub.try_to_load_from_cache(hub_id, name)
        except (OSError, ValueError):  # a damaged cache: refs/main that is no text, a file in a folder's place
            return None
        return Path(found) if isinstance(found, str) and Path(found).is_file() else None

    config = cached("config.json")
    found = weights_in(name for name in (WEIGHTS, INDEX, CT2_WEIGHTS) if cached(name))
    if config is None or not found:
        return None
    folder = config.parent
    index = folder / INDEX
    needed = shard_names(read_json_object(index), index) if found[0] == INDEX else found[:1]
    return folder if all((folder / name).is_file() for name in needed) else None


def download_folder(hub_id: str, *, progress: DownloadProgress | None = None, cache_dir: Path | None = None) -> Path:
    """Fetch a model into the hub's cache and return its folder; an interrupted download is resumed.

    progress: called with bytes; None shows the hub's own bars.   cache_dir: the cache, where it is not the hub's
    default.
    Raises ModelNotFoundError where the hub has no such model, refuses it, or gives no answer within ANSWER_S.
    """
    hub, at = _hub(), {} if cache_dir is None else {"cache_dir": str(cache_dir)}
    try:
        files = set(_within(_answer_s(), lambda: hub.HfApi().list_repo_files(hub_id)))
        found = weights_in(files)
        if not found or "config.json" not in files:
            instead = f" It holds {what}." if not found and (what := describe_names(files)) else ""
            raise ModelNotFoundError(
                f"{hub_id}: holds no {WEIGHTS}, {INDEX} or CTranslate2 {CT2_WEIGHTS} beside a config.json; "
                f"stapes reads no pickles from the hub: name another repository of this model.{instead}"
            )
        weights = found[0]
        if weights != CT2_WEIGHTS:  # refused before gigabytes are fetched
            config = Path(hub.hf_hub_download(hub_id, "config.json", **at))
            check_network(read_json_object(config), config)
        wanted = [name for name in _COMPANIONS if name in files]
        if weights == INDEX:
            index = Path(hub.hf_hub_download(hub_id, INDEX, **at))
            wanted += [INDEX, *shard_names(read_json_object(index), index)]
        else:
            wanted.append(weights)
        bars = {"tqdm_class": _reporter(progress)} if progress else {}
        return Path(hub.snapshot_download(hub_id, allow_patterns=wanted, **bars, **at))
    except CheckpointError:
        raise
    except Exception as exc:  # the hub's network library, and with it the errors, differs by version
        raise _not_fetched(hub_id, exc) from exc


class _NothingAnswersError(Exception):
    """The hub gave no answer in time."""


def _answer_s() -> float:
    """Return how long the hub may take for its first answer; users far from it set the hub's own variable."""
    try:
        return float(os.environ.get(ANSWER_VARIABLE, ANSWER_S))
    except ValueError:
        return ANSWER_S


def _within(limit_s: float, ask: Callable[[], Iterable[str]]) -> Iterable[str]:
    """Ask in a thread that is abandoned if it takes too long: the hub's library retries for half a minute, and looking
    up an address has no limit at all.
    """
    answers: queue.SimpleQueue[Iterable[str] | Exception] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put(ask())
        except Exception as exc:  # raised again where it was asked
            answers.put(exc)

    threading.Thread(target=work, name="stapes-hub", daemon=True).start()
    try:
        answer = answers.get(timeout=limit_s)
    except queue.Empty:
        raise _NothingAnswersError from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _not_fetched(hub_id: str, exc: Exception) -> ModelNotFoundError:
    kinds = {kind.__name__ for kind in type(exc).__mro__}
    if "GatedRepoError" in kinds:
        why = f"its owner asks for your consent: give it on https://huggingface.co/{hub_id} and set HF_TOKEN"
    elif "RepositoryNotFoundError" in kinds:
        why = "the hub has no model of this name, or a private one: check the name, or set HF_TOKEN"
    elif "OfflineModeIsEnabled" in kinds or _hub().constants.HF_HUB_OFFLINE:
        why = "it is not in the cache and HF_HUB_OFFLINE is set: unset it, or give the path of a checkpoint"
    elif isinstance(exc, _NothingAnswersError):
        why = (
            f"nothing answers at {_hub().constants.ENDPOINT} (for {_answer_s():g} s): check the network, give the path "
            f"of a checkpoint, or set {ANSWER_VARIABLE} to more seconds where the network is slow"
        )
    elif isinstance(exc, OSError) and exc.errno in _NOT_WRITTEN:
        why = f"it cannot be kept ({exc}): make room, or choose another folder with --model_dir or HF_HOME"
    else:
        why = (
            f"the hub could not be reached or broke off ({type(exc).__name__}: {str(exc)[:200]}): try again, "
            "or give the path of a checkpoint"
        )
    hint = did_you_mean(hub_id)
    return ModelNotFoundError(f"{hub_id}: not a path here, and not fetched from the hub: {why}{hint and '.' + hint}")


def cached_repositories() -> list[tuple[str, Path, int]]:
    """Return every whole Whisper in the hub's cache as (hub id, folder, bytes)."""
    hub = _hub()
    try:
        repositories = hub.scan_cache_dir().repos
    except hub.errors.CacheNotFound:
        return []
    except (OSError, ValueError) as exc:  # one model's refs/main that is no text is enough
        warn(f"the hub's cache is damaged, and its models are not listed ({exc})")
        return []
    found = []
    for repository in repositories:
        if repository.repo_type == "model" and (folder := _whisper_folder(repository.repo_id)):
            found.append((str(repository.repo_id), folder, int(repository.size_on_disk)))
    return sorted(found)


def _whisper_folder(hub_id: str) -> Path | None:
    """Return a cached repository's folder if it is a whole Whisper."""
    try:
        folder = cached_folder(hub_id)
    except (CheckpointError, ValueError):
        return None
    return folder if folder and looks_like_whisper(folder) else None


def _hub() -> ModuleType:
    return importlib.import_module("huggingface_hub")  # 0.3 s: only when a hub is asked


def _reporter(progress: DownloadProgress) -> type[Any]:
    bar: Any = importlib.import_module("tqdm").tqdm  # comes with huggingface_hub

    class Reporter(bar):  # type: ignore[misc]
        """One of the hub's bars: it counts files or bytes; only bytes are passed on."""

        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            self.counts_bytes = keywords.get("unit") == "B"
            keywords.pop("name", None)  # the hub's own class has this keyword, tqdm has not
            super().__init__(*arguments, **{**keywords, "disable": False, "file": _Nowhere()})

        def update(self, n: float | None = 1) -> bool | None:
            shown: bool | None = super().update(n)
            if self.counts_bytes:
                progress(int(self.n), int(self.total or 0))
            return shown

    return Reporter


class _Nowhere:
    """A file that drops all text."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        return
