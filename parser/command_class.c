/* The argument rules of redis.md §3: the class of one concrete call. What is
 * malformed or unknown is N: the server refuses it, or knows more than we. */
#include <assert.h>

#include "parser/command_table.h"
#include "parser/number.h"

/* A moment closer than this may be past when the server sees it. */
enum {
    PAST_MARGIN_MS = 60 * 1000
};

struct call {
    const struct command *command;
    const struct span *argv;
    size_t argc;
    int64_t wall_ms;
};

/* Whether argument i is there and is this word. */
static bool is(const struct call *c, size_t i, const char *upper)
{
    return i < c->argc && span_is_word(c->argv[i], upper);
}

/* Read argument i. Returns false when it is missing or no number. */
static bool integer(const struct call *c, size_t i, int64_t *number)
{
    return i < c->argc && number_parse(c->argv[i], number);
}

/* Whether arguments a and b are there and equal. */
static bool same(const struct call *c, size_t a, size_t b)
{
    return a < c->argc && b < c->argc && span_equal(c->argv[a], c->argv[b]);
}

/* ---- expiry ---- */

/* The options EX, PX, EXAT, PXAT and their like in one call. */
struct expiry {
    bool relative;
    bool absolute;
    bool past;  /* absolute, and it may be over already */
    bool other; /* KEEPTTL, PERSIST */
    bool bad;
};

static bool moment_past(int64_t ms, int64_t wall_ms)
{
    return ms < wall_ms || ms - wall_ms < PAST_MARGIN_MS;
}

/* Take the option at *i, with its value, if it is one of them. Leaves *i at
 * the last argument taken. */
static bool expiry_option(const struct call *c, size_t *i, struct expiry *e)
{
    bool ex = is(c, *i, "EX");
    bool exat = is(c, *i, "EXAT");
    bool px = is(c, *i, "PX");
    bool pxat = is(c, *i, "PXAT");
    int64_t value = 0;

    if (!ex && !exat && !px && !pxat) {
        return false;
    }
    if (e->relative || e->absolute || e->other || !integer(c, *i + 1, &value) ||
        ((ex || exat) &&
         (value > INT64_MAX / 1000 || value < INT64_MIN / 1000))) {
        e->bad = true;
    } else if (ex || px) {
        e->relative = true;
    } else {
        e->absolute = true;
        e->past = moment_past(exat ? value * 1000 : value, c->wall_ms);
    }
    *i += 1;
    return true;
}

/* Take KEEPTTL or PERSIST, which exclude the options above. */
static bool expiry_word(const struct call *c,
                        size_t i,
                        const char *upper,
                        struct expiry *e)
{
    if (!is(c, i, upper)) {
        return false;
    }
    e->bad = e->bad || e->relative || e->absolute || e->other;
    e->other = true;
    return true;
}

static enum command_class set_rule(const struct call *c)
{
    struct expiry expiry = { 0 };
    bool decides = false;
    bool only_existing = false;

    for (size_t i = 3; i < c->argc; i++) {
        if (is(c, i, "NX") || is(c, i, "GET")) {
            decides = true;
        } else if (is(c, i, "IFEQ") || is(c, i, "IFNE") || is(c, i, "IFDEQ") ||
                   is(c, i, "IFDNE")) {
            decides = true;
            i++;
        } else if (is(c, i, "XX")) {
            only_existing = true;
        } else if (!expiry_word(c, i, "KEEPTTL", &expiry) &&
                   !expiry_option(c, &i, &expiry)) {
            return CLASS_N;
        }
    }
    if (c->argc < 3 || expiry.bad) {
        return CLASS_N;
    }
    if (decides || (only_existing && expiry.past)) {
        return CLASS_D; /* XX finds nothing after an expiry in the past */
    }
    return expiry.relative ? CLASS_T : CLASS_I;
}

static enum command_class msetex_rule(const struct call *c)
{
    struct expiry expiry = { 0 };
    bool decides = false;
    bool only_existing = false;
    int64_t keys = 0;

