// Attention scores -> costs -> path, for stapes/backends/native/backend.py.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <stdexcept>

#include "../network/alignment.h"
#include "arrays.h"
#include "kernels_binding.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace stapes::python {
namespace {

nb::object cost_of(const In<float, nb::ndim<3>>& scores, int n_columns, int n_before) {
    const std::size_t n_tokens = scores.shape(1), stride = scores.shape(2);
    if (n_columns < 0 || static_cast<std::size_t>(n_columns) > stride)
        throw std::invalid_argument("the scores have fewer columns");
    if (n_before < 0 || n_tokens < static_cast<std::size_t>(n_before) + 1)
        throw std::invalid_argument("the scores have fewer tokens");
    if (!scores.shape(0)) throw std::invalid_argument("no heads");
    std::vector<float> cost;
    {
        const nb::gil_scoped_release unlocked;
        cost = alignment_cost(scores.data(), static_cast<int>(scores.shape(0)), static_cast<int>(n_tokens),
                              static_cast<int>(stride), n_columns, n_before);
    }
    return nb::cast(given(std::move(cost),
                          {n_tokens - static_cast<std::size_t>(n_before) - 1, static_cast<std::size_t>(n_columns)}));
}

nb::object path_of(const FloatTable& cost) {
    std::vector<std::int32_t> path;
    {
        const nb::gil_scoped_release unlocked;
        path = dtw_path(cost.data(), static_cast<int>(cost.shape(0)), static_cast<int>(cost.shape(1)));
    }
    const std::size_t length = path.size() / 2;
    return nb::cast(given(std::move(path), {2, length}));
}

}  // namespace

void bind_alignment(nb::module_& m) {
    m.def("alignment_cost", &cost_of, "scores"_a, "n_columns"_a, "n_before"_a);
    m.def("dtw_path", &path_of, "cost"_a);
}

}  // namespace stapes::python
