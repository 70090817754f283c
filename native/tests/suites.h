// The suites that stand in files of their own.
#pragma once

namespace stapes::tests {

// Runs all; returns how many checks failed.
int run_suites();

}  // namespace stapes::tests
