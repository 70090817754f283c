"""Names of options in other Whisper programs, and what to give here instead: for errors only.

Sources of the names: openai/whisper 20250625, faster-whisper 1.2.1, whisper-ctranslate2 0.5.8, whisperX 3.8.6,
whisper.cpp's cli.cpp, transformers' pipeline for speech recognition.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Final, Literal

#: who is asked: `transcribe` and its like, `load`, the command line, or the HTTP server
Face = Literal["transcribe", "load", "command", "request"]

#: their name -> ours, where an option means the same
_RENAMED: Final[Mapping[str, str]] = {
    theirs: ours
    for ours, others in {
        "vad": "vad_filter vad_method use_vad",
        "vad_threshold": "vad_onset vad_thold",
        "vad_neg_threshold": "vad_offset",
        "vad_min_silence_duration_ms": "min_silence_duration_ms vad_min_silence_ms",
        "vad_speech_pad_ms": "speech_pad_ms",
        "logprob_threshold": "log_prob_threshold log_probability_threshold logprob_thold",
        "no_speech_threshold": "no_speech_thold no_speech_prob_threshold",
        "compression_ratio_threshold": "entropy_thold",
        "sample_len": "max_new_tokens max_tokens",
        "hotwords": "keywords hot_words",
        "initial_prompt": "prompt",
        "beam_size": "num_beams beams",
        "language": "lang language_code source_language",
        "languages": "language_candidates",
        "word_timestamps": "return_timestamps word_level output_words",
        "without_timestamps": "no_timestamps",
        "suppress_numerals": "no_numerals",
        "max_line_width": "max_len",
        "cue_style": "split_on_word",
        "precision": "compute_type dtype torch_dtype quantize quantization",
        "threads": "cpu_threads num_threads n_threads intra_threads",
        "model": "model_size model_size_or_path model_path model_name model_id whisper_model",
        "model_dir": "model_directory download_root cache_dir cache_directory download_dir",
        "output_format": "format output_type",
        "concurrency": "num_workers processors inter_threads",
        "progress": "print_progress log_progress progress_callback",
        "max_duration": "max_audio_length",
    }.items()
    for theirs in others.split()
}
_VAD: Final = "give {vad} and its settings each by itself: {vad_threshold}, {vad_min_silence_duration_ms}, ..."
_DEVICE: Final = "devices are named where a model is loaded, with {device}: cpu, cuda or cuda:1"
_ATTENTION: Final = "how attention is computed is not for you to choose; leave it out"
_SPEAKERS: Final = "this version has no speaker labels; leave it out"
_ACCESS: Final = "set the environment variable HF_TOKEN instead"
_TIMES: Final = "give {word_timestamps} instead: it needs no other model"
_CLIPS: Final = "give {clip_timestamps} instead, in seconds"
_BATCH: Final = "give {mode} chunked instead to decode one recording's parts side by side; {max_memory} bounds how many"
_CHUNKS: Final = "give {chunk_length} instead, the most seconds of sound in a window"
#: their name -> what to do, where no single option is the same; names in braces are ours
_ADVICE: Final[Mapping[str, str]] = {
    theirs: advice
    for names, advice in (
        ("vad_parameters vad_options vad_model", _VAD),
        ("batch_size batched", _BATCH),
        ("device_index gpu use_gpu no_gpu", _DEVICE),
        ("fp32", "it is said where a model is loaded, with {precision}: float32"),
        ("flash_attn flash_attention", _ATTENTION),
        ("diarize diarization tinydiarize hf_diarize min_speakers max_speakers num_speakers speaker_num", _SPEAKERS),
        ("hf_token use_auth_token token", _ACCESS),
        ("align_model no_align align_extend interpolate_method", _TIMES),
        ("offset_t offset_n duration clip start_time end_time", _CLIPS),
        ("chunk_length_s chunk_size stride_length_s", _CHUNKS),
        ("audio_ctx", "give {audio_context} fit instead: it encodes as much as the sound of a window needs"),
        ("local_files_only", "give {download} False instead"),
        ("in_memory", "weights are always in memory; leave it out"),
        ("translate", "give {task} translate instead"),
        ("detect_language", "leave {language} out to have it detected; engine.detect_language() only detects"),
        ("no_fallback", "give {temperature} 0 alone instead"),
        ("output_file", "give {output_dir} instead: files are named after their recordings"),
        ("revision", "give the path of the downloaded folder as {model} instead"),
    )
    for theirs in names.split()
} | {
    f"output_{name}": f"give {{output_format}} {name.partition('_')[0]} instead"
    for name in ("txt", "srt", "vtt", "csv", "lrc", "json", "json_full")
}  # fmt: skip
#: the keywords of `load`
LOAD_KEYWORDS: Final = (
    "model",
    "device",
    "precision",
    "threads",
    "download",
    "backend",
    "max_memory",
    "device_memory",
    "model_dir",
    "host",
)
#: what the library has otherwise: flag -> how
_IN_PYTHON: Final[Mapping[str, str]] = {
    "output_format": "write the transcript with stapes.output.write_files()",
    "output_dir": "write the transcript with stapes.output.write_files()",
    "concurrency": "submit() several recordings, or call from several threads: they share one engine",
    "progress": "give on_progress instead, a function",
    "max_duration": "give max_duration_s instead",
    "max_line_width": "lay subtitles out with stapes.output.Layout",
    "cue_style": "lay subtitles out with stapes.output.Layout",
}
#: flags with one dash, of whisper.cpp and of commands in general -> ours
SHORT_FLAGS: Final[Mapping[str, str]] = {
    **{f"-o{name}": f"-f {name}" for name in ("txt", "srt", "vtt", "csv", "lrc")},
    **{"-oj": "-f json", "-ojf": "-f json", "-owts": "-f ass", "-of": "-o FOLDER", "-m": "--model", "-l": "--language"},
    **{"-t": "--threads", "-p": "--concurrency", "-bs": "--beam_size", "-bo": "--best_of", "-tp": "--temperature"},
    **{"-tr": "--task translate", "-ml": "--max_line_width", "-sow": "--cue_style readable", "-np": "--progress none"},
    **{"-et": "--compression_ratio_threshold", "-lpt": "--logprob_threshold", "-nth": "--no_speech_threshold"},
    **{"-tpi": "--temperature_increment_on_fallback", "-nf": "--temperature_increment_on_fallback None"},
    **{"-ot": "--clip_timestamps", "-d": "--clip_timestamps", "-pp": "--progress bar", "-vt": "--vad_threshold"},
    **{"-v": "--verbose True", "-V": "--version", "-ac": "--audio_context fit"},
}


def advice(name: str, face: Face, options: Container[str]) -> str | None:
    """Return what to give instead of an option that is not here, or is elsewhere; None where nothing is known of it.

    name: in Python's spelling.   options: the names of a transcription's options.
    """
    if name in _ADVICE:
        offline = name == "local_files_only" and face == "command"
        return _named("set the environment variable HF_HUB_OFFLINE=1 instead" if offline else _ADVICE[name], face)
    ours = _RENAMED.get(name)
    if face == "command":
        return ours and f"give --{ours} instead"
    if face == "request":
        return _advice_in_requests(ours or name, options)
    return _advice_in_python(name, ours or name, face, options)


def _advice_in_python(name: str, ours: str, face: Face, options: Container[str]) -> str | None:
    if ours in _IN_PYTHON:
        return _IN_PYTHON[ours]
    home = "load" if ours in LOAD_KEYWORDS else "transcribe" if ours in options else None
    if home is None:
        return None
    if ours == name:
        return f"it belongs to {home}()"
    return f"give {ours} instead" + ("" if home == face else f", to {home}()")


def _advice_in_requests(ours: str, options: Container[str]) -> str | None:
    if ours == "output_format":
        return "give response_format instead"
    if ours in _IN_PYTHON or ours in LOAD_KEYWORDS:
        return "requests cannot set it; leave it out"
    return f"give {ours} instead" if ours in options else None


def _named(text: str, face: Face) -> str:
    dashes = "--" if face == "command" else ""
    return text.replace("{", dashes).replace("}", "")
