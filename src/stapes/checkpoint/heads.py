"""Which cross-attention heads follow the audio, for weights whose file does not say.

Looked up by a hash of the weights, not by name: a fine-tuned model must not get its base model's heads by accident.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stapes.checkpoint.files import FileBytes

Heads = tuple[tuple[int, int], ...]  # (layer, head) of the decoder


@dataclass(frozen=True, slots=True)
class Official:
    """One model as OpenAI published it."""

    name: str
    sha256: str  # of the .pt
    sizes: tuple[int, int, int, int]  # n_audio_layer, n_text_layer, n_audio_state, n_vocab
    heads: Heads


#: sha256 and heads of each published `.pt`.
#: Source: https://github.com/openai/whisper/blob/c0d2f62/whisper/__init__.py: _MODELS (the hash is part of
#: each URL) and _ALIGNMENT_HEADS (unpacked here to pairs), as released in openai-whisper 20250625.
OFFICIAL: tuple[Official, ...] = (
    Official("tiny.en", "d3dd57d32accea0b295c96e26691aa14d8822fac7d9d27d5dc00b4ca2826dd03", (4, 4, 384, 51864),
        ((1, 0), (2, 0), (2, 5), (3, 0), (3, 1), (3, 2), (3, 3), (3, 4))),
    Official("tiny", "65147644a518d12f04e32d6f3b26facc3f8dd46e5390956a9424a650c0ce22b9", (4, 4, 384, 51865),
        ((2, 2), (3, 0), (3, 2), (3, 3), (3, 4), (3, 5))),
    Official("base.en", "25a8566e1d0c1e2231d1c762132cd20e0f96a85d16145c3a00adf5d1ac670ead", (6, 6, 512, 51864),
        ((3, 3), (4, 7), (5, 1), (5, 5), (5, 7))),
    Official("base", "ed3a0b6b1c0edf879ad9b11b1af5a0e6ab5db9205f891f668f8b0e6c6326e34e", (6, 6, 512, 51865),
        ((3, 1), (4, 2), (4, 3), (4, 7), (5, 1), (5, 2), (5, 4), (5, 6))),
    Official("small.en", "f953ad0fd29cacd07d5a9eda5624af0f6bcf2258be67c92b79389873d91e0872", (12, 12, 768, 51864),
        ((6, 6), (7, 0), (7, 3), (7, 8), (8, 2), (8, 5), (8, 7), (9, 0), (9, 4), (9, 8), (9, 10), (10, 0), (10, 1),
         (10, 2), (10, 3), (10, 6), (10, 11), (11, 2), (11, 4))),
    Official("small", "9ecf779972d90ba49c06d968637d720dd632c55bbf19d441fb42bf17a411e794", (12, 12, 768, 51865),
        ((5, 3), (5, 9), (8, 0), (8, 4), (8, 7), (8, 8), (9, 0), (9, 7), (9, 9), (10, 5))),
    Official("medium.en", "d7440d1dc186f76616474e0ff0b3b6b879abc9d1a4926b7adfa41db2d497ab4f", (24, 24, 1024, 51864),
        ((11, 4), (14, 1), (14, 12), (14, 14), (15, 4), (16, 0), (16, 4), (16, 9), (17, 12), (17, 14), (18, 7),
         (18, 10), (18, 15), (20, 0), (20, 3), (20, 9), (20, 14), (21, 12))),
    Official("medium", "345ae4da62f9b3d59415adc60127b97c714f32e89e936602e85993674d08dcb1", (24, 24, 1024, 51865),
        ((13, 15), (15, 4), (15, 15), (16, 1), (20, 0), (23, 4))),
    Official("large-v1", "e4b87e7e0bf463eb8e6956e646f1e277e901512310def2c24bf0e11bd3c28e9a", (32, 32, 1280, 51865),
        ((9, 19), (11, 2), (11, 4), (11, 17), (22, 7), (22, 11), (22, 17), (23, 2), (23, 15))),
    Official("large-v2", "81f7c96c852ee8fc832187b0132e569d6c3065a3252ed18e56effd0b6a73e524", (32, 32, 1280, 51865),
        ((10, 12), (13, 17), (16, 11), (16, 12), (16, 13), (17, 15), (17, 16), (18, 4), (18, 11), (18, 19), (19, 11),
         (21, 2), (21, 3), (22, 3), (22, 9), (22, 12), (23, 5), (23, 7), (23, 13), (25, 5), (26, 1), (26, 12),
         (27, 15))),
    Official("large-v3", "e5b1a55b89c1367dacf97e3e19bfd829a01529dbfdeefa8caeb59b3f1b81dadb", (32, 32, 1280, 51866),
        ((7, 0), (10, 17), (12, 18), (13, 12), (16, 1), (17, 14), (19, 11), (21, 4), (24, 1), (25, 6))),
    Official("turbo", "aff26ae408abcba5fbf8813c21e62b0941638c5f6eebfb145be0c9839262a19a", (32, 4, 1280, 51866),
        ((2, 4), (2, 11), (3, 3), (3, 6), (3, 11), (3, 14))),
)  # fmt: skip

#: Checkpoint.fingerprint -> name, of the weights that we could hash: every format of these two is known.
FINGERPRINTS: dict[str, str] = {
    "5b7371a4265c3aba0cbe848841c3434abb76ae2ae8311dd49140ad1983061311": "base",
    "ced825f6631e87aef8d7c3443cfc888ea7b30ac9c63f82e7e2cb9a06910f9434": "tiny.en",
}


def known_heads(fingerprint: str, sizes: tuple[int, int, int, int], openai_file: Path | None) -> Heads | None:
    """Return the heads of published weights; None for others.

    sizes: n_audio_layer, n_text_layer, n_audio_state, n_vocab.   openai_file: None for other formats; one whose sizes
    are an official model's is hashed whole (0.1 s for base, a few seconds for large): ask only for word times.
    """
    if name := FINGERPRINTS.get(fingerprint):
        return next(model.heads for model in OFFICIAL if model.name == name)
    candidates = [model for model in OFFICIAL if model.sizes == sizes]
    if openai_file is None or not candidates:
        return None
    sha256 = FileBytes(openai_file).sha256()
    return next((model.heads for model in candidates if model.sha256 == sha256), None)
