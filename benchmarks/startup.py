"""How long `from stapes import *` takes, over an interpreter that imports nothing, and over NumPy alone.

`import stapes` by itself loads nothing: every name is loaded when it is first asked for.

python -m benchmarks.startup [--repeat 20] [--output FILE]
"""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median

from benchmarks.process import as_installed
from benchmarks.running import keep, parser_of, result_of, run

PROGRAMS = {"nothing": "pass", "numpy": "import numpy", "all of stapes": "from stapes import *"}
LIMIT_S = 0.3


def main() -> int:
    """Measure in turn and print; exit 1 above the limit."""
    parser = parser_of("benchmarks.startup", __doc__)
    parser.add_argument("--repeat", type=int, default=20)
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for turn in range(arguments.repeat + 1):
        for name, program in PROGRAMS.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True, env=as_installed())
            if turn:  # the first turn fills the file cache
                seconds[name].append(time.perf_counter() - started)
    medians = {name: round(median(values), 4) for name, values in seconds.items()}
    own = medians["all of stapes"] - medians["nothing"]
    for name, value in medians.items():
        sys.stdout.write(f"{name:13} {value * 1000:7.1f} ms\n")
    sys.stdout.write(f"from stapes import * costs {own * 1000:.1f} ms; the limit is {LIMIT_S * 1000:.0f} ms\n")
    if arguments.output is not None:
        keep(result_of("startup", {}, medians_s=medians, limit_s=LIMIT_S), arguments.output, "startup")
    return 0 if own <= LIMIT_S else 1


if __name__ == "__main__":
    run("benchmarks.startup", main)
