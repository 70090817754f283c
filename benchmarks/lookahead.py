"""What could be known of a long recording's next window before its turn, and what that could save.

python -m benchmarks.lookahead [--model base] [--minutes 13] [--precision float32,int8] [--output FILE]

A recording that is alone gives the decoder one row at a time. Three ways to look ahead, each compared with what the
seek loop then does:

* Tokens after a window's last pair of timestamps are dropped, since the next window begins at that pair and says
  them again. How many are there, and how many of them come again unchanged (with moved times)?
* The window after this one could be encoded early if one knew where it begins: 30 s on. How often does it?
* A draft of the whole recording in chunks (`mode="chunked"`) decodes many rows at once; the seek loop's windows would
  then only check its tokens. They begin elsewhere, so that they are to be encoded all the same. What is the most that
  this could save, if every token of the draft stood and checking cost nothing?
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import stapes
from benchmarks.adapters.stapes_engine import GREEDY, BackendTimer, facts_of
from benchmarks.joined import write_joined
from benchmarks.running import keep, parser_of, result_of, run
from benchmarks.word_errors import simple
from stapes.backends.native.library import PRECISIONS
from stapes.results import Transcript, Window


def main() -> int:
    """Measure, write, and print."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.wav"
        write_joined(path, arguments.minutes)
        runs = [_run(arguments, precision, path) for precision in arguments.precision]
    settings = {"model": arguments.model, "threads": arguments.threads, "minutes": arguments.minutes}
    result = result_of("lookahead", settings, runs=runs)
    for one in runs:
        sys.stdout.write(_printed(one))
    keep(result, arguments.output, f"lookahead-{arguments.model}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = parser_of("benchmarks.lookahead", __doc__, "lookahead-MODEL")
    add = parser.add_argument
    add("--model", default="base")
    add("--precision", type=_precisions, default=["float32", "int8"], help="comma-separated; default: float32,int8")
    add("--threads", type=int, default=2)
    add("--minutes", type=float, default=13)
    return parser.parse_args()


def _precisions(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(PRECISIONS):
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(PRECISIONS)}")
    return names


def _run(arguments: argparse.Namespace, precision: str, path: Path) -> dict[str, Any]:
    """Transcribe with the seek loop and in chunks, and compare each window's result with the next one."""
    with stapes.load(arguments.model, precision=precision, threads=arguments.threads) as engine:
        timer = BackendTimer(engine)
        whole, loop_s = _timed(engine, timer, path)
        draft, draft_s = _timed(engine, timer, path, mode="chunked")
        begin = engine._tokenizer.special.timestamp_begin
        facts = facts_of(engine)
    pairs = list(zip(whole.windows[:-1], whole.windows[1:], strict=True))
    dropped = [(dropped_tokens(window, begin), following) for window, following in pairs]
    loop_all_s, draft_all_s = sum(loop_s.values()), sum(draft_s.values())
    return {
        "precision": precision,
        "facts": facts,
        "windows": len(whole.windows),
        "tokens": sum(len(window.result.tokens) for window in whole.windows),
        "dropped": sum(len(tail) for tail, _ in dropped),
        "dropped_and_said_again": sum(common(tail, one.result.tokens) for tail, one in dropped),
        "begun_as_expected": sum(one.next_seek == one.seek + one.n_frames for one, _ in pairs),
        **loop_s,
        "draft": {**draft_s, "windows": len(draft.windows), "same_words": round(_same_words(whole, draft), 4)},
        "at_most": round(loop_all_s / (draft_all_s + loop_s["encode_s"]), 3),
    }


def _timed(
    engine: stapes.Engine, timer: BackendTimer, path: Path, **keywords: Any
) -> tuple[Transcript, dict[str, float]]:
    encode_s, step_s = timer.encode_s, timer.step_s
    result = engine.transcribe(path, language="en", **GREEDY, **keywords)
    return result, {"encode_s": round(timer.encode_s - encode_s, 4), "step_s": round(timer.step_s - step_s, 4)}


def dropped_tokens(window: Window, timestamp_begin: int) -> tuple[int, ...]:
    """Return the tokens after a window's last pair of timestamps, from its second one on, if the loop goes back to it.

    Their times are moved along, as the next window counts them.
    """
    tokens = window.result.tokens
    if window.skipped or window.next_seek == window.seek + window.n_frames:
        return ()
    is_time = [token >= timestamp_begin for token in tokens]
    start = max(i for i in range(1, len(tokens)) if is_time[i - 1] and is_time[i])
    moved = tokens[start - 1] - timestamp_begin
    return tuple(token - moved if token >= timestamp_begin else token for token in tokens[start:])


def common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """Count the tokens in which two rows begin alike."""
    equal = [a == b for a, b in zip(one, other, strict=False)]
    return equal.index(False) if False in equal else len(equal)


def _same_words(whole: Transcript, draft: Transcript) -> float:
    """Return the share of the seek loop's words that the draft has too, in the same order."""
    words, others = simple(whole.text, "en").split(), simple(draft.text, "en").split()
    blocks = SequenceMatcher(None, words, others, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks) / max(1, len(words))


def _printed(run: dict[str, Any]) -> str:
    draft = run["draft"]
    return (
        f"{run['precision']}: {run['windows']} windows, {run['tokens']} tokens; encoder {run['encode_s']:.2f} s, steps "
        f"{run['step_s']:.2f} s\n"
        f"  {run['dropped']} tokens dropped after the last pair, {run['dropped_and_said_again']} of them come again\n"
        f"  {run['begun_as_expected']} of {run['windows'] - 1} windows begin where the one before ends\n"
        f"  a draft in {draft['windows']} chunks: encoder {draft['encode_s']:.2f} s, steps {draft['step_s']:.2f} s, "
        f"{draft['same_words']:.1%} of the words; with it at most {run['at_most']:.2f} times as fast\n"
    )


if __name__ == "__main__":
    run("benchmarks.lookahead", main)
