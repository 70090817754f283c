"""Describes unsupported formats: a file by its first bytes, a folder or repository by its file names.
Each description ends with what to do.
"""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase

HEAD_BYTES = 512
_OTHER_PROGRAM = "get the model as OpenAI's .pt, or as safetensors from openai/whisper-* on the Hugging Face hub"

#: A file: (where these bytes stand, the bytes, what it is and what to do).
_FILES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"GGUF", "a GGUF file of llama.cpp; get the model as whisper.cpp's ggml-*.bin"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file itself; fetch it with `git lfs pull`"),
    (0, b"/annex/objects/", "a git-annex pointer, not the file itself; fetch it with `git annex get`"),
    (0, b"\x00\x05\x16\x07", "a file of attributes that macOS writes (._*); give the one without ._ in its name"),
    (0, b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first"),
    (0, b"\xfd7zXZ", "compressed with xz; unpack it first"),
    (0, b"BZh", "compressed with bzip2; unpack it first"),
    (0, b"7z\xbc\xaf", "a 7-Zip archive; unpack it first"),
    (257, b"ustar", f"a tar archive (a .nemo file is one, with a model of NeMo's); {_OTHER_PROGRAM}"),
    (0, b"\x89HDF", f"an HDF5 file of TensorFlow; {_OTHER_PROGRAM}"),
    (4, b"TFL3", f"a TensorFlow Lite model; {_OTHER_PROGRAM}"),
    (0, b"\x93NUMPY", f"one array of NumPy, not a model; {_OTHER_PROGRAM}"),
    (
        0,
        b"\x80\x02\x8a\x0al\xfc\x9cF",  # the magic number that torch wrote before 1.6
        "in PyTorch's format from before version 1.6; if you trust it, load it in PyTorch and save it again",
    ),
    *((0, start, "a recording, not a model") for start in (b"ID3", b"fLaC", b"OggS", b"\x1aE\xdf\xa3", b"FORM")),
    (8, b"WAVE", "a recording, not a model"),
    (4, b"ftyp", "a recording, not a model"),
)
#: A folder, or a repository: (names, what they are and what to do), the most telling first.
_NAMES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("adapter_model.*",), "an adapter (LoRA) without its model; merge them first (PEFT: merge_and_unload)"),
    (("weights.npz", "weights.safetensors", "weights.*.safetensors"), f"weights of MLX; {_OTHER_PROGRAM}"),
    (
        ("model.safetensors.index.*.json",),
        "shards under another name than model.safetensors.index.json; rename the index to that",
    ),
    (("*.safetensors",), "weights under another name than model.safetensors; give the path of that file"),
    (
        ("pytorch_model*.bin", "pytorch_model*.bin.index.json"),
        "pytorch_model.bin only, which stapes does not read; load it with transformers once and save it with "
        "save_pretrained(folder, safe_serialization=True)",
    ),
    (("ggml-*.bin", "*.pt"), "a file that is a model by itself; give its path"),
    (("*.ckpt",), "a training program's state, which stapes does not read; save the model as a Hugging Face folder"),
    (("*.gguf",), "a GGUF file of llama.cpp; get the model as whisper.cpp's ggml-*.bin"),
    (("*.onnx", "onnx", "onnx/*", "*.onnx_data"), f"a model for ONNX; {_OTHER_PROGRAM}"),
    (("openvino_*.xml", "*-openvino.xml", "*.xml"), f"a model for OpenVINO; {_OTHER_PROGRAM}"),
    (("*.mlmodelc", "*.mlpackage", "*.mlmodel", "*.mlmodelc/*"), f"a model for Core ML; {_OTHER_PROGRAM}"),
    (("*.tflite",), f"a model for TensorFlow Lite; {_OTHER_PROGRAM}"),
    (("tf_model*.h5", "*.h5", "*.keras", "saved_model.pb"), f"a model for TensorFlow; {_OTHER_PROGRAM}"),
    (("flax_model*.msgpack", "*.msgpack"), f"a model for Flax; {_OTHER_PROGRAM}"),
    (("*.nemo", "model_config.yaml"), f"a model of NeMo's; {_OTHER_PROGRAM}"),
    (("*.engine", "*.plan"), f"a model for TensorRT; {_OTHER_PROGRAM}"),
    (("models--*--*",), "the hub's cache, not one model; give a model's name, such as openai/whisper-base"),
)
MLX = f"weights of MLX, which orders a convolution's numbers otherwise; {_OTHER_PROGRAM}"


def describe_file(head: bytes) -> str | None:
    """Return what a file is and what to do, from its first HEAD_BYTES; None if they tell nothing."""
    for place, start, description in _FILES:
        if head[place:].startswith(start):
            return description
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        return "a bare Python pickle, which can run code when it is opened, so stapes does not"
    # ir_version, then producer_name: https://github.com/onnx/onnx/blob/64209fa/onnx/onnx.proto (ModelProto).
    if head[:1] == b"\x08" and head[2:3] == b"\x12" and (b"pytorch" in head or b"onnx" in head):
        return f"a model for ONNX; {_OTHER_PROGRAM}"
    text = head.lstrip().lower()
    if text.startswith(b"<?xml") and b"<net" in text:
        return f"a model for OpenVINO; {_OTHER_PROGRAM}"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, not a model; the download went to the wrong address or needed a login"
    return None


def describe_names(names: Collection[str]) -> str | None:
    """Return what a folder or repository holds instead of a checkpoint, and what to do; None if that is unclear."""
    seen = sorted(name for name in names if not name.startswith("."))
    for patterns, description in _NAMES:
        found = [name for name in seen if any(fnmatchcase(name.lower(), pattern) for pattern in patterns)]
        if found:
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            return f"{found[0]:.80}{more}: {description}"
    return None
