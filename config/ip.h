/* IP addresses: text to 16 bytes, and back. */
#ifndef CONFIG_IP_H
#define CONFIG_IP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    IP_BYTES = 16,
    IP_BITS = 128,
    IP_V4_BITS = 96, /* what is before an IPv4 address in its mapped form */
    IP_TEXT_MAX = 40
};

/* Read "10.0.0.1" or "2001:db8::1" (RFC 4291 §2.2; no zone such as %eth0).
 * IPv4 becomes ::ffff:a.b.c.d. Returns false, and leaves ip alone, when it is
 * no address: a name, for one. */
bool ip_parse(const char *text, size_t len, uint8_t ip[IP_BYTES]);

bool ip_is_v4(const uint8_t ip[IP_BYTES]);
/* Whether all bits behind the first ones are zero. */
bool ip_ends_after(const uint8_t ip[IP_BYTES], unsigned bits);

/* Write it as RFC 5952 wants it; a mapped IPv4 address as IPv4. */
void ip_format(const uint8_t ip[IP_BYTES], char text[IP_TEXT_MAX]);

#endif
