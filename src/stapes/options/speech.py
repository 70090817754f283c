"""What is spoken, and what is wanted of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from stapes.errors import OptionError
from stapes.languages import language_code
from stapes.options.checks import flag, make_plain, number, one_of, option, plain_items, require, text, whole

Task = Literal["transcribe", "translate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Speech:
    """What is spoken, and what is wanted of it."""

    task: Task = option(
        "transcribe", "transcribe: text in the spoken language; translate: text in English, whatever is spoken"
    )
    language: str | None = option(
        None,
        "spoken language, as a code or a name, or as '<|xx|>' for a model's own; None detects it from the first 30 s",
    )
    languages: tuple[str, ...] | None = option(
        None, "languages that may be spoken, as codes or names; detection chooses among them only"
    )
    language_detection_segments: int = option(
        1, "most stretches of 30 s that are used to detect the language, until one reaches the threshold", "windows"
    )
    language_detection_threshold: float | None = option(
        None, "probability from which on a detected language is taken; if none reaches it, the mean decides"
    )
    multilingual: bool = option(
        False, "several languages are spoken: detect the language of each window, and where it changes inside a window"
    )

    def __post_init__(self) -> None:
        make_plain(self)
        one_of("task", self.task, get_args(Task))
        text("language", self.language)
        if self.language is not None:
            language_code(self.language)
        object.__setattr__(self, "languages", _languages(self.languages))
        whole("language_detection_segments", self.language_detection_segments)
        require(self.language_detection_segments is not None, "language_detection_segments must be a whole number")
        number("language_detection_threshold", self.language_detection_threshold, low=0, high=1)
        flag("multilingual", self.multilingual)
        self._check_together()

    def _check_together(self) -> None:
        code, candidates = self.language_code, self.candidates
        require(
            code is None or candidates is None or code in candidates,
            f"language {self.language!r} is not among languages {','.join(self.languages or ())}; leave one out",
        )
        require(
            code is None or not self.multilingual,
            f"multilingual finds each window's language, and language {self.language!r} says that it is known; "
            f"leave one of them out, or give languages",
        )

    @property
    def language_code(self) -> str | None:
        """The code of the language given, or None."""
        return None if self.language is None else language_code(self.language)

    @property
    def candidates(self) -> tuple[str, ...] | None:
        """The codes of the languages that may be spoken, each once; None: all that the model knows."""
        if self.languages is None:
            return None
        return tuple(dict.fromkeys(language_code(one) for one in self.languages))


def _languages(value: Any) -> tuple[str, ...] | None:
    """Read "en,es" or an iterable of codes and names."""
    if value is None:
        return None
    try:
        parts = value.split(",") if isinstance(value, str) else plain_items(value)
        names = tuple(part.strip() for part in parts)
    except (AttributeError, TypeError):
        raise OptionError(f"languages must be codes or names such as 'en,es', got {value!r}") from None
    require(len(names) > 0, "languages needs at least one; leave it out to choose among all")
    for name in names:
        try:
            language_code(name)
        except OptionError as error:
            raise OptionError(f"languages: {error}") from None
    return names
