// How fast the machine is, for benchmarks and for the choice of a precision.
#include <nanobind/stl/string.h>

#include <algorithm>
#include <chrono>
#include <limits>

#include "../network/operands.h"
#include "arrays.h"
#include "kernels_binding.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace stapes::python {
namespace {

constexpr auto ENCODER_LAYER = "encoder.0.mlp_in";
constexpr int PARTS_PER_THREAD = 8;  // a thread that is held up leaves parts to the others

// How many products all threads together did.
double multiply_in_registers(const std::string& isa, const std::string& type, int n_threads, std::int64_t n_rounds) {
    const Kernels& kernels = kernels_of(isa);
    const Type rows = type == "int8"       ? Type::i8
                      : type == "int16"    ? Type::i16
                      : type == "bfloat16" ? Type::bf16
                                           : Type::f32;
    const PoolLease lease(n_threads);
    Team team(n_threads);
    std::vector<double> done(static_cast<std::size_t>(n_threads * PARTS_PER_THREAD));
    team.share(static_cast<int>(done.size()), [&](int part, int) {
        done[static_cast<std::size_t>(part)] = kernels.multiply_in_registers(rows, n_rounds);
    });
    double sum = 0.0;
    for (const double one : done) sum += one;
    return sum;
}

// Every thread reads its share of the numbers, once.
void read_through(const std::string& isa, const Floats& numbers, int n_threads) {
    const Kernels& kernels = kernels_of(isa);
    const PoolLease lease(n_threads);
    Team team(n_threads);
    const std::size_t n_parts = static_cast<std::size_t>(n_threads * PARTS_PER_THREAD), size = numbers.size() / n_parts;
    team.share(static_cast<int>(n_parts), [&](int part, int) {
        kernels.read_through(numbers.data() + static_cast<std::size_t>(part) * size, size * sizeof(float));
    });
}

// In one thread, rows with a layer's weights as the encoder multiplies them: products of numbers a second in the
// quickest of some rounds of half a millisecond, which nothing may have disturbed.
double multiply_layer(const std::string& isa, const std::string& precision, int n_rounds) {
    constexpr int n_rows = 64, width = 512;
    const Kernels& kernels = kernels_of(isa);
    const Type weights = type_of_linear(ENCODER_LAYER, precision_of(precision), kernels),
               rows = row_type_of(kernels, weights), stored = rows == Type::f32 ? Type::f16 : weights;
    const Matrix matrix(stored, width, width, kernels);
    const Weights view = matrix.view();
    Operand operand(kernels, n_rows, width);
    const Memory zeros(static_cast<std::size_t>(n_rows) * operand.stride() * sizeof(float));
    Memory scratch(product_scratch(width)), c(zeros.n_bytes());
    Product p{};
    p.n_rows = n_rows;
    p.w = &view;
    p.last_panel = view.n_panels();
    p.c = c.bytes();
    p.c_type = Type::f32;
    p.c_stride = operand.stride();
    p.scratch = scratch.bytes();
    double least_s = std::numeric_limits<double>::infinity();
    for (int round = 0; round < n_rounds; ++round) {
        const auto began = std::chrono::steady_clock::now();
        operand.take(zeros.as(), 0, n_rows, rows);
        p.a = operand.rows(rows);
        kernels.multiply(p);
        least_s = std::min(least_s, std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
    }
    return static_cast<double>(n_rows) * width * width / std::max(least_s, 1e-9);
}

// What a precision comes to on a set: its name, and the types of rows in the encoder's layers and where nothing is
// quantised.
std::string arithmetic(const std::string& isa, const std::string& precision) {
    const Kernels& kernels = kernels_of(isa);
    const Precision named = precision_of(precision);
    const Type layers = row_type_of(kernels, type_of_linear(ENCODER_LAYER, named, kernels)),
               others = row_type_of(kernels, type_of_linear("encoder.conv1", named, kernels));
    return precision + "/" + traits_of(layers).name + "/" + traits_of(others).name;
}

}  // namespace

void bind_peak(nb::module_& m) {
    nb::module_ peak = m.def_submodule("peak", "How fast the machine is.");
    const nb::call_guard<nb::gil_scoped_release> unlocked;
    peak.def("multiply_in_registers", &multiply_in_registers, "isa"_a, "type"_a, "n_threads"_a, "n_rounds"_a, unlocked,
             "Multiply and add in registers, in every thread; give how many products that were.");
    peak.def("read_through", &read_through, "isa"_a, "numbers"_a, "n_threads"_a, unlocked,
             "Read all numbers, each thread its share.");
    peak.def("multiply_layer", &multiply_layer, "isa"_a, "precision"_a, "n_rounds"_a, unlocked,
             "Multiply a layer of the encoder, in one thread; give the products of numbers a second at best.");
    peak.def("arithmetic", &arithmetic, "isa"_a, "precision"_a,
             "Name what a precision comes to on a set: precision/rows in the encoder's layers/rows where nothing is "
             "quantised.");
}

}  // namespace stapes::python
