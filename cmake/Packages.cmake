find_package(PkgConfig REQUIRED)
pkg_check_modules(LIBUV      REQUIRED IMPORTED_TARGET libuv>=1.44)
pkg_check_modules(HIREDIS    REQUIRED IMPORTED_TARGET hiredis>=0.14)
pkg_check_modules(NETTLE     REQUIRED IMPORTED_TARGET nettle>=3.8)
pkg_check_modules(NGHTTP2    REQUIRED IMPORTED_TARGET libnghttp2>=1.52)
pkg_check_modules(JANSSON    REQUIRED IMPORTED_TARGET jansson>=2.11)
pkg_check_modules(INIH       REQUIRED IMPORTED_TARGET inih>=55)
pkg_check_modules(MICROHTTPD REQUIRED IMPORTED_TARGET libmicrohttpd>=0.9.75)

# Distributions backport options of nghttp2 without changing its version, so
# they are looked for by name. The first two are what makes 1.52 safe to use
# (Debian: 1.52.0-1+deb12u3).
include(CheckSymbolExists)
set(CMAKE_REQUIRED_LIBRARIES PkgConfig::NGHTTP2)
foreach(option stream_reset_rate_limit max_continuations
        glitch_rate_limit max_outbound_queue_size)
  string(TOUPPER HAVE_${option} have)
  check_symbol_exists(nghttp2_option_set_${option} nghttp2/nghttp2.h ${have})
  if(${have})
    list(APPEND NGHTTP2_HAS ${have})
  endif()
endforeach()
unset(CMAKE_REQUIRED_LIBRARIES)
if(NOT HAVE_STREAM_RESET_RATE_LIMIT OR NOT HAVE_MAX_CONTINUATIONS)
  message(FATAL_ERROR "nghttp2 is too old: 1.52.0-1+deb12u3 or 1.68.1 is needed")
endif()
