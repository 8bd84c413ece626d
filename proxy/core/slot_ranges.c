#include "proxy/core/slot_ranges.h"

#include <string.h>

#include "parser/keyslot.h"
#include "proxy/core/cluster.h"

uint32_t slot_ranges_count(const struct cluster *c)
{
    uint32_t n = 1;
    for (uint32_t s = 1; s < KEYSLOT_COUNT; s++) {
        n += c->slots[s] != c->slots[s - 1];
    }
    return n;
}

uint32_t slot_ranges_list(const struct cluster *c,
                          struct slot_range *ranges,
                          uint32_t max,
                          uint16_t *heads)
{
    uint32_t n = slot_ranges_count(c);
    n = n < max ? n : max;
    memset(heads, 0, c->n_endpoints * sizeof(*heads));
    uint32_t last = KEYSLOT_COUNT - 1;
    for (uint32_t i = n; i > 0; i--) { /* from the end: lists grow at heads */
        uint32_t first = last;
        uint16_t owner = c->slots[last];
        while (first > 0 && c->slots[first - 1] == owner) {
            first--;
        }
        ranges[i - 1] = (struct slot_range){ .first = (uint16_t)first,
                                             .last = (uint16_t)last,
                                             .owner = owner,
                                             .next = heads[owner] };
        heads[owner] = (uint16_t)i;
        last = first - 1;
    }
    return n;
}
