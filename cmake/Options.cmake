set(SANITIZE "" CACHE STRING "Sanitizers, e.g. address,undefined or thread")
option(COVERAGE "Instrument for gcov" OFF)
option(FUZZ "Build the libFuzzer targets (clang)" OFF)
option(WERROR "Treat warnings as errors (CI)" OFF)

add_library(options INTERFACE)
target_compile_features(options INTERFACE c_std_11)
target_compile_options(options INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion
  -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition -Wvla
  -Wformat=2 -Wundef -Wcast-align -Wcast-qual -Wpointer-arith -Wwrite-strings
  -Wnull-dereference -Wimplicit-fallthrough -Wdouble-promotion
  $<$<C_COMPILER_ID:GNU>:-Wlogical-op -Wduplicated-cond -Wduplicated-branches>
  $<$<C_COMPILER_ID:Clang>:-Wcomma -Wshorten-64-to-32 -Wassign-enum -Wconditional-uninitialized>
  $<$<BOOL:${WERROR}>:-Werror>
  -fno-common -fstack-protector-strong
  -UNDEBUG)  # assertions stay on in every build we ship
if(SANITIZE)
  set(san -fsanitize=${SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_compile_options(options INTERFACE ${san})
  target_link_options(options INTERFACE ${san})
else()
  target_compile_definitions(options INTERFACE $<$<NOT:$<CONFIG:Debug>>:_FORTIFY_SOURCE=2>)
  target_link_options(options INTERFACE -Wl,-z,relro,-z,now)
endif()
if(COVERAGE)
  target_compile_options(options INTERFACE --coverage)
  target_link_options(options INTERFACE --coverage)
endif()
if(FUZZ)
  # Everything is instrumented; only the fuzz targets link libFuzzer's main.
  target_compile_options(options INTERFACE -fsanitize=fuzzer-no-link)
  target_link_options(options INTERFACE -fsanitize=fuzzer-no-link)
endif()

# One static library per folder; every #include is written from the source root.
function(add_floor name)
  cmake_parse_arguments(F "" "" "SOURCES;USES;PRIVATE_USES;DEFINES" ${ARGN})
  add_library(${name} STATIC ${F_SOURCES})
  set_target_properties(${name} PROPERTIES C_EXTENSIONS OFF POSITION_INDEPENDENT_CODE ON)
  target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR})
  target_compile_definitions(${name} PRIVATE ${F_DEFINES})
  target_link_libraries(${name} PUBLIC ${F_USES} PRIVATE options ${F_PRIVATE_USES})
endfunction()