    if (!integer(c, 1, &keys) || keys < 1 ||
        (uint64_t)keys > (c->argc - 2) / 2) {
        return CLASS_N;
    }
    for (size_t i = 2 + 2 * (size_t)keys; i < c->argc; i++) {
        if (is(c, i, "NX")) {
            decides = true;
        } else if (is(c, i, "XX")) {
            only_existing = true;
        } else if (!expiry_word(c, i, "KEEPTTL", &expiry) &&
                   !expiry_option(c, &i, &expiry)) {
            return CLASS_N;
        }
    }
    if (expiry.bad) {
        return CLASS_N;
    }
    if (decides || (only_existing && expiry.past)) {
        return CLASS_D;
    }
    return expiry.relative ? CLASS_T : CLASS_I;
}

/* Pass "FIELDS n ..." at *i, each field being so many arguments. Leaves *i at
 * the last argument taken. */
static bool fields_option(const struct call *c, size_t *i, size_t each)
{
    int64_t fields = 0;

    if (!is(c, *i, "FIELDS") || !integer(c, *i + 1, &fields) || fields < 1 ||
        (uint64_t)fields > (c->argc - *i - 2) / each) {
        return false;
    }
    *i += 1 + (size_t)fields * each;
    return true;
}

static enum command_class hsetex_rule(const struct call *c)
{
    struct expiry expiry = { 0 };
    bool decides = false;
    bool only_existing = false;
    bool fields = false;

    for (size_t i = 2; i < c->argc; i++) {
        if (is(c, i, "FNX") || is(c, i, "NX")) {
            decides = true;
        } else if (is(c, i, "FXX") || is(c, i, "XX")) {
            only_existing = true;
        } else if (!fields && fields_option(c, &i, 2)) {
            fields = true;
        } else if (!expiry_word(c, i, "KEEPTTL", &expiry) &&
                   !expiry_option(c, &i, &expiry)) {
            return CLASS_N;
        }
    }
    if (!fields || expiry.bad) {
        return CLASS_N;
    }
    if (decides || (only_existing && expiry.past)) {
        return CLASS_D;
    }
    return expiry.relative ? CLASS_T : CLASS_I;
}

/* GETEX and HGETEX: without an option they only read. */
static enum command_class getex_class(const struct expiry *expiry)
{
    if (expiry->bad) {
        return CLASS_N;
    }
    if (expiry->past) {
        return CLASS_D; /* the first call deletes what it returns */
    }
    if (expiry->relative) {
        return CLASS_T;
    }
    return expiry->absolute || expiry->other ? CLASS_I : CLASS_R;
}

static enum command_class getex_rule(const struct call *c)
{
    struct expiry expiry = { 0 };

    for (size_t i = 2; i < c->argc; i++) {
        if (!expiry_word(c, i, "PERSIST", &expiry) &&
            !expiry_option(c, &i, &expiry)) {
            return CLASS_N;
        }
    }
    return c->argc < 2 ? CLASS_N : getex_class(&expiry);
}

static enum command_class hgetex_rule(const struct call *c)
{
    struct expiry expiry = { 0 };
    bool fields = false;

    for (size_t i = 2; i < c->argc; i++) {
        if (!fields && fields_option(c, &i, 1)) {
            fields = true;
        } else if (!expiry_word(c, i, "PERSIST", &expiry) &&
                   !expiry_option(c, &i, &expiry)) {
            return CLASS_N;
        }
    }
    return fields ? getex_class(&expiry) : CLASS_N;
}

/* The flags of the EXPIRE family in [from, to); ended: the key is deleted now,
 * otherwise is the class without a flag. */
static enum command_class expire_class(const struct call *c,
                                       size_t from,
                                       size_t to,
                                       bool ended,
                                       enum command_class otherwise)
{
    bool decides = false;
    bool compares = false;

    for (size_t i = from; i < to; i++) {
        if (is(c, i, "NX")) {
            decides = true;
        } else if (is(c, i, "GT") || is(c, i, "LT")) {
            compares = true;
        } else if (!is(c, i, "XX")) {
            return CLASS_N;
        }
    }
    if (decides) {
        return CLASS_D;
    }
    return compares || ended ? CLASS_S : otherwise;
}

/* Where the flags end: at FIELDS for the forms that work on hash fields. */
static bool expire_flags_end(const struct call *c, bool hash, size_t *end)
{
    *end = c->argc;
    if (!hash) {
        return true;
    }
    *end = is(c, 3, "FIELDS") ? 3 : 4;
    size_t last = *end;
    return fields_option(c, &last, 1) && last + 1 == c->argc;
}

static enum command_class expire_rule(const struct call *c)
{
    int64_t ttl = 0;
    size_t end = 0;

