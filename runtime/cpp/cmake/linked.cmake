# Every system but Windows: ONNX Runtime's library is linked.
if(ONNXRUNTIME_LIBRARY)
  set(ORT_LIBRARY "${ONNXRUNTIME_LIBRARY}")
else()
  find_library(ORT_LIBRARY onnxruntime NO_CACHE HINTS "${ONNXRUNTIME_ROOT}/lib")
endif()
if(NOT ORT_LIBRARY OR NOT EXISTS "${ORT_LIBRARY}")
  message(FATAL_ERROR "libonnxruntime was not found. Download a release of ONNX Runtime and set "
    "-DONNXRUNTIME_ROOT=FOLDER, or set -DONNXRUNTIME_LIBRARY=FILE, for example to "
    "onnxruntime/capi/libonnxruntime.so.* of the Python package onnxruntime.")
endif()
get_filename_component(ORT_REAL "${ORT_LIBRARY}" REALPATH)
# The loader looks for this name. A Python package has the library under its full version only.
if(APPLE)
  get_filename_component(ORT_INSTALLED_NAME "${ORT_REAL}" NAME)
  set(ORIGIN "@loader_path")
else()
  set(ORT_INSTALLED_NAME libonnxruntime.so.1)
  set(ORIGIN "$ORIGIN")
endif()
file(CREATE_LINK "${ORT_REAL}" "${CMAKE_BINARY_DIR}/${ORT_INSTALLED_NAME}" SYMBOLIC)
set(CMAKE_BUILD_RPATH "${CMAKE_BINARY_DIR}")
file(RELATIVE_PATH BIN_TO_LIB "/${CMAKE_INSTALL_BINDIR}" "/${CMAKE_INSTALL_LIBDIR}")
list(APPEND CMAKE_INSTALL_RPATH "${ORIGIN}" "${ORIGIN}/${BIN_TO_LIB}")
target_link_libraries(ort INTERFACE "${ORT_REAL}")

set(PLATFORM_SOURCES source/cores.cpp source/onnxruntime_linked.cpp source/processor.cpp)
set(PLATFORM_PROGRAM program/console_posix.cpp)
