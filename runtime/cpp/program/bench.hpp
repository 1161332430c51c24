// Measures how fast a folder runs on this machine.
#pragma once

#include "arguments.hpp"

// Prints medians over the rounds. With --json it prints one object with the keys of Python's bench.
// Throws Failure.
void run_benchmark(const Arguments& arguments);
