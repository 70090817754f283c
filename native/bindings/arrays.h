// NumPy arrays at the border: what comes in is contiguous and of one type, what goes out owns its numbers.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../kernels/kernels.h"

namespace stapes::python {

template <class T, class... Shape>
using In = nanobind::ndarray<const T, nanobind::c_contig, nanobind::device::cpu, Shape...>;
using Floats = In<float, nanobind::ndim<1>>;
using FloatTable = In<float, nanobind::ndim<2>>;
using HalfTable = In<std::uint16_t, nanobind::ndim<2>>;
using Doubles = In<double, nanobind::ndim<1>>;
using Ids = In<std::int64_t, nanobind::ndim<1>>;
using Ints = In<std::int32_t, nanobind::ndim<1>>;
using IntPairs = In<std::int32_t, nanobind::shape<-1, 2>>;

// Raises ValueError where a name is none.
inline const Kernels& kernels_of(const std::string& isa) {
    const Kernels* found = kernels_by_name(isa.c_str());
    if (!found) throw std::invalid_argument("this machine or this build has no instruction set " + isa);
    return *found;
}

// An array for Python that owns its numbers.
template <class T>
nanobind::ndarray<nanobind::numpy, T> given(std::vector<T> values, std::initializer_list<std::size_t> shape) {
    auto* kept = new std::vector<T>(std::move(values));
    nanobind::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
    return nanobind::ndarray<nanobind::numpy, T>(kept->data(), shape, owner);
}

}  // namespace stapes::python
