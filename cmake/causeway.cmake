# House rules for targets: one library a folder, tests beside the code they test.

# causeway_library(NAME SRCS ... DEPS ...): static library causeway_NAME.
function(causeway_library name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  add_library(causeway_${name} STATIC ${ARG_SRCS})
  target_link_libraries(causeway_${name} PUBLIC ${ARG_DEPS})
endfunction()

# causeway_test(NAME SRCS ... DEPS ... [DEFINITIONS ...] [TIMEOUT s]): GoogleTest binary, one ctest
# entry.
function(causeway_test name)
  if(NOT CAUSEWAY_BUILD_TESTS)
    return()
  endif()
  cmake_parse_arguments(ARG "" "TIMEOUT" "SRCS;DEPS;DEFINITIONS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  add_executable(${name} ${ARG_SRCS})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE ${ARG_DEFINITIONS})
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT})
endfunction()

if(CAUSEWAY_BUILD_TESTS)
  find_package(GTest REQUIRED)
endif()

# causeway_proto(NAME PROTOS ... DEPS ... [GRPC]): library proto_NAME from files below proto/.
function(causeway_proto name)
  cmake_parse_arguments(ARG "GRPC" "" "PROTOS;DEPS" ${ARGN})
  set(out ${CMAKE_BINARY_DIR}/proto)
  file(MAKE_DIRECTORY ${out})
  set(sources)
  foreach(proto ${ARG_PROTOS})
    string(REGEX REPLACE "\\.proto$" "" stem ${proto})
    set(generated ${out}/${stem}.pb.cc ${out}/${stem}.pb.h)
    set(plugin)
    if(ARG_GRPC)
      list(APPEND generated ${out}/${stem}.grpc.pb.cc ${out}/${stem}.grpc.pb.h)
      set(plugin --grpc_out=${out} --plugin=protoc-gen-grpc=$<TARGET_FILE:gRPC::grpc_cpp_plugin>)
    endif()
    add_custom_command(
      OUTPUT ${generated}
      COMMAND protobuf::protoc -I ${CMAKE_SOURCE_DIR}/proto --cpp_out=${out} ${plugin}
              ${CMAKE_SOURCE_DIR}/proto/${proto}
      DEPENDS ${CMAKE_SOURCE_DIR}/proto/${proto}
      VERBATIM)
    list(APPEND sources ${generated})
  endforeach()
  add_library(proto_${name} STATIC ${sources})
  target_compile_options(proto_${name} PRIVATE -w)
  target_link_libraries(proto_${name} PUBLIC protobuf::libprotobuf ${ARG_DEPS})
  if(ARG_GRPC)
    target_link_libraries(proto_${name} PUBLIC gRPC::grpc++)
  endif()
endfunction()
