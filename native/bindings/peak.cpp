// What the machine does at best, for benchmarks: the caller takes the time.
#include <nanobind/stl/string.h>

#include <algorithm>

#include "../network/pool.h"
#include "arrays.h"
#include "kernels_binding.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace stapes::python {
namespace {

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

}  // namespace

void bind_peak(nb::module_& m) {
    nb::module_ peak = m.def_submodule("peak", "What the machine does at best, for benchmarks.");
    const nb::call_guard<nb::gil_scoped_release> unlocked;
    peak.def("multiply_in_registers", &multiply_in_registers, "isa"_a, "type"_a, "n_threads"_a, "n_rounds"_a, unlocked,
             "Multiply and add in registers, in every thread; give how many products that were.");
    peak.def("read_through", &read_through, "isa"_a, "numbers"_a, "n_threads"_a, unlocked,
             "Read all numbers, each thread its share.");
}

}  // namespace stapes::python
