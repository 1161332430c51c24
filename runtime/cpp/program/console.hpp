// What differs between systems: arguments, standard streams, Ctrl-C, peak memory, ending the
// program.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

// The arguments after the program's name, in UTF-8. Throws UsageError if one is not valid Unicode.
std::vector<std::string> list_arguments(int count, char** values);

// Switches the standard streams to UTF-8 and to unchanged bytes, without conversion of line ends.
void open_streams();

// ONNX Runtime 1.31 otherwise stores a device id and a database of events in the user's cache
// folder.
void turn_telemetry_off();

// Whether stdin, stdout or stderr is a terminal.
bool is_terminal(FILE* stream);

// Reads a line of stdin without its line end; returns false if there are no more lines.
bool read_line(std::string* line);

// Reads stdin to its end.
std::string read_all();

// Calls `interrupt` at each Ctrl-C, in a separate thread that may call the library.
void watch_interrupts(void (*interrupt)());

// Peak memory of this process; 0 if the system does not report it.
double read_peak_bytes();

// Ends the program at once. `exit` would destroy objects that a remaining thread of ONNX
// Runtime 1.31 still uses. Flush the streams before.
[[noreturn]] void leave(int code);
