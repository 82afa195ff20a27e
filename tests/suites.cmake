# Test suites that are scripts: the command line by itself and next to qemu-img's, and what has to hold of the program.
if(NOT COIMG_LINT)
  foreach(engine threads io_uring)
    add_test(NAME cli.${engine} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cli/run.sh $<TARGET_FILE:coimg>)
    add_test(NAME cli_compat.${engine} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cli/compat.sh $<TARGET_FILE:coimg>)
    add_test(NAME killed.${engine} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cli/killed.sh $<TARGET_FILE:coimg>)
    set_tests_properties(cli.${engine} cli_compat.${engine} killed.${engine} PROPERTIES
      SKIP_RETURN_CODE 77 TIMEOUT ${script_timeout} ENVIRONMENT COIMG_AIO=${engine})
    # Thousands of command lines, each run twice.
    math(EXPR compat_timeout "3 * ${script_timeout}")
    set_tests_properties(cli_compat.${engine} PROPERTIES TIMEOUT ${compat_timeout})
  endforeach()
  add_test(NAME man_matches_help COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cli/man_matches_help.sh $<TARGET_FILE:coimg>)
  add_test(NAME cli_compat_coverage COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cli/compat_coverage.sh $<TARGET_FILE:coimg>)
  set_tests_properties(cli_compat_coverage PROPERTIES SKIP_RETURN_CODE 77)
  add_test(NAME completions_match_help COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cli/completions_match_help.sh $<TARGET_FILE:coimg>)
  add_test(NAME man_lint COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cli/man_lint.sh)
  add_test(NAME man_examples COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cli/man_examples.sh $<TARGET_FILE:coimg>)
  set_tests_properties(man_lint PROPERTIES SKIP_RETURN_CODE 77)

  add_test(NAME package_installs COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/package/installs.sh ${CMAKE_BINARY_DIR})
  set_tests_properties(package_installs PROPERTIES SKIP_RETURN_CODE 77)
  if(NOT COIMG_SANITIZE) # which need memory of their own
    foreach(engine threads io_uring)
      add_test(NAME peak_memory.${engine} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/limits/peak_memory.sh $<TARGET_FILE:coimg>)
      set_tests_properties(peak_memory.${engine} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 300 ENVIRONMENT COIMG_AIO=${engine})
    endforeach()
  endif()
endif()
