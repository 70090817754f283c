"""The page's sections on many recordings at once, and on long ones."""

from __future__ import annotations

from typing import Any

from benchmarks.page import section


def throughput(result: dict[str, Any]) -> str:
    """Return the section on sixteen recordings at once."""
    settings, recordings = result["settings"], result["recordings"]
    rows = []
    for row in result["engines"]:
        parts = ("" if row[name] is None else f"{row[name]:.2f} s" for name in ("encode_s", "step_s"))
        same = "" if row["same_texts"] is None else f"{row['same_texts']} of {recordings['count']}"
        rows.append(
            [
                row["name"],
                f"{row['seconds']:.2f} s",
                f"{recordings['seconds'] / row['seconds']:.1f}",
                *parts,
                f"{row['peak_memory_mb']:.0f} MB",
                "" if row["word_error_rate"] is None else f"{row['word_error_rate']:.2%}",
                same,
            ]
        )
    head = "engine|time|times real time|encoder|decoder's steps|peak memory|word errors|texts as one after another"
    note = (
        f"{recordings['count']} recordings, {recordings['seconds']:.0f} s together, {settings['threads']} threads, "
        f"median of {settings['rounds']}, in turn. Greedy, English given. faster-whisper's batched mode finds speech "
        f"first and gives no timestamps. Normaliser: {settings['normaliser']}."
    )
    return section(f"Many recordings at once, model {settings['model']}", result, note, head.split("|"), rows)


def fairness(result: dict[str, Any]) -> str:
    """Return the section on a short clip beside a long recording."""
    settings = result["settings"]
    rows = [
        ("alone", f"{result['alone_median_s'] * 1000:.0f} ms", ""),
        ("beside, median", f"{result['beside_median_s'] * 1000:.0f} ms", f"{result['ratio_median']:.2f}x"),
        ("beside, slowest", f"{max(result['beside_s']) * 1000:.0f} ms", f"{result['ratio_most']:.2f}x"),
    ]
    note = (
        f"{settings['clip_s']:g} s of speech, {settings['clips']} times, at random moments of a recording of "
        f"{settings['minutes']:g} minutes; {settings['threads']} threads, {result['facts']['precision']}. The long "
        f"recording ended {result['cancel_s'] * 1000:.0f} ms after it was cancelled."
    )
    title = f"A short recording beside a long one, model {settings['model']}"
    return section(title, result, note, ("clip", "time", "times its time alone"), rows)


def lookahead(result: dict[str, Any]) -> str:
    """Return the section on looking ahead to the next window."""
    settings = result["settings"]
    rows = [
        (
            row["precision"],
            str(row["windows"]),
            str(row["tokens"]),
            f"{row['dropped']}, of which {row['dropped_and_said_again']} come again",
            f"{row['begun_as_expected']} of {row['windows'] - 1}",
            f"{row['encode_s']:.2f} + {row['step_s']:.2f} s",
            f"{row['draft']['encode_s']:.2f} + {row['draft']['step_s']:.2f} s",
            f"{row['draft']['same_words']:.0%}",
            f"{row['at_most']:.2f}x",
        )
        for row in result["runs"]
    ]
    head = (
        "precision|windows|tokens|dropped after the last pair|windows that begin where the one before ends|"
        "encoder + steps|the same for a draft in chunks|words of the draft that stand|at most faster with a draft"
    )
    note = (
        f"The long recordings of the list joined to {settings['minutes']:g} minutes, greedy, "
        f"{settings['threads']} threads. "
        '"At most faster" lets every step after the draft cost nothing.'
    )
    return section(f"Looking ahead, model {settings['model']}", result, note, head.split("|"), rows)


def memory(result: dict[str, Any]) -> str:
    """Return the section on memory and the length of a recording."""
    peaks = list(result["peaks_mb"].values())
    note = (
        "A scripted network, so that only the engine's own buffers count. "
        f"Difference {peaks[-1] - peaks[0]:.1f} MB, limit {result['limit_mb']:.0f} MB."
    )
    if "cancel_s" in result:
        note += (
            f" The longest recording ended {max(result['cancel_s']) * 1000:.0f} ms at most after it was cancelled, "
            f"and its reading {max(result['stop_reading_s']) * 1000:.0f} ms after it was to stop."
        )
    rows = [(f"{minutes} min", f"{peak:.0f} MB") for minutes, peak in result["peaks_mb"].items()]
    return section("Memory and the length of a recording", result, note, ("recording", "peak memory"), rows)
