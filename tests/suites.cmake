# Test suites that are scripts: the command line by itself, and next to qemu-img's.
if(NOT COIMG_LINT)
  add_test(NAME cli COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cli/run.sh $<TARGET_FILE:coimg>)
  add_test(NAME cli_compat COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cli/compat.sh $<TARGET_FILE:coimg>)
  add_test(NAME man_matches_help COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cli/man_matches_help.sh $<TARGET_FILE:coimg>)
  set_tests_properties(cli cli_compat PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 600)
endif()
