// What each system has of its own: arguments, standard streams, Ctrl-C, memory, the end of the program.
#pragma once

#include <string>
#include <vector>

// The arguments behind the program's name, in UTF-8. Throws UsageError: one cannot be written so.
std::vector<std::string> list_arguments(int count, char** values);

// Streams carry UTF-8, and the bytes that are written, also where text has other line ends.
void open_streams();

// ONNX Runtime 1.31 otherwise keeps an id of this device, and its events, in the user's cache.
void turn_telemetry_off();

// The next line of stdin, without its end; false behind the last one.
bool read_line(std::string* line);

// All of stdin.
std::string read_all();

// Calls `interrupt` at each Ctrl-C from a thread of its own, which may call into the library.
void watch_interrupts(void (*interrupt)());

// The most memory that this process had so far; 0 where the system does not say.
double read_peak_bytes();

// Ends the program at once, without what `exit` does: a thread that ONNX Runtime 1.31 leaves behind
// reads what that destroys. Flush before.
[[noreturn]] void leave(int code);
