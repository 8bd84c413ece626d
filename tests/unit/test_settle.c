/* What of an interrupted pipeline is replayed, for every pipeline of up to four
 * commands on two keys, every prefix of it that the server may have executed,
 * and every choice of what may be replayed at all.
 *
 * A model server plays it. The truth it is held against knows nothing of the
 * rule: whatever was executed before the connection was lost and whatever is
 * replayed together make a set of commands; their replies and the final state
 * must be those of a server that runs this set once, in the client's order
 * (reliability.md I1, I5, I6).
 *
 * How each property fails when settle_decide() or settle_keys_meet() is broken
 * on purpose (each was tried):
 *
 * - a_replay_cannot_be_told_from_a_first_execution: a later write not minded
 *   whose replay is not certain; `constant` not asked, or instead of it; only
 *   the next command looked at; only the first key of either side; commands
 *   with unknown keys taken for commands without keys, on either side.
 * - what_is_not_permitted_is_not_replayed: permission not asked.
 * - what_the_items_held_before_changes_nothing: the pipeline gone through from
 *   the left.
 * - nothing_written_behind_it_means_replayed: reads taken for writes; all keys
 *   taken for the same.
 * - of_two_commands_none_is_refused_without_need: every command with a write
 *   behind it refused, whether that one is replayed or not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "parser/commands.h"
#include "proxy/core/settle.h"

/* ---- a server with two keys ---------------------------------------------- */

enum kind {
    GET,
    SET,
    SETEX,
    INCR,
    APPEND,
    DEL,
    MSET,     /* both keys */
    FLUSHALL, /* keys not known */
    DBSIZE,   /* keys not known, only reads */
    KINDS
};

enum {
    DEPTH_MAX = 4,
    STORES = 4
};

struct step {
    enum kind kind;
    unsigned key; /* 0 or 1, for those that have one */
};

struct value {
    uint64_t number; /* 0: there is none */
    bool expires;
};

struct store {
    struct value keys[2];
};

static bool has_one_key(enum kind kind)
{
    return kind <= DEL;
}

/* No two commands write the same, so that what was seen tells what ran. */
static uint64_t number_of(size_t place)
{
    return 10 * (place + 1);
}

/* Run one command; returns its reply as a number. */
static uint64_t run(struct store *s, struct step step, size_t place)
{
    struct value *v = &s->keys[step.key];
    uint64_t reply = 1;
    switch (step.kind) {
    case GET: return v->number;
    case SET:
    case SETEX:
        *v = (struct value){ number_of(place), step.kind == SETEX };
        return reply;
    case INCR: return ++v->number;
    case APPEND:
        v->number = v->number * 1000 + number_of(place);
        return v->number;
    case DEL:
        reply = v->number != 0;
        *v = (struct value){ 0 };
        return reply;
    case MSET:
        s->keys[0] = s->keys[1] = (struct value){ number_of(place), false };
        return reply;
    case FLUSHALL: *s = (struct store){ 0 }; return reply;
    case DBSIZE:
        return (uint64_t)(s->keys[0].number != 0) + (s->keys[1].number != 0);
    case KINDS: break;
    }
    assert_true(false);
    return 0;
}

static bool store_equal(const struct store *a, const struct store *b)
{
    for (size_t i = 0; i < 2; i++) {
        if (a->keys[i].number != b->keys[i].number ||
            a->keys[i].expires != b->keys[i].expires) {
            return false;
        }
    }
    return true;
}

/* What the server may have held before. */
static struct store store_at(size_t i)
{
    return (struct store){ .keys = { { i & 1 ? 7 : 0, false },
                                     { i & 2 ? 8 : 0, (i & 2) != 0 } } };
}

/* ---- pipelines ------------------------------------------------------------ */

struct pipeline {
    struct step steps[DEPTH_MAX];
    size_t n;
};

enum {
    CHOICES = 2 * (DEL + 1) + (KINDS - DEL - 1)
};

static struct step step_at(size_t choice)
{
    if (choice / 2 <= DEL) {
        return (struct step){ (enum kind)(choice / 2), choice % 2 };
    }
    return (struct step){ (enum kind)(choice - (DEL + 1)), 0 };
}

static size_t pipelines(size_t n)
{
    size_t count = 1;
    for (size_t i = 0; i < n; i++) {
        count *= CHOICES;
    }
    return count;
}

static struct pipeline pipeline_at(size_t i, size_t n)
{
    struct pipeline p = { .n = n };
    for (size_t k = 0; k < n; k++) {
        p.steps[k] = step_at(i % CHOICES);
        i /= CHOICES;
    }
    return p;
}

