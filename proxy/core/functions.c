#include "proxy/core/functions.h"

#include "parser/reply.h"
#include "proxy/core/memory.h"

enum {
    NAME_MAX = UINT8_MAX
};

bool functions_are_due(const struct functions *f,
                       const struct function_changes *changes,
                       uint64_t now_us,
                       uint64_t up_us)
{
    if (now_us < changes->open_until_us) {
        return false; /* it would have to be asked again */
    }
    return f->asked_us == 0 || f->asked_us < up_us ||
           f->version != changes->version ||
           now_us - f->asked_us >= FUNCTIONS_ASK_US;
}

void functions_asked(struct functions *f,
                     const struct function_changes *changes,
                     uint64_t now_us,
                     uint8_t mark)
{
    f->mark = mark;
    f->asked_us = now_us;
    f->version = changes->version;
}

static void forget(struct memory *m, struct functions *f)
{
    memory_give(m, f->names);
    f->names = NULL;
    f->names_len = 0;
    f->learnt_us = 0;
}

static bool writes_nothing(const struct reply *function)
{
    const struct reply *flags = reply_get(function, "flags");
    for (size_t i = 0; flags != NULL && i < reply_count(flags); i++) {
        if (span_equal(reply_text(reply_at(flags, i)), span_of("no-writes"))) {
            return true;
        }
    }
    return false;
}

/* Append the names of one library's functions, as far as they fit. */
static void take_library(struct functions *f, const struct reply *library)
{
    const struct reply *list = reply_get(library, "functions");
    for (size_t i = 0; list != NULL && i < reply_count(list); i++) {
        const struct reply *function = reply_at(list, i);
        const struct reply *name = reply_get(function, "name");
        if (name == NULL || !writes_nothing(function)) {
            continue;
        }
        struct span text = reply_text(name);
        if (text.len == 0 || text.len > NAME_MAX ||
            text.len + 1 > FUNCTION_NAMES_MAX - f->names_len) {
            continue; /* it counts as one that writes */
        }
        f->names[f->names_len] = (uint8_t)text.len;
        memcpy(f->names + f->names_len + 1, text.data, text.len);
        f->names_len += 1 + (uint32_t)text.len;
    }
}

void functions_answered(struct memory *m,
                        struct functions *f,
                        uint8_t mark,
                        struct span reply)
{
    if (mark != f->mark) {
        return;
    }
    forget(m, f);
    struct reply *tree = reply_parse(reply);
    if (tree != NULL && reply_type(tree) == REPLY_ARRAY) {
        f->names = memory_take_raw(m, FUNCTION_NAMES_MAX);
        f->learnt_us = f->names == NULL ? 0 : f->asked_us;
        f->known = f->version;
        for (size_t i = 0; f->names != NULL && i < reply_count(tree); i++) {
            take_library(f, reply_at(tree, i));
        }
    }
    reply_free(tree);
}

bool functions_read_only(const struct functions *f,
                         const struct function_changes *changes,
                         struct span name,
                         uint64_t now_us)
{
    if (f == NULL || f->learnt_us == 0 || f->known != changes->version ||
        now_us - f->learnt_us >= FUNCTIONS_BELIEVED_US) {
        return false;
    }
    for (uint32_t i = 0; i < f->names_len; i += 1u + f->names[i]) {
        if (span_equal((struct span){ f->names + i + 1, f->names[i] }, name)) {
            return true;
        }
    }
    return false;
}

void functions_changing(struct function_changes *changes,
                        uint64_t arrived_us,
                        uint64_t now_us)
{
    changes->version++;
    changes->sent_us = arrived_us;
    changes->open_until_us = now_us + FUNCTIONS_BELIEVED_US;
}

void functions_changed(struct function_changes *changes,
                       uint64_t arrived_us,
                       bool queued)
{
    changes->version++;
    if (!queued && arrived_us == changes->sent_us) {
        changes->open_until_us = 0;
    }
}

void functions_free(struct memory *m, struct functions *f)
{
    if (f != NULL) {
        memory_give(m, f->names);
        memory_give(m, f);
    }
}
