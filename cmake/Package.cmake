install(TARGETS redial RUNTIME DESTINATION ${CMAKE_INSTALL_SBINDIR})
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_CONTACT "redial maintainers <maintainers@example.org>")
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
# The options of nghttp2 that redial relies on came to 1.52 with this revision;
# the version of the symbols does not tell.
set(CPACK_DEBIAN_PACKAGE_DEPENDS "libnghttp2-14 (>= 1.52.0-1+deb12u3)")
set(CPACK_DEBIAN_PACKAGE_SECTION net)
include(CPack)
