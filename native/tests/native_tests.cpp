// Tests of the library without Python, small enough to run under the sanitizers for addresses, undefined behaviour and
// threads. That the numbers are right to the last digits is tested from Python (tests/contract/test_native_*.py); here
// they must be about right, and no memory may be touched that is not ours.
#include "check.h"

int main() {
    stapes::tests::test_kernels();
    stapes::tests::test_amx();
    stapes::tests::test_pool();
    stapes::tests::test_network();
    stapes::tests::test_alignment();
    stapes::tests::test_speech();
    if (stapes::tests::n_failed) {
        std::fprintf(stderr, "%d checks failed\n", stapes::tests::n_failed);
        return 1;
    }
    std::puts("all native tests passed");
}