    if (!integer(c, 2, &ttl) ||
        !expire_flags_end(c, c->command->rule == RULE_HEXPIRE, &end)) {
        return CLASS_N;
    }
    return expire_class(c, 3, end, ttl <= 0, CLASS_T);
}

static enum command_class expireat_rule(const struct call *c)
{
    bool seconds =
        c->command->rule == RULE_EXPIREAT || c->command->rule == RULE_HEXPIREAT;
    bool hash = c->command->rule == RULE_HEXPIREAT ||
                c->command->rule == RULE_HPEXPIREAT;
    int64_t moment = 0;
    size_t end = 0;

    if (!integer(c, 2, &moment) || !expire_flags_end(c, hash, &end)) {
        return CLASS_N;
    }
    if (seconds) {
        if (moment > INT64_MAX / 1000 || moment < INT64_MIN / 1000) {
            return CLASS_N;
        }
        moment *= 1000;
    }
    return expire_class(c, 3, end, moment_past(moment, c->wall_ms), CLASS_I);
}

static enum command_class restore_rule(const struct call *c)
{
    bool replace = false;
    bool absolute = false;
    int64_t ttl = 0;

    if (c->argc < 4 || !integer(c, 2, &ttl)) {
        return CLASS_N;
    }
    for (size_t i = 4; i < c->argc; i++) {
        if (is(c, i, "REPLACE")) {
            replace = true;
        } else if (is(c, i, "ABSTTL")) {
            absolute = true;
        } else if ((is(c, i, "IDLETIME") || is(c, i, "FREQ")) &&
                   i + 1 < c->argc) {
            i++;
        } else {
            return CLASS_N;
        }
    }
    if (!replace) {
        return CLASS_D;
    }
    return ttl == 0 || absolute ? CLASS_I : CLASS_T;
}

/* ---- sorted sets and positions ---- */

static enum command_class zadd_rule(const struct call *c)
{
    bool decides = false;
    bool adds = false;
    size_t i = 2;

    for (; i < c->argc; i++) {
        if (is(c, i, "NX")) {
            decides = true;
        } else if (is(c, i, "INCR")) {
            adds = true;
        } else if (!is(c, i, "XX") && !is(c, i, "GT") && !is(c, i, "LT") &&
                   !is(c, i, "CH")) {
            break;
        }
    }
    if (i >= c->argc || (c->argc - i) % 2 != 0) {
        return CLASS_N;
    }
    if (decides) {
        return CLASS_D;
    }
    return adds ? CLASS_N : CLASS_S;
}

static enum command_class geoadd_rule(const struct call *c)
{
    bool decides = false;
    size_t i = 2;

    for (; i < c->argc; i++) {
        if (is(c, i, "NX")) {
            decides = true;
        } else if (!is(c, i, "XX") && !is(c, i, "CH")) {
            break;
        }
    }
    if (i >= c->argc || (c->argc - i) % 3 != 0) {
        return CLASS_N;
    }
    return decides ? CLASS_D : CLASS_S;
}

/* Whether keeping [start, stop] of a sequence a second time keeps all: LTRIM,
 * and ZRANGESTORE onto itself. */
static bool range_settles(int64_t start, int64_t stop)
{
    return (start == 0 && stop >= -1) ||
           (start < 0 && (stop == -1 || stop >= 0)) ||
           (start > stop && (start < 0) == (stop < 0));
}

static enum command_class ltrim_rule(const struct call *c)
{
    int64_t start = 0;
    int64_t stop = 0;

    if (c->argc != 4 || !integer(c, 2, &start) || !integer(c, 3, &stop)) {
        return CLASS_N;
    }
    return range_settles(start, stop) ? CLASS_I : CLASS_N;
}

static enum command_class zremrangebyrank_rule(const struct call *c)
{
    int64_t start = 0;
    int64_t stop = 0;

    if (c->argc != 4 || !integer(c, 2, &start) || !integer(c, 3, &stop)) {
        return CLASS_N;
    }
    return start >= 0 && stop < 0 ? CLASS_S : CLASS_N;
}

static enum command_class zrangestore_rule(const struct call *c)
{
    bool ranks = true;
    bool limit = false;
    int64_t offset = 0;
    int64_t count = 0;
    int64_t start = 0;
    int64_t stop = 0;

