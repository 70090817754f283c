// The submodule `kernels`: single kernels over NumPy arrays, for tests.
#pragma once

#include <nanobind/nanobind.h>

namespace stapes::python {

void bind_kernels(nanobind::module_& m);
// `alignment_cost` and `dtw_path`: where tokens lie in the sound.
void bind_alignment(nanobind::module_& m);
// `SpeechNetwork` and `SpeechState`: the probability of speech.
void bind_speech(nanobind::module_& m);
// The submodule `peak`: what the machine does at best.
void bind_peak(nanobind::module_& m);

}  // namespace stapes::python
