// Tests of the library without Python, small enough to run under the sanitizers for addresses, undefined behaviour and
// threads. That the numbers are right to the last digits is tested from Python (tests/contract/test_native_*.py); here
// they must be about right, and no memory may be touched that is not ours.
#include "suites.h"

#include "check.h"

namespace stapes::tests {

int run_suites() {
    test_kernels();
    test_pool();
    test_network();
    if (n_failed) std::fprintf(stderr, "%d checks failed\n", n_failed);
    return n_failed;
}

}  // namespace stapes::tests