    if (c->argc < 5) {
        return CLASS_N;
    }
    for (size_t i = 5; i < c->argc; i++) {
        if (is(c, i, "BYSCORE") || is(c, i, "BYLEX")) {
            ranks = false;
        } else if (is(c, i, "LIMIT") && integer(c, i + 1, &offset) &&
                   integer(c, i + 2, &count)) {
            limit = true;
            i += 2;
        } else if (!is(c, i, "REV")) {
            return CLASS_N;
        }
    }
    if (ranks && (limit || !integer(c, 3, &start) || !integer(c, 4, &stop))) {
        return CLASS_N;
    }
    if (!same(c, 1, 2)) {
        return CLASS_I;
    }
    if (ranks) {
        return range_settles(start, stop) ? CLASS_I : CLASS_N;
    }
    return offset == 0 ? CLASS_I : CLASS_N;
}

static enum command_class geosearchstore_rule(const struct call *c)
{
    return c->argc < 3 || same(c, 1, 2) ? CLASS_N : CLASS_I;
}

static enum command_class georadius_rule(const struct call *c)
{
    size_t first = c->command->rule == RULE_GEORADIUS ? 6 : 5;
    bool stores = false;
    bool onto_itself = false;

    if (c->argc < first) {
        return CLASS_N;
    }
    for (size_t i = first; i < c->argc; i++) {
        if ((is(c, i, "STORE") || is(c, i, "STOREDIST")) && i + 1 < c->argc) {
            i++;
            stores = true;
            onto_itself = onto_itself || same(c, i, 1);
        } else if (is(c, i, "COUNT") && i + 1 < c->argc) {
            i++;
        } else if (!is(c, i, "WITHCOORD") && !is(c, i, "WITHDIST") &&
                   !is(c, i, "WITHHASH") && !is(c, i, "ANY") &&
                   !is(c, i, "ASC") && !is(c, i, "DESC")) {
            return CLASS_N;
        }
    }
    if (!stores) {
        return CLASS_R;
    }
    return onto_itself ? CLASS_N : CLASS_I;
}

/* ---- what is stored from several sources ---- */

/* Whether argument dest is among [from, to). */
static bool among(const struct call *c, size_t dest, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++) {
        if (same(c, dest, i)) {
            return true;
        }
    }
    return false;
}

/* The sources of "command dest number source...": [3, *end). */
static bool numbered_sources(const struct call *c, size_t *end)
{
    int64_t number = 0;

    if (!integer(c, 2, &number) || number < 1 ||
        (uint64_t)number > c->argc - 3) {
        return false;
    }
    *end = 3 + (size_t)number;
    return true;
}

static enum command_class bitop_rule(const struct call *c)
{
    bool settles = is(c, 1, "AND") || is(c, 1, "OR");
    bool known = settles || is(c, 1, "XOR") || is(c, 1, "NOT") ||
                 is(c, 1, "DIFF") || is(c, 1, "DIFF1") || is(c, 1, "ANDOR") ||
                 is(c, 1, "ONE");

    if (c->argc < 4 || !known) {
        return CLASS_N;
    }
    return settles || !among(c, 2, 3, c->argc) ? CLASS_I : CLASS_N;
}

static enum command_class sdiffstore_rule(const struct call *c)
{
    if (c->argc < 3) {
        return CLASS_N;
    }
    bool settles = same(c, 1, 2) || !among(c, 1, 2, c->argc);
    return settles ? CLASS_I : CLASS_N;
}

static enum command_class zdiffstore_rule(const struct call *c)
{
    size_t end = 0;

    if (!numbered_sources(c, &end) || end != c->argc) {
        return CLASS_N;
    }
    return same(c, 1, 3) || !among(c, 1, 3, end) ? CLASS_I : CLASS_N;
}

/* ZUNIONSTORE, ZINTERSTORE. Onto a source, the scores must come out as they
 * went in: the smaller or larger of unweighted ones does, a sum does not. */
static enum command_class zstore_rule(const struct call *c)
{
    bool settles = false;
    bool weighted = false;
    size_t end = 0;

