#!/usr/bin/env bash
# Speak samples/stapes.flac: text -> Festival (voice cmu_us_slt_arctic_hts) -> SoX -> 16 kHz mono FLAC.
#
#     apt-get install festival festvox-us-slt-hts sox    # Debian, Ubuntu
#     tools/make_sample.sh [OUTPUT.flac]
#
# The same versions of these three give the same samples on every run.
set -euo pipefail

output=${1:-"$(dirname "$0")/../samples/stapes.flac"}
# "stay-peas" is how the word sounds; the voice's dictionary does not have it.
text="The stay-peas is the smallest bone in the human body. It passes every sound on, and adds nothing of its own. \
This software is named after it. It writes down what was said, word for word."

for program in text2wave sox; do
    command -v "$program" >/dev/null || {
        echo "make_sample: $program is missing; install festival, festvox-us-slt-hts and sox" >&2
        exit 2
    }
done

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
printf '%s\n' "$text" | text2wave -eval '(voice_cmu_us_slt_arctic_hts)' -o "$folder/speech.wav"
# -D: no dither, so that a run can be repeated; gain: peaks at -6 dB; pad: a breath at both ends.
sox -D "$folder/speech.wav" -b 16 --compression 8 --comment "" "$folder/speech.flac" \
    rate -v 16000 remix 1 gain -n -6 pad 0.2 0.4
mv "$folder/speech.flac" "$output"
