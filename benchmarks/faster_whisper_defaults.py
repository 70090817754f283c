"""faster-whisper as its own `transcribe` is without options: a program for the interpreter that has it.

    python -m benchmarks.faster_whisper_defaults CHECKPOINT < paths

Reads a path a line; writes a JSON object a line: {"path", "text"}.
"""

from __future__ import annotations

import json
import sys


def main() -> None:
    """Transcribe what is named on standard input."""
    from faster_whisper import WhisperModel  # noqa: PLC0415 (an engine that may be absent)

    model = WhisperModel(sys.argv[1], device="cpu", compute_type=sys.argv[2], cpu_threads=2)
    for line in sys.stdin:
        path = line.rstrip("\n")
        segments, _ = model.transcribe(path)
        text = "".join(segment.text for segment in segments)
        sys.stdout.write(json.dumps({"path": path, "text": text}) + "\n")


if __name__ == "__main__":
    main()