    if (!numbered_sources(c, &end)) {
        return CLASS_N;
    }
    for (size_t i = end; i < c->argc; i++) {
        if (is(c, i, "AGGREGATE")) {
            i++;
            settles = is(c, i, "MIN") || is(c, i, "MAX");
            if (!settles && !is(c, i, "SUM") && !is(c, i, "COUNT")) {
                return CLASS_N;
            }
        } else if (is(c, i, "WEIGHTS") && c->argc - i - 1 >= end - 3) {
            for (size_t n = 0; n < end - 3; n++) {
                i++;
                weighted = weighted || !is(c, i, "1");
            }
        } else {
            return CLASS_N;
        }
    }
    if (!among(c, 1, 3, end)) {
        return CLASS_I;
    }
    return settles && !weighted ? CLASS_I : CLASS_N;
}

static enum command_class merge_rule(const struct call *c)
{
    size_t end = 0;

    return numbered_sources(c, &end) && !among(c, 1, 3, end) ? CLASS_I
                                                             : CLASS_N;
}

/* Onto its own key a second SORT must change nothing. With BY it may: "BY
 * nosort DESC" turns a list round each time. */
static enum command_class sort_rule(const struct call *c)
{
    bool stores = false;
    bool picks = false;
    size_t store = 0;

    for (size_t i = 2; i < c->argc; i++) {
        if ((is(c, i, "BY") || is(c, i, "GET")) && i + 1 < c->argc) {
            i++;
            picks = true;
        } else if (is(c, i, "LIMIT") && i + 2 < c->argc) {
            i += 2;
            picks = true;
        } else if (is(c, i, "STORE") && i + 1 < c->argc) {
            i++;
            stores = true;
            store = i;
        } else if (!is(c, i, "ASC") && !is(c, i, "DESC") &&
                   !is(c, i, "ALPHA")) {
            return CLASS_N;
        }
    }
    if (c->argc < 2) {
        return CLASS_N;
    }
    if (!stores) {
        return CLASS_R;
    }
    return same(c, 1, store) && picks ? CLASS_N : CLASS_I;
}

static enum command_class copy_rule(const struct call *c)
{
    bool replace = false;

    if (c->argc < 3) {
        return CLASS_N;
    }
    for (size_t i = 3; i < c->argc; i++) {
        if (is(c, i, "REPLACE")) {
            replace = true;
        } else if (is(c, i, "DB") && i + 1 < c->argc) {
            i++;
        } else {
            return CLASS_N;
        }
    }
    return replace ? CLASS_I : CLASS_D;
}

/* ---- strings, lists, bits ---- */

static enum command_class bitfield_rule(const struct call *c)
{
    enum command_class class = CLASS_R;

    for (size_t i = 2; i < c->argc; i++) {
        size_t more = is(c, i, "GET") ? 2 : is(c, i, "OVERFLOW") ? 1 : 3;
        if (is(c, i, "INCRBY")) {
            return CLASS_N;
        }
        if (is(c, i, "SET")) {
            class = CLASS_S;
        } else if (more == 3) {
            return CLASS_N;
        }
        i += more;
        if (i >= c->argc) {
            return CLASS_N;
        }
    }
    return c->argc < 2 ? CLASS_N : class;
}

static enum command_class lrem_rule(const struct call *c)
{
    int64_t count = 0;

    return c->argc == 4 && integer(c, 2, &count) && count == 0 ? CLASS_S
                                                               : CLASS_N;
}

/* Cursor 0 begins anew, on any node. */
static enum command_class scan_rule(const struct call *c)
{
    size_t at = strcmp(c->command->name, "SCAN") == 0 ? 1 : 2;

    return is(c, at, "0") ? CLASS_R : CLASS_RN;
}

/* ---- streams ---- */

/* Whether text is "ms" or "ms-seq". */
static bool stream_id(struct span text)
{
    size_t dashes = 0;
    bool digit = false;

    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] == '-' && digit && dashes == 0) {
            dashes++;
            digit = false;
        } else if (text.data[i] >= '0' && text.data[i] <= '9') {
            digit = true;
        } else {
            return false;
        }
    }
    return digit;
}

/* Pass the options of XADD from *i on. Leaves *i at the id. */
static void xadd_options(const struct call *c, size_t *i, bool *recorded)
{
    for (;;) {
        if (is(c, *i, "MAXLEN") || is(c, *i, "MINID")) {
            *i += is(c, *i + 1, "=") || is(c, *i + 1, "~") ? 3 : 2;
        } else if (is(c, *i, "LIMIT") || is(c, *i, "IDMPAUTO")) {
            *i += 2;
        } else if (is(c, *i, "IDMP")) {
            *recorded = true;
            *i += 3;
        } else if (is(c, *i, "NOMKSTREAM") || is(c, *i, "KEEPREF") ||
                   is(c, *i, "DELREF") || is(c, *i, "ACKED")) {
            *i += 1;
        } else {
            return;
        }
    }
}