/* Twice is as once, reply included (classes R, I and T). */
static bool is_idempotent(enum kind kind)
{
    return kind == GET || kind == SET || kind == SETEX || kind == MSET ||
           kind == DBSIZE;
}

/* Some level permits to replay it without changing the state: the class is S,
 * or one of those above. */
static bool may_be_permitted(enum kind kind)
{
    return is_idempotent(kind) || kind == DEL;
}

static struct settle_item item_of(struct step step)
{
    struct settle_item item = { 0 };
    item.writes = step.kind != GET && step.kind != DBSIZE;
    item.constant = step.kind == SET || step.kind == SETEX || step.kind == MSET;
    item.any_key = step.kind == FLUSHALL || step.kind == DBSIZE;
    if (has_one_key(step.kind)) {
        item.n_keys = 1;
        item.keys[0] = 100 + step.key;
    } else if (step.kind == MSET) {
        item.n_keys = 2;
        item.keys[0] = 100;
        item.keys[1] = 101;
    }
    return item;
}

/* Which steps may be replayed is the ith choice. False: there is no such
 * choice. */
static bool permit(const struct pipeline *p,
                   unsigned choice,
                   struct settle_item *items)
{
    for (size_t k = 0; k < p->n; k++) {
        bool permitted = (choice >> k & 1) != 0;
        if (permitted && !may_be_permitted(p->steps[k].kind)) {
            return false;
        }
        items[k] = item_of(p->steps[k]);
        items[k].permitted = permitted;
    }
    return true;
}

/* Called for every pipeline and every choice, decided. */
typedef void checker(const struct pipeline *p, const struct settle_item *items);

/* Returns how many choices there are. */
static size_t for_all_choices(const struct pipeline *p, checker *check)
{
    size_t done = 0;
    for (unsigned choice = 0; choice < 1u << p->n; choice++) {
        struct settle_item items[DEPTH_MAX];
        if (permit(p, choice, items)) {
            settle_decide(items, p->n);
            check(p, items);
            done++;
        }
    }
    return done;
}

static void for_all(size_t depth, checker *check)
{
    size_t done = 0;
    for (size_t n = 1; n <= depth; n++) {
        for (size_t i = 0; i < pipelines(n); i++) {
            struct pipeline p = pipeline_at(i, n);
            done += for_all_choices(&p, check);
        }
    }
    assert_true(done > pipelines(depth));
}

/* ---- the truth ------------------------------------------------------------ */

/* Lose the connection after the server has executed the first ones, replay
 * what items say, and compare with a server that ran each of these once. */
static bool is_invisible(const struct pipeline *p,
                         const struct settle_item *items,
                         size_t executed,
                         struct store before)
{
    struct store lossy = before;
    struct store once = before;
    uint64_t replies[DEPTH_MAX] = { 0 };
    for (size_t k = 0; k < executed; k++) {
        run(&lossy, p->steps[k], k);
    }
    for (size_t k = 0; k < p->n; k++) {
        if (items[k].replay) {
            replies[k] = run(&lossy, p->steps[k], k);
        }
    }
    for (size_t k = 0; k < p->n; k++) {
        if (k >= executed && !items[k].replay) {
            continue;
        }
        uint64_t reply = run(&once, p->steps[k], k);
        /* Who permits class S takes its reply as it comes. */
        bool matters = items[k].replay && is_idempotent(p->steps[k].kind);
        if (matters && reply != replies[k]) {
            return false;
        }
    }
    return store_equal(&lossy, &once);
}

static bool is_always_invisible(const struct pipeline *p,
                                const struct settle_item *items)
{
    for (size_t executed = 0; executed <= p->n; executed++) {
        for (size_t i = 0; i < STORES; i++) {
            if (!is_invisible(p, items, executed, store_at(i))) {
                return false;
            }
        }
    }
    return true;
}

static void check_invisible(const struct pipeline *p,
                            const struct settle_item *items)
{
    assert_true(is_always_invisible(p, items));
}

static void a_replay_cannot_be_told_from_a_first_execution(void **state)
{
    (void)state;
    for_all(DEPTH_MAX, check_invisible);
}

static void check_permitted(const struct pipeline *p,
                            const struct settle_item *items)
{
    for (size_t k = 0; k < p->n; k++) {
        assert_true(items[k].permitted || !items[k].replay);
    }
}

static void what_is_not_permitted_is_not_replayed(void **state)
{
    (void)state;
    for_all(DEPTH_MAX, check_permitted);
}

