#include "proxy/core/words.h"

#include <stdio.h>
#include <string.h>

struct buf *words_pack(struct memory *m, const struct span *words, size_t n)
{
    size_t room = 32;
    for (size_t i = 0; i < n; i++) {
        room += words[i].len + 32;
    }
    struct buf *b = room > UINT32_MAX ? NULL : buf_new(m, (uint32_t)room);
    if (b == NULL) {
        return NULL;
    }
    char *text = (char *)b->data;
    size_t len = (size_t)snprintf(text, room, "*%zu\r\n", n);
    for (size_t i = 0; i < n; i++) {
        len +=
            (size_t)snprintf(text + len, room - len, "$%zu\r\n", words[i].len);
        if (words[i].len > 0) {
            memcpy(text + len, words[i].data, words[i].len);
        }
        len += words[i].len;
        text[len++] = '\r';
        text[len++] = '\n';
    }
    b->len = (uint32_t)len;
    return b;
}
