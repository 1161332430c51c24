# What `cmake --install` writes. The installed folder can be moved: nothing in it names a place.
include(CMakePackageConfigHelpers)
set(CONFIG_FOLDER "${CMAKE_INSTALL_LIBDIR}/cmake/glm")

install(TARGETS glm glm-run EXPORT glmTargets)
install(FILES include/glm.h TYPE INCLUDE)
if(GLM_INSTALL_ONNXRUNTIME AND ORT_LIBRARY)
  get_filename_component(ORT_REAL "${ORT_LIBRARY}" REALPATH)
  if(WIN32)
    install(FILES "${ORT_REAL}" DESTINATION "${CMAKE_INSTALL_BINDIR}" RENAME onnxruntime.dll)
  else()
    install(PROGRAMS "${ORT_REAL}" DESTINATION "${CMAKE_INSTALL_LIBDIR}" RENAME "${ORT_INSTALLED_NAME}")
  endif()
  get_filename_component(ORT_FOLDER "${ORT_REAL}" DIRECTORY)
  # A release and a Python package both have these one folder above the library.
  foreach(NAME LICENSE ThirdPartyNotices.txt)
    install(FILES "${ORT_FOLDER}/../${NAME}" OPTIONAL
      DESTINATION "${CMAKE_INSTALL_DATADIR}/licenses/onnxruntime")
  endforeach()
endif()
install(FILES "${CMAKE_CURRENT_SOURCE_DIR}/../../LICENSE" OPTIONAL
  DESTINATION "${CMAKE_INSTALL_DATADIR}/licenses/glm")

# A program that links a static libglm links what the library needs.
if(NOT BUILD_SHARED_LIBS AND NOT WIN32)
  set(ORT_INSTALLED "onnxruntime")
  set(PC_LIBRARIES "-lonnxruntime")
  if(GLM_INSTALL_ONNXRUNTIME)
    set(ORT_INSTALLED "$<INSTALL_PREFIX>/${CMAKE_INSTALL_LIBDIR}/${ORT_INSTALLED_NAME}")
    set(PC_LIBRARIES "\${libdir}/${ORT_INSTALLED_NAME}")
  endif()
  target_link_libraries(glm INTERFACE "$<INSTALL_INTERFACE:${ORT_INSTALLED};stdc++;m;pthread>")
  string(APPEND PC_LIBRARIES " -lstdc++ -lm -pthread")
endif()
install(EXPORT glmTargets NAMESPACE glm:: DESTINATION "${CONFIG_FOLDER}")
configure_package_config_file(cmake/glmConfig.cmake.in "${CMAKE_BINARY_DIR}/glmConfig.cmake"
  INSTALL_DESTINATION "${CONFIG_FOLDER}")
write_basic_package_version_file("${CMAKE_BINARY_DIR}/glmConfigVersion.cmake"
  COMPATIBILITY SameMajorVersion)
install(FILES "${CMAKE_BINARY_DIR}/glmConfig.cmake" "${CMAKE_BINARY_DIR}/glmConfigVersion.cmake"
  DESTINATION "${CONFIG_FOLDER}")

file(RELATIVE_PATH PC_TO_PREFIX "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
string(REGEX REPLACE "/$" "" PC_TO_PREFIX "${PC_TO_PREFIX}")
configure_file(cmake/glm.pc.in "${CMAKE_BINARY_DIR}/glm.pc" @ONLY)
install(FILES "${CMAKE_BINARY_DIR}/glm.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
