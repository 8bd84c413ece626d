/* Plays the files named on the command line to a fuzz target, once each. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "fuzz.h"

/* Larger than any input worth keeping in a corpus. */
enum {
    INPUT_MAX = 1024 * 1024
};

/* Read a file into memory of exactly its size, so that a sanitizer sees the
 * first byte read beyond it. The caller owns it. */
static uint8_t *read_input(const char *path, size_t *size)
{
    static uint8_t buffer[INPUT_MAX];
    FILE *file = fopen(path, "rb");

    if (file == NULL) {
        return NULL;
    }
    *size = fread(buffer, 1, sizeof buffer, file);
    bool whole = ferror(file) == 0 && *size < sizeof buffer;
    (void)fclose(file);
    uint8_t *input = whole ? malloc(*size == 0 ? 1 : *size) : NULL;
    if (input != NULL) {
        memcpy(input, buffer, *size);
    }
    return input;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: %s INPUT...\n", argv[0]);
        return EXIT_FAILURE; /* an empty corpus proves nothing */
    }
    for (int i = 1; i < argc; i++) {
        size_t size = 0;
        uint8_t *input = read_input(argv[i], &size);
        if (input == NULL) {
            fprintf(stderr, "%s: cannot be read\n", argv[i]);
            return EXIT_FAILURE;
        }
        (void)LLVMFuzzerTestOneInput(input, size);
        free(input);
    }
    printf("%d inputs\n", argc - 1);
    return EXIT_SUCCESS;
}