static enum command_class xadd_rule(const struct call *c)
{
    bool recorded = false; /* the server knows it when it comes again */
    size_t i = 2;

    xadd_options(c, &i, &recorded);
    if (i + 2 >= c->argc || (c->argc - i - 1) % 2 != 0) {
        return CLASS_N;
    }
    if (recorded) {
        return CLASS_I;
    }
    return stream_id(c->argv[i]) ? CLASS_D : CLASS_N;
}

static enum command_class xgroup_setid_rule(const struct call *c)
{
    return c->argc >= 5 && stream_id(c->argv[4]) ? CLASS_I : CLASS_N;
}

/* Pass the options of XREAD and XREADGROUP. Returns the index of STREAMS, or
 * 0 when the call is malformed. */
static size_t xread_streams(const struct call *c, size_t i, bool *blocks)
{
    int64_t number = 0;

    while (i < c->argc && !is(c, i, "STREAMS")) {
        if (is(c, i, "NOACK")) {
            i++;
            continue;
        }
        if (!is(c, i, "BLOCK") && !is(c, i, "COUNT") && !is(c, i, "CLAIM")) {
            return 0;
        }
        *blocks = *blocks || is(c, i, "BLOCK");
        if (!integer(c, i + 1, &number)) {
            return 0;
        }
        i += 2;
    }
    if (i + 2 >= c->argc || (c->argc - i - 1) % 2 != 0) {
        return 0;
    }
    return i;
}

/* Until "$" is frozen to an id, asking again would pass over what was added in
 * between: then it is as careful as a blocking pop. */
static enum command_class xread_rule(const struct call *c)
{
    bool blocks = false;
    size_t streams = xread_streams(c, 1, &blocks);

    if (streams == 0) {
        return CLASS_N;
    }
    if (!blocks) {
        return CLASS_R;
    }
    for (size_t i = streams + 1 + (c->argc - streams - 1) / 2; i < c->argc;
         i++) {
        if (is(c, i, "$")) {
            return CLASS_BN;
        }
    }
    return CLASS_BR;
}

static enum command_class xreadgroup_rule(const struct call *c)
{
    bool blocks = false;

    if (!is(c, 1, "GROUP") || xread_streams(c, 4, &blocks) == 0) {
        return CLASS_N;
    }
    return blocks ? CLASS_BN : CLASS_N;
}

static enum command_class ts_read_rule(const struct call *c)
{
    for (size_t i = 1; i < c->argc; i++) {
        if (is(c, i, "BLOCK")) {
            return CLASS_BR;
        }
    }
    return CLASS_R;
}

static enum command_class xclaim_rule(const struct call *c)
{
    int64_t min_idle = 0;
    bool just_id = false;
    size_t i = 5;

    if (c->argc < 6 || !integer(c, 4, &min_idle)) {
        return CLASS_N;
    }
    while (i < c->argc && stream_id(c->argv[i])) {
        i++;
    }
    for (; i < c->argc; i++) {
        if (is(c, i, "JUSTID")) {
            just_id = true;
        } else if ((is(c, i, "TIME") || is(c, i, "RETRYCOUNT") ||
                    is(c, i, "LASTID")) &&
                   i + 1 < c->argc) {
            i++;
        } else if (!is(c, i, "FORCE")) {
            return CLASS_N; /* IDLE among them: it counts from now */
        }
    }
    return min_idle <= 0 && just_id ? CLASS_I : CLASS_N;
}

static enum command_class xautoclaim_rule(const struct call *c)
{
    int64_t min_idle = 0;
    bool just_id = false;

    if (c->argc < 6 || !integer(c, 4, &min_idle)) {
        return CLASS_N;
    }
    for (size_t i = 6; i < c->argc; i++) {
        if (is(c, i, "JUSTID")) {
            just_id = true;
        } else if (is(c, i, "COUNT") && i + 1 < c->argc) {
            i++;
        } else {
            return CLASS_N;
        }
    }
    return min_idle <= 0 && just_id ? CLASS_I : CLASS_N;
}