static void check_repeatable(const struct pipeline *p,
                             const struct settle_item *items)
{
    struct settle_item again[DEPTH_MAX];
    memcpy(again, items, p->n * sizeof *items);
    for (size_t k = 0; k < p->n; k++) {
        again[k].replay = !items[k].replay;
    }
    settle_decide(again, p->n);
    for (size_t k = 0; k < p->n; k++) {
        assert_int_equal(again[k].replay, items[k].replay);
    }
}

static void what_the_items_held_before_changes_nothing(void **state)
{
    (void)state;
    for_all(3, check_repeatable);
}

/* ---- and no more careful than needed --------------------------------------- */

static bool step_writes(struct step step, unsigned key)
{
    if (step.kind == GET || step.kind == DBSIZE) {
        return false;
    }
    return !has_one_key(step.kind) || step.key == key;
}

static bool step_uses(struct step step, unsigned key)
{
    return !has_one_key(step.kind) || step.key == key;
}

static bool is_written_behind(const struct pipeline *p, size_t k)
{
    for (size_t j = k + 1; j < p->n; j++) {
        for (unsigned key = 0; key < 2; key++) {
            if (step_uses(p->steps[k], key) && step_writes(p->steps[j], key)) {
                return true;
            }
        }
    }
    return false;
}

static void check_not_overcareful(const struct pipeline *p,
                                  const struct settle_item *items)
{
    for (size_t k = 0; k < p->n; k++) {
        if (items[k].permitted && !is_written_behind(p, k)) {
            assert_true(items[k].replay);
        }
    }
}

static void nothing_written_behind_it_means_replayed(void **state)
{
    (void)state;
    for_all(DEPTH_MAX, check_not_overcareful);
}

static void check_needed(const struct pipeline *p,
                         const struct settle_item *items)
{
    if (items[0].permitted && !items[0].replay &&
        is_idempotent(p->steps[0].kind)) {
        struct settle_item bolder[DEPTH_MAX];
        memcpy(bolder, items, p->n * sizeof *items);
        bolder[0].replay = true;
        assert_false(is_always_invisible(p, bolder));
    }
}

static void of_two_commands_none_is_refused_without_need(void **state)
{
    (void)state;
    for_all(2, check_needed);
}

/* ---- the items are the truth about the commands ----------------------------- */

static void the_items_say_what_the_commands_are(void **state)
{
    (void)state;
    static const struct {
        enum kind kind;
        const char *words[5];
    } rows[] = {
        { GET, { "GET", "k" } },
        { SET, { "SET", "k", "v" } },
        { SETEX, { "SETEX", "k", "9", "v" } },
        { INCR, { "INCR", "k" } },
        { APPEND, { "APPEND", "k", "v" } },
        { DEL, { "DEL", "k" } },
        { MSET, { "MSET", "k", "v", "l", "w" } },
        { FLUSHALL, { "FLUSHALL" } },
        { DBSIZE, { "DBSIZE" } },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct span argv[5];
        size_t argc = 0;
        while (argc < 5 && rows[i].words[argc] != NULL) {
            argv[argc] = span_of(rows[i].words[argc]);
            argc++;
        }
        const struct command *c = command_find(argv[0], (struct span){ 0 });
        enum command_class class = command_class(c, argv, argc, 0);
        struct settle_item item = item_of((struct step){ rows[i].kind, 0 });
        uint32_t index[SETTLE_KEYS_MAX];
        int n = command_keys(c, argv, argc, index, SETTLE_KEYS_MAX);
        assert_int_equal(n == COMMAND_KEYS_UNKNOWN, item.any_key);
        assert_true(item.any_key || n == item.n_keys);
        assert_int_equal(command_writes(c, class), item.writes);
        assert_int_equal(command_reply_constant(c, argv, argc), item.constant);
        bool listed = class == CLASS_R || class == CLASS_RN ||
                      class == CLASS_I || class == CLASS_T;
        assert_int_equal(listed, is_idempotent(rows[i].kind));
        assert_int_equal(listed || class == CLASS_S,
                         may_be_permitted(rows[i].kind));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_replay_cannot_be_told_from_a_first_execution),
        cmocka_unit_test(what_is_not_permitted_is_not_replayed),
        cmocka_unit_test(what_the_items_held_before_changes_nothing),
        cmocka_unit_test(nothing_written_behind_it_means_replayed),
        cmocka_unit_test(of_two_commands_none_is_refused_without_need),
        cmocka_unit_test(the_items_say_what_the_commands_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
