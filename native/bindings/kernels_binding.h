// The submodule `kernels`: single kernels over NumPy arrays, for tests.
#pragma once

#include <nanobind/nanobind.h>

namespace stapes::python {

void bind_kernels(nanobind::module_& m);

}  // namespace stapes::python
