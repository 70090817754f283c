// Samples -> probabilities of speech, for stapes/vad/silero_native.py.
#include "../network/speech.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <tuple>

#include "arrays.h"
#include "kernels_binding.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace stapes::python {
namespace {

using FloatCube = In<float, nb::ndim<3>>;

void require(bool holds, const char* otherwise) {
    if (!holds) throw std::invalid_argument(otherwise);
}

void make_network(SpeechNetwork* made, const std::string& isa,
                  const std::vector<std::tuple<FloatCube, Floats, int>>& convolutions, const FloatTable& input_weight,
                  const FloatTable& state_weight, const Floats& gate_bias, const Floats& output_weight,
                  float output_bias) {
    std::vector<SpeechConvolution> layers;
    for (const auto& [weight, bias, stride] : convolutions) {
        require(weight.shape(2) == 3 && bias.shape(0) == weight.shape(0), "a convolution has another shape");
        layers.push_back(
            {weight.data(), bias.data(), static_cast<int>(weight.shape(1)), static_cast<int>(weight.shape(0)), stride});
    }
    const std::size_t n = output_weight.shape(0), n_gates = 4 * n;
    require(input_weight.shape(0) == n_gates && state_weight.shape(0) == n_gates && gate_bias.shape(0) == n_gates &&
                state_weight.shape(1) == n,
            "the recurrent layer has another shape");
    const Kernels& kernels = kernels_of(isa);
    const nb::gil_scoped_release unlocked;
    new (made) SpeechNetwork(kernels, layers,
                             {input_weight.data(), state_weight.data(), gate_bias.data(), output_weight.data(),
                              output_bias, static_cast<int>(n), static_cast<int>(input_weight.shape(1))});
}

nb::object detect(const SpeechNetwork& network, SpeechState& state, const Floats& samples) {
    require(state.output.size() == static_cast<std::size_t>(network.n_units()), "the state is another network's");
    const std::size_t n_chunks = SpeechNetwork::chunks_of(samples.shape(0));
    std::vector<float> found(n_chunks);
    {
        const nb::gil_scoped_release unlocked;
        network.detect(state, samples.data(), samples.shape(0), found.data());
    }
    return nb::cast(given(std::move(found), {n_chunks}));
}

}  // namespace

void bind_speech(nb::module_& m) {
    nb::class_<SpeechState>(m, "SpeechState");
    nb::class_<SpeechNetwork>(m, "SpeechNetwork")
        .def("__init__", &make_network, "isa"_a, "convolutions"_a, "input_weight"_a, "state_weight"_a, "gate_bias"_a,
             "output_weight"_a, "output_bias"_a)
        .def(
            "begin", [](const SpeechNetwork& network) { return SpeechState(network.n_units()); },
            "The state before a recording.")
        .def("listen", &detect, "state"_a, "samples"_a);
}

}  // namespace stapes::python
