/* Build-time tool: print the tables of keyslot.c as C. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* One more byte, bit by bit, by the polynomial x^16 + x^12 + x^5 + 1. */
static uint16_t crc_step(uint16_t crc, unsigned byte)
{
    unsigned value = crc ^ byte << 8;

    for (int bit = 0; bit < 8; bit++) {
        value = (value & 0x8000) != 0 ? value << 1 ^ 0x1021 : value << 1;
    }
    return (uint16_t)value;
}

int main(void)
{
    printf("/* Made by keyslot_table.c: the CRC16 of a byte with so many zero\n"
           " * bytes behind it. */\n");
    printf("static const uint16_t crc_of[8][256] = {\n");
    for (unsigned zeros = 0; zeros < 8; zeros++) {
        printf("    {");
        for (unsigned byte = 0; byte < 256; byte++) {
            uint16_t crc = crc_step(0, byte);
            for (unsigned i = 0; i < zeros; i++) {
                crc = crc_step(crc, 0);
            }
            printf("%s0x%04x,", byte % 8 == 0 ? "\n        " : " ",
                   (unsigned)crc);
        }
        printf("\n    },\n");
    }
    printf("};\n");
    return EXIT_SUCCESS;
}