/* ---- scripts ---- */

/* Take the next word of text up to a separator. */
static struct span next_word(struct span *text, char separator)
{
    while (text->len > 0 && *text->data == (uint8_t)separator) {
        text->data++;
        text->len--;
    }
    struct span word = { .data = text->data, .len = 0 };
    while (text->len > 0 && *text->data != (uint8_t)separator) {
        text->data++;
        text->len--;
        word.len++;
    }
    return word;
}

bool command_script_reads(struct span body)
{
    const struct span prefix = span_of("flags=");
    struct span line = body;
    const uint8_t *lf =
        line.len == 0 ? NULL : memchr(line.data, '\n', line.len);
    if (lf == NULL) {
        return false;
    }
    line.len = (size_t)(lf - line.data);
    if (line.len == 0 || *line.data != '#' ||
        !span_equal(next_word(&line, ' '), span_of("#!lua"))) {
        return false;
    }
    while (line.len > 0) {
        struct span word = next_word(&line, ' ');
        if (word.len < prefix.len ||
            memcmp(word.data, prefix.data, prefix.len) != 0) {
            continue;
        }
        word.data += prefix.len;
        word.len -= prefix.len;
        while (word.len > 0) {
            if (span_equal(next_word(&word, ','), span_of("no-writes"))) {
                return true;
            }
        }
    }
    return false;
}

static enum command_class eval_rule(const struct call *c)
{
    return c->argc >= 3 && command_script_reads(c->argv[1]) ? CLASS_R : CLASS_N;
}

enum script_call command_script_call(const struct command *c)
{
    bool function = c->name[0] == 'F';
    return function            ? SCRIPT_FUNCTION
           : c->name[4] == 'S' ? SCRIPT_SHA1
                               : SCRIPT_BODY;
}

static enum command_class function_load_rule(const struct call *c)
{
    if (c->argc == 4 && is(c, 2, "REPLACE")) {
        return CLASS_I;
    }
    return c->argc == 3 ? CLASS_D : CLASS_N;
}

static enum command_class function_restore_rule(const struct call *c)
{
    if (c->argc == 4 && (is(c, 3, "REPLACE") || is(c, 3, "FLUSH"))) {
        return CLASS_I;
    }
    return c->argc == 3 || (c->argc == 4 && is(c, 3, "APPEND")) ? CLASS_D
                                                                : CLASS_N;
}

/* ---- logs and modules ---- */

/* ACL LOG RESET, COMMANDLOG RESET */
static enum command_class log_reset_rule(const struct call *c)
{
    for (size_t i = 1; i < c->argc; i++) {
        if (is(c, i, "RESET")) {
            return CLASS_A;
        }
    }
    return CLASS_RN;
}

/* Whether a word stands anywhere from argument i on. */
static bool has_word(const struct call *c, size_t i, const char *upper)
{
    for (; i < c->argc; i++) {
        if (is(c, i, upper)) {
            return true;
        }
    }
    return false;
}

static enum command_class ft_aggregate_rule(const struct call *c)
{
    return has_word(c, 3, "WITHCURSOR") ? CLASS_RN : CLASS_R;
}

static enum command_class ft_sugadd_rule(const struct call *c)
{
    return c->argc < 4 || has_word(c, 4, "INCR") ? CLASS_N : CLASS_I;
}

static enum command_class json_set_rule(const struct call *c)
{
    if (c->argc < 4) {
        return CLASS_N;
    }
    return has_word(c, 4, "NX") ? CLASS_D : CLASS_I;
}

/* A path through an array would meet the next element. Names and dots alone
 * cannot do that. */
static enum command_class json_del_rule(const struct call *c)
{
    if (c->argc < 2 || c->argc > 3) {
        return CLASS_N;
    }
    for (size_t i = 0; c->argc == 3 && i < c->argv[2].len; i++) {
        uint8_t byte = c->argv[2].data[i];
        bool letter = (byte >= 'a' && byte <= 'z') ||
                      (byte >= 'A' && byte <= 'Z') || byte == '_';
        bool dot = byte == '.' && i > 0 && c->argv[2].data[i - 1] != '.';
        if (!letter && !dot && !(byte == '$' && i == 0) &&
            !(byte == '.' && i == 0)) {
            return CLASS_N;
        }
    }
    return CLASS_S;
}

