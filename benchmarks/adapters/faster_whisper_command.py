"""What `stapes RECORDING` does, as its user would write it with faster-whisper.

python -m benchmarks.adapters.faster_whisper_command RECORDING MODEL PRECISION THREADS [greedy]
"""

import sys

from faster_whisper import WhisperModel

recording, model, precision, threads, *greedy = sys.argv[1:]
network = WhisperModel(model, device="cpu", compute_type=precision, cpu_threads=int(threads))
if greedy:
    segments, _ = network.transcribe(recording, language="en", beam_size=1, temperature=0.0)
else:
    segments, _ = network.transcribe(recording)  # beams of five, the language detected, temperature fallback
for segment in segments:
    sys.stdout.write(segment.text.strip() + "\n")
