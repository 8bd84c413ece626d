/* What every fuzz target includes. */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Stop at a broken promise; kept in every build. */
#define REQUIRE(fact)           \
    do {                        \
        if (!(fact)) {          \
            abort(); /*NOLINT*/ \
        }                       \
    } while (0)

/* The one entry of a target; the name is libFuzzer's. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
