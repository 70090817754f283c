"""Every error that stapes raises on purpose, each with its exit code and its HTTP status.

An error's text names the thing, the value, and what to do. It does not depend on where it is printed.
"""

from __future__ import annotations

from typing import ClassVar


class StapesError(Exception):
    """The root: catch this to catch all errors about input."""

    exit_code: ClassVar[int] = 2
    http_status: ClassVar[int] = 500


class OptionError(StapesError, ValueError):
    """An option has a value that it cannot have, or two options exclude each other."""

    http_status = 400


class AudioError(StapesError):
    """A recording cannot be opened, holds no audio, or is not what it says it is."""

    http_status = 400


class AudioTooLongError(AudioError):
    """A recording is longer than the caller allows."""

    http_status = 413


class FetchError(AudioError):
    """A recording could not be fetched; another try may succeed."""

    http_status = 502


class CheckpointError(StapesError):
    """A checkpoint is damaged, hostile, or of a shape that is not Whisper's."""


class ModelNotFoundError(CheckpointError):
    """No checkpoint of this name is here, and none could be fetched."""

    http_status = 404


class OutputError(StapesError):
    """A result cannot be written: folder missing, no permission, disk full, two inputs with one name."""


class BackendError(StapesError):
    """A backend refused a request or failed in the middle of one: a fault of stapes."""


class OutOfDeviceMemoryError(BackendError):
    """The memory of a GPU does not suffice for what was asked for, beside what it holds."""


class CancelledError(StapesError):
    """The job was cancelled before it ended."""

    exit_code = 130
    http_status = 499


class DeadlineError(StapesError):
    """The job's deadline passed before it ended; the segments so far were delivered."""

    http_status = 504


class NotCopiedError(StapesError, TypeError):
    """An object that belongs to this process was to be pickled or copied."""


class StapesWarning(UserWarning):
    """Something was unusual, and the work went on: a truncated file, a model that cannot translate."""
