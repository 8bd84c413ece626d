#include "proxy/core/session.h"

#include "proxy/core/state.h"

bool text_set(struct engine *e, struct text *t, struct span value)
{
    char *copy = memory_take(e->memory, value.len + 1);
    if (copy == NULL) {
        return false;
    }
    if (value.len > 0) {
        memcpy(copy, value.data, value.len);
    }
    text_clear(e, t);
    t->data = copy;
    t->len = value.len;
    return true;
}

void text_clear(struct engine *e, struct text *t)
{
    if (t->data == NULL) {
        return;
    }
    memset(t->data, 0, t->len); /* it may be a password */
    memory_give(e->memory, t->data);
    *t = (struct text){ 0 };
}

static bool text_copy(struct engine *e, struct text *t, const struct text *from)
{
    return from->data == NULL || text_set(e, t, text_span(from));
}

static bool text_equal(const struct text *a, const struct text *b)
{
    if (a->data == NULL || b->data == NULL) {
        return a->data == b->data;
    }
    return span_equal(text_span(a), text_span(b));
}

struct session *session_copy(struct engine *e, const struct session *from)
{
    struct session *s = memory_take(e->memory, sizeof(*s));
    if (s == NULL) {
        return NULL;
    }
    s->resp = 2;
    if (from == NULL) {
        return s;
    }
    s->db = from->db;
    s->resp = from->resp;
    s->authenticated = from->authenticated;
    if (text_copy(e, &s->username, &from->username) &&
        text_copy(e, &s->password, &from->password) &&
        text_copy(e, &s->name, &from->name) &&
        text_copy(e, &s->lib_name, &from->lib_name) &&
        text_copy(e, &s->lib_version, &from->lib_version)) {
        return s;
    }
    session_free(e, s);
    return NULL;
}

void session_free(struct engine *e, struct session *s)
{
    if (s == NULL) {
        return;
    }
    text_clear(e, &s->username);
    text_clear(e, &s->password);
    text_clear(e, &s->name);
    text_clear(e, &s->lib_name);
    text_clear(e, &s->lib_version);
    memory_give(e->memory, s);
}

bool session_same_lane(const struct session *a, const struct session *b)
{
    return a->resp == b->resp && a->db == b->db &&
           text_equal(&a->username, &b->username) &&
           text_equal(&a->password, &b->password);
}

bool session_same_name(const struct session *a, const struct session *b)
{
    return text_equal(&a->name, &b->name) &&
           text_equal(&a->lib_name, &b->lib_name) &&
           text_equal(&a->lib_version, &b->lib_version);
}
