# Windows: ONNX Runtime's library is loaded at run time from the folder of glm.dll or glm-run.exe.
# Nothing of it is linked, so that building needs the header only. The DLL is copied if it is known.
if(ONNXRUNTIME_LIBRARY)
  set(ORT_LIBRARY "${ONNXRUNTIME_LIBRARY}")
else()
  find_file(ORT_LIBRARY onnxruntime.dll NO_CACHE NO_DEFAULT_PATH HINTS "${ONNXRUNTIME_ROOT}/lib")
endif()

set(PLATFORM_SOURCES
  source/cores_windows.cpp source/onnxruntime_windows.cpp source/processor_windows.cpp)
set(PLATFORM_PROGRAM program/console_windows.cpp)

function(finish_for_windows)
  set_target_properties(glm PROPERTIES PREFIX "")
  if(MINGW) # GCC's own libraries are linked into glm.dll and glm-run.exe.
    target_link_options(glm PRIVATE -static)
    target_link_options(glm-run PRIVATE -static)
  endif()
  if(NOT ORT_LIBRARY)
    message(STATUS "onnxruntime.dll was not found. Put it beside glm-run.exe and glm.dll.")
    return()
  endif()
  add_custom_command(TARGET glm-run POST_BUILD VERBATIM
    COMMAND "${CMAKE_COMMAND}" -E copy_if_different "${ORT_LIBRARY}" "$<TARGET_FILE_DIR:glm-run>")
endfunction()
