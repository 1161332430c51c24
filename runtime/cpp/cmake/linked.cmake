# ONNX Runtime's library is linked: everywhere but on Windows.
if(ONNXRUNTIME_LIBRARY)
  set(ORT_LIBRARY "${ONNXRUNTIME_LIBRARY}")
else()
  find_library(ORT_LIBRARY onnxruntime NO_CACHE HINTS "${ONNXRUNTIME_ROOT}/lib")
endif()
if(NOT ORT_LIBRARY OR NOT EXISTS "${ORT_LIBRARY}")
  message(FATAL_ERROR "libonnxruntime was not found where -DONNXRUNTIME_ROOT=FOLDER, "
    "-DONNXRUNTIME_LIBRARY=FILE or the system has it; download a release of ONNX Runtime, or give "
    "the library of Python's onnxruntime (onnxruntime/capi/libonnxruntime.so.*).")
endif()
# A wheel has the library under its full version alone, but the loader asks for its soname.
get_filename_component(ORT_REAL "${ORT_LIBRARY}" REALPATH)
file(CREATE_LINK "${ORT_REAL}" "${CMAKE_BINARY_DIR}/libonnxruntime.so.1" SYMBOLIC)
set(CMAKE_BUILD_RPATH "${CMAKE_BINARY_DIR}")
target_link_libraries(ort INTERFACE "${ORT_REAL}")

set(PLATFORM_SOURCES source/cores.cpp source/library_linked.cpp source/processor.cpp)
set(PLATFORM_PROGRAM program/console_posix.cpp)