static enum command_class json_arrtrim_rule(const struct call *c)
{
    int64_t start = 0;
    int64_t stop = 0;

    return c->argc == 5 && integer(c, 3, &start) && integer(c, 4, &stop) &&
                   start == 0 && stop >= -1
               ? CLASS_I
               : CLASS_N;
}

static enum command_class ts_add_rule(const struct call *c)
{
    return c->argc < 4 || is(c, 2, "*") || has_word(c, 4, "SUM") ? CLASS_N
                                                                 : CLASS_D;
}

static enum command_class ts_madd_rule(const struct call *c)
{
    if (c->argc < 4 || (c->argc - 1) % 3 != 0) {
        return CLASS_N;
    }
    for (size_t i = 2; i < c->argc; i += 3) {
        if (is(c, i, "*")) {
            return CLASS_N;
        }
    }
    return CLASS_D;
}

typedef enum command_class (*class_rule)(const struct call *c);

static const class_rule rules[RULE_COUNT] = {
    [RULE_BITFIELD] = bitfield_rule,
    [RULE_BITOP] = bitop_rule,
    [RULE_COPY] = copy_rule,
    [RULE_EVAL] = eval_rule,
    [RULE_EXPIRE] = expire_rule,
    [RULE_EXPIREAT] = expireat_rule,
    [RULE_FT_AGGREGATE] = ft_aggregate_rule,
    [RULE_FT_SUGADD] = ft_sugadd_rule,
    [RULE_FUNCTION_LOAD] = function_load_rule,
    [RULE_FUNCTION_RESTORE] = function_restore_rule,
    [RULE_GEOADD] = geoadd_rule,
    [RULE_GEORADIUS] = georadius_rule,
    [RULE_GEORADIUSBYMEMBER] = georadius_rule,
    [RULE_GEOSEARCHSTORE] = geosearchstore_rule,
    [RULE_GETEX] = getex_rule,
    [RULE_HEXPIRE] = expire_rule,
    [RULE_HEXPIREAT] = expireat_rule,
    [RULE_HGETEX] = hgetex_rule,
    [RULE_HPEXPIREAT] = expireat_rule,
    [RULE_HSETEX] = hsetex_rule,
    [RULE_JSON_ARRTRIM] = json_arrtrim_rule,
    [RULE_JSON_DEL] = json_del_rule,
    [RULE_JSON_SET] = json_set_rule,
    [RULE_LOG_RESET] = log_reset_rule,
    [RULE_LREM] = lrem_rule,
    [RULE_LTRIM] = ltrim_rule,
    [RULE_MERGE] = merge_rule,
    [RULE_MSETEX] = msetex_rule,
    [RULE_PEXPIREAT] = expireat_rule,
    [RULE_RESTORE] = restore_rule,
    [RULE_SCAN] = scan_rule,
    [RULE_SDIFFSTORE] = sdiffstore_rule,
    [RULE_SET] = set_rule,
    [RULE_SORT] = sort_rule,
    [RULE_TS_ADD] = ts_add_rule,
    [RULE_TS_MADD] = ts_madd_rule,
    [RULE_TS_READ] = ts_read_rule,
    [RULE_XADD] = xadd_rule,
    [RULE_XAUTOCLAIM] = xautoclaim_rule,
    [RULE_XCLAIM] = xclaim_rule,
    [RULE_XGROUP_SETID] = xgroup_setid_rule,
    [RULE_XREAD] = xread_rule,
    [RULE_XREADGROUP] = xreadgroup_rule,
    [RULE_ZADD] = zadd_rule,
    [RULE_ZDIFFSTORE] = zdiffstore_rule,
    [RULE_ZRANGESTORE] = zrangestore_rule,
    [RULE_ZREMRANGEBYRANK] = zremrangebyrank_rule,
    [RULE_ZSTORE] = zstore_rule,
};

enum command_class command_class(const struct command *c,
                                 const struct span *argv,
                                 size_t argc,
                                 int64_t wall_ms)
{
    if (c == NULL) {
        return CLASS_U;
    }
    if (c->rule == RULE_NONE) {
        return (enum command_class)c->class;
    }
    assert(argc > 0 && c->rule < RULE_COUNT);
    const struct call call = { c, argv, argc, wall_ms };
    return rules[c->rule](&call);
}
