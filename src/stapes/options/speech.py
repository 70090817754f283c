"""What is spoken, and what is wanted of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from stapes.languages import language_code
from stapes.options.checks import option, require

Task = Literal["transcribe", "translate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Speech:
    """What is spoken, and what is wanted of it."""

    task: Task = option(
        "transcribe", "transcribe: text in the spoken language; translate: text in English, whatever is spoken"
    )
    language: str | None = option(None, "spoken language, as a code or a name; None detects it from the first 30 s")

    def __post_init__(self) -> None:
        require(self.task in get_args(Task), f"task must be 'transcribe' or 'translate', got {self.task!r}")
        if self.language is not None:
            require(isinstance(self.language, str), f"language must be text or None, got {self.language!r}")
            language_code(self.language)

    @property
    def language_code(self) -> str | None:
        """The code of the language given, or None."""
        return None if self.language is None else language_code(self.language)
