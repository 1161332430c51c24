// How fast a folder runs here.
#pragma once

#include "arguments.hpp"

// Prints medians over the rounds; with --json one object with the keys of Python's glm-run bench.
// Throws Failure.
void run_benchmark(const Arguments& arguments);
