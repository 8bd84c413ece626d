/* The command table: lookup, the argument rules of redis.md §3, keys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "parser/commands.h"

/* The wall clock of these tests: 2023-11-14 22:13:20 UTC. */
static const int64_t wall_ms = 1700000000000;

/* ---- a call from a line of words ---- */

enum {
    WORDS_MAX = 32
};

struct words {
    struct span argv[WORDS_MAX];
    size_t argc;
};

/* Split at single spaces; "''" stands for the empty word. */
static struct words words_of(const char *line)
{
    struct words w = { 0 };

    while (*line != '\0') {
        size_t len = strcspn(line, " ");
        struct span word = { .data = (const uint8_t *)line, .len = len };
        if (len == 2 && memcmp(line, "''", 2) == 0) {
            word.len = 0;
        }
        assert_true(w.argc < WORDS_MAX);
        w.argv[w.argc++] = word;
        line += len + (line[len] == ' ' ? 1 : 0);
    }
    return w;
}

static const struct command *row_of(const struct words *w)
{
    return command_find(w->argv[0],
                        w->argc > 1 ? w->argv[1] : (struct span){ 0 });
}

static const char *class_of(const char *line)
{
    struct words w = words_of(line);

    return command_class_name(
        command_class(row_of(&w), w.argv, w.argc, wall_ms));
}

/* ---- lookup ---- */

static const char *const names[] = {
#define CONTAINER(...)
#define COMMAND(name, ...) name,
#include "parser/commands.def"
};

static const char *const containers[] = {
#define COMMAND(...)
#define CONTAINER(name, ...) name,
#include "parser/commands.def"
};

static const struct command *find_line(const char *line)
{
    struct words w = words_of(line);
    return row_of(&w);
}

static void each_command_is_found_under_its_name_in_any_case(void **state)
{
    (void)state;
    assert_int_equal(sizeof names / sizeof names[0], 593);
    assert_int_equal(sizeof containers / sizeof containers[0], 20);

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char lower[64];
        size_t len = strlen(names[i]);
        assert_true(len < sizeof lower);
        for (size_t n = 0; n <= len; n++) {
            char c = names[i][n];
            bool turn = c >= 'A' && c <= 'Z' && n % 2 == 0;
            lower[n] = (char)(turn ? c - 'A' + 'a' : c);
        }
        const struct command *c = find_line(lower);
        assert_non_null(c);
        assert_string_equal(c->name, names[i]);
        assert_ptr_equal(find_line(names[i]), c);
    }
}

static void what_is_not_in_the_table_is_not_found(void **state)
{
    (void)state;
    static const char *const unknown[] = {
        "GE",
        "GETT",
        "G",
        "XYZZY",
        "SETNAME",
        "@ET",
        "GET[",
        "{GET",
        "GEORADIUSBYMEMBER_ROX",
        "AVERYLONGNAMETHATNOSERVERHASEVERKNOWN",
    };
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
        assert_null(find_line(unknown[i]));
    }
    assert_null(command_find((struct span){ 0 }, (struct span){ 0 }));
    /* a NUL is a byte like any other */
    const struct span padded = { .data = (const uint8_t *)"GET\0", .len = 4 };
    assert_null(command_find(padded, (struct span){ 0 }));
    /* a container and its subcommand in one word */
    assert_null(command_find(span_of("CLIENT ID"), (struct span){ 0 }));
    assert_string_equal(class_of("XYZZY a b"), "U");
}

static void an_unknown_subcommand_gives_its_container(void **state)
{
    (void)state;
    assert_string_equal(find_line("CLIENT")->name, "CLIENT");
    assert_string_equal(find_line("CLIENT NEWTHING")->name, "CLIENT");
    assert_true(find_line("CLIENT NEWTHING")->flags & COMMAND_PRIVATE);
    assert_string_equal(find_line("COMMAND NEWTHING")->name, "COMMAND");
    assert_string_equal(find_line("XINFO NEWTHING k")->name, "XINFO");
    assert_string_equal(find_line("client setname x")->name, "CLIENT SETNAME");
    /* where there are no subcommands the second word is an argument */
    assert_string_equal(find_line("GET SETNAME")->name, "GET");
    for (size_t i = 0; i < sizeof containers / sizeof containers[0]; i++) {
        const struct command *c = find_line(containers[i]);
        assert_non_null(c);
        assert_true(c->class == CLASS_A || c->class == CLASS_U);
        assert_true(c->flags & COMMAND_CONTAINER);
    }
}

static void rows_say_what_the_server_says(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        const char *class;
        int arity;
        int first;
        int last;
        int step;
    } rows[] = {
        { "GET", "R", 2, 1, 1, 1 },
        { "SET", "I", -3, 1, 1, 1 },
        { "INCR", "N", 2, 1, 1, 1 },
        { "MSET", "I", -3, 1, -1, 2 },
        { "DEL", "S", -2, 1, -1, 1 },
        { "BITOP", "I", -4, 2, -1, 1 },
        { "BLPOP", "BN", -3, 1, -2, 1 },
        { "WAIT", "BW", 3, 0, 0, 0 },
        { "MULTI", "X", 1, 0, 0, 0 },
        { "PING", "R", -1, 0, 0, 0 },
        { "RENAME", "D", 3, 1, 2, 1 },
        { "AUTH", "C", -2, 0, 0, 0 },
        { "SHUTDOWN", "A", -1, 0, 0, 0 },
        { "XINFO STREAM", "RN", -3, 2, 2, 1 },
        { "CONFIG GET", "RN", -3, 0, 0, 0 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct command *c = find_line(rows[i].line);
        assert_string_equal(command_class_name(c->class), rows[i].class);
        assert_int_equal(c->arity, rows[i].arity);
        assert_int_equal(c->key_first, rows[i].first);
        assert_int_equal(c->key_last, rows[i].last);
        assert_int_equal(c->key_step, rows[i].step);
    }
}

static void the_core_s_commands_have_their_ids(void **state)
{
    (void)state;
    assert_int_equal(find_line("HELLO")->id, COMMAND_HELLO);
    assert_int_equal(find_line("SSUBSCRIBE")->id, COMMAND_SUBSCRIBE);
    assert_int_equal(find_line("PUNSUBSCRIBE")->id, COMMAND_UNSUBSCRIBE);
    assert_int_equal(find_line("PSYNC")->id, COMMAND_SYNC);
    assert_int_equal(find_line("CLIENT REPLY")->id, COMMAND_CLIENT_REPLY);
    assert_int_equal(find_line("FCALL_RO")->id, COMMAND_SCRIPT_CALL);
    assert_int_equal(find_line("GET")->id, COMMAND_OTHER);
}

static void what_lives_in_a_connection_takes_a_private_lane(void **state)
{
    (void)state;
    static const char *const private[] = {
        "MULTI",
        "EXEC",
        "DISCARD",
        "WATCH",
        "UNWATCH",
        "SUBSCRIBE",
        "PSUBSCRIBE",
        "SSUBSCRIBE",
        "BLPOP",
        "BZMPOP",
        "WAIT",
        "WAITAOF",
        "MONITOR",
        "SYNC",
        "PSYNC",
        "CLIENT ID",
        "CLIENT INFO",
        "CLIENT KILL",
        "CLIENT TRACKING",
        "CLIENT NO-EVICT",
        "CLIENT PAUSE",
        "CLIENT UNBLOCK",
        "DEBUG",
        "FAILOVER",
        "SHUTDOWN",
        "REPLICAOF",
        "READONLY",
        "READWRITE",
        "ASKING",
        "SCRIPT DEBUG",
    };
    static const char *const shared[] = {
        "GET",
        "AUTH",
        "HELLO",
        "SELECT",
        "QUIT",
        "RESET",
        "CLIENT SETNAME",
        "CLIENT GETNAME",
        "CLIENT SETINFO",
        "CLIENT REPLY",
        "XREAD",
        "XREADGROUP",
        "EVAL",
        "PING",
        "CONFIG GET",
        "PUBLISH",
    };
    for (size_t i = 0; i < sizeof private / sizeof private[0]; i++) {
        assert_true(find_line(private[i])->flags & COMMAND_PRIVATE);
    }
    for (size_t i = 0; i < sizeof shared / sizeof shared[0]; i++) {
        assert_false(find_line(shared[i])->flags & COMMAND_PRIVATE);
    }
    assert_true(find_line("AUTH")->flags & COMMAND_SECRET);
    assert_true(find_line("CONFIG SET")->flags & COMMAND_SECRET);
    assert_false(find_line("SET")->flags & COMMAND_SECRET);
}

/* ---- argument rules ---- */

/* Each line of the table of argument rules, and what is next to it. */
static const struct {
    const char *line;
    const char *class;
} calls[] = {
    { "SET k v", "I" },
    { "SET k v XX", "I" },
    { "SET k v KEEPTTL", "I" },
    { "SET k v EX 10", "T" },
    { "set k v px 10", "T" },
    { "SET k v PX 10 XX", "T" },
    { "SET k v EXAT 1800000000", "I" },
    { "SET k v PXAT 1800000000000 XX", "I" },
    { "SET k v EXAT 1600000000", "I" },
    { "SET k v XX EXAT 1600000000", "D" },
    { "SET k v NX", "D" },
    { "SET k v NX EX 10", "D" },
    { "SET k v GET", "D" },
    { "SET k v XX GET KEEPTTL", "D" },
    { "SET k v IFEQ x", "D" },
    { "SET k v IFNE x EX 5", "D" },
    { "SET k v IFDEQ x", "D" },
    { "SET k v IFDNE x", "D" },
    { "SET k v FOO", "N" },
    { "SET k v EX", "N" },
    { "SET k v EX x", "N" },
    { "SET k v EX 5 PX 5", "N" },
    { "SET k v EX 5 KEEPTTL", "N" },
    { "SET k v EXAT 9223372036854775807", "N" },
    { "SET k", "N" },
    { "MSETEX 1 k v", "I" },
    { "MSETEX 2 NX v EX v", "I" },
    { "MSETEX 1 k v XX", "I" },
    { "MSETEX 1 k v XX PXAT 5", "D" },
    { "MSETEX 1 k v NX", "D" },
    { "MSETEX 1 k v EX 5", "T" },
    { "MSETEX 1 k v KEEPTTL", "I" },
    { "MSETEX 2 k v", "N" },
    { "MSETEX 0", "N" },
    { "MSETEX x k v", "N" },
    { "HSETEX h FIELDS 1 f v", "I" },
    { "HSETEX h EX 5 FIELDS 1 f v", "T" },
    { "HSETEX h FXX PX 5 FIELDS 1 f v", "T" },
    { "HSETEX h PXAT 1800000000000 FIELDS 1 f v", "I" },
    { "HSETEX h KEEPTTL FIELDS 2 FNX v EX v", "I" },
    { "HSETEX h FNX FIELDS 1 f v", "D" },
    { "HSETEX h FXX PXAT 5 FIELDS 1 f v", "D" },
    { "HSETEX h FIELDS 2 f v", "N" },
    { "HSETEX h", "N" },
    { "GETEX k", "R" },
    { "GETEX k EX 5", "T" },
    { "GETEX k PX 5", "T" },
    { "GETEX k EXAT 1800000000", "I" },
    { "GETEX k PXAT 1800000000000", "I" },
    { "GETEX k EXAT 1600000000", "D" },
    { "GETEX k PERSIST", "I" },
    { "GETEX k FOO", "N" },
    { "GETEX k EX 5 PERSIST", "N" },
    { "HGETEX h FIELDS 1 f", "R" },
    { "HGETEX h EX 5 FIELDS 1 f", "T" },
    { "HGETEX h PERSIST FIELDS 2 a b", "I" },
    { "HGETEX h PXAT 5 FIELDS 1 f", "D" },
    { "HGETEX h FIELDS 2 f", "N" },
    { "EXPIRE k 10", "T" },
    { "EXPIRE k 10 XX", "T" },
    { "EXPIRE k 0", "S" },
    { "PEXPIRE k -5", "S" },
    { "PEXPIRE k 10 GT", "S" },
    { "EXPIRE k 10 LT", "S" },
    { "EXPIRE k 10 XX GT", "S" },
    { "EXPIRE k 10 NX", "D" },
    { "EXPIRE k 10 FOO", "N" },
    { "EXPIRE k x", "N" },
    { "EXPIRE k", "N" },
    { "HEXPIRE h 10 FIELDS 1 f", "T" },
    { "HEXPIRE h 10 XX FIELDS 1 f", "T" },
    { "HPEXPIRE h 10 NX FIELDS 1 f", "D" },
    { "HPEXPIRE h 10 GT FIELDS 1 f", "S" },
    { "HEXPIRE h 0 FIELDS 1 f", "S" },
    { "HEXPIRE h 10 FIELDS 2 f", "N" },
    { "HEXPIRE h 10", "N" },
    { "EXPIREAT k 1800000000", "I" },
    { "EXPIREAT k 1800000000 XX", "I" },
    { "EXPIREAT k 1600000000", "S" },
    { "EXPIREAT k 1700000059", "S" },
    { "EXPIREAT k 1700000060", "I" },
    { "EXPIREAT k 1800000000 NX", "D" },
    { "EXPIREAT k 1800000000 LT", "S" },
    { "EXPIREAT k 9223372036854775807", "N" },
    { "EXPIREAT k -9223372036854775808", "N" },
    { "PEXPIREAT k 1800000000000", "I" },
    { "PEXPIREAT k 1700000059999", "S" },
    { "PEXPIREAT k 9223372036854775807", "I" },
    { "PEXPIREAT k -9223372036854775808", "S" },
    { "HEXPIREAT h 1800000000 FIELDS 1 f", "I" },
    { "HEXPIREAT h 1800000000 GT FIELDS 1 f", "S" },
    { "HPEXPIREAT h 5 FIELDS 1 f", "S" },
    { "HPEXPIREAT h 1800000000000 NX FIELDS 1 f", "D" },
    { "RESTORE k 0 x", "D" },
    { "RESTORE k 0 x REPLACE", "I" },
    { "RESTORE k 50 x REPLACE", "T" },
    { "RESTORE k 50 x REPLACE ABSTTL", "I" },
    { "RESTORE k 50 x ABSTTL", "D" },
    { "RESTORE k 50 x REPLACE IDLETIME 5 FREQ 5", "T" },
    { "RESTORE k 50 x REPLACE IDLETIME", "N" },
    { "RESTORE k x x", "N" },
    { "ZADD k 1 a", "S" },
    { "ZADD k XX CH 1 a 2 b", "S" },
    { "ZADD k GT 1 a", "S" },
    { "ZADD k LT 1 a", "S" },
    { "ZADD k NX 1 a", "D" },
    { "ZADD k INCR 1 a", "N" },
    { "ZADD k NX INCR 1 a", "D" },
    { "ZADD k XX INCR 1 a", "N" },
    { "ZADD k 1 NX", "S" },
    { "ZADD k 1", "N" },
    { "ZADD k NX", "N" },
    { "GEOADD k 1 2 m", "S" },
    { "GEOADD k XX CH 1 2 m", "S" },
    { "GEOADD k NX 1 2 m", "D" },
    { "GEOADD k 1 2", "N" },
    { "BITFIELD k", "R" },
    { "BITFIELD k GET u8 0", "R" },
    { "BITFIELD k GET u8 0 SET u8 0 1", "S" },
    { "BITFIELD k OVERFLOW SAT SET u8 0 1", "S" },
    { "BITFIELD k SET u8 0 1 INCRBY u8 0 1", "N" },
    { "BITFIELD k OVERFLOW SAT INCRBY u8 0 1", "N" },
    { "BITFIELD k GET u8", "N" },
    { "BITFIELD k FOO u8 0", "N" },
    { "BITOP AND d a b", "I" },
    { "BITOP XOR d a b", "I" },
    { "BITOP NOT d a", "I" },
    { "BITOP DIFF d a b", "I" },
    { "BITOP AND d d b", "I" },
    { "BITOP or d b d", "I" },
    { "BITOP XOR d a d", "N" },
    { "BITOP NOT d d", "N" },
    { "BITOP DIFF d d b", "N" },
    { "BITOP FOO d a", "N" },
    { "SUNIONSTORE d d a", "I" },
    { "SINTERSTORE d a d", "I" },
    { "SDIFFSTORE d a b", "I" },
    { "SDIFFSTORE d d b", "I" },
    { "SDIFFSTORE d a d", "N" },
    { "ZUNIONSTORE d 2 a b", "I" },
    { "ZUNIONSTORE d 2 a b WEIGHTS 2 3 AGGREGATE SUM", "I" },
    { "ZUNIONSTORE d 2 a d", "N" },
    { "ZUNIONSTORE d 2 a d AGGREGATE MIN", "I" },
    { "ZINTERSTORE d 2 d b AGGREGATE MAX WEIGHTS 1 1", "I" },
    { "ZINTERSTORE d 2 d b WEIGHTS 1 2 AGGREGATE MAX", "N" },
    { "ZINTERSTORE d 2 d b AGGREGATE SUM", "N" },
    { "ZINTERSTORE d 2 d b AGGREGATE FOO", "N" },
    { "ZINTERSTORE d 2 a b WEIGHTS 1", "N" },
    { "ZINTERSTORE d 3 a b", "N" },
    { "ZDIFFSTORE d 2 a b", "I" },
    { "ZDIFFSTORE d 2 d b", "I" },
    { "ZDIFFSTORE d 2 a d", "N" },
    { "ZRANGESTORE d s 1 5", "I" },
    { "ZRANGESTORE d d 1 5", "N" },
    { "ZRANGESTORE d d 0 5", "I" },
    { "ZRANGESTORE d d 0 5 REV", "I" },
    { "ZRANGESTORE d d -5 -1", "I" },
    { "ZRANGESTORE d d (1 5 BYSCORE", "I" },
    { "ZRANGESTORE d d (1 5 BYSCORE LIMIT 0 3", "I" },
    { "ZRANGESTORE d d (1 5 BYSCORE LIMIT 1 3", "N" },
    { "ZRANGESTORE d s (1 5 BYSCORE LIMIT 1 3", "I" },
    { "ZRANGESTORE d d [a [z BYLEX LIMIT 0 -1", "I" },
    { "ZRANGESTORE d s 0 5 LIMIT 0 1", "N" },
    { "ZRANGESTORE d s a b", "N" },
    { "ZRANGESTORE d s 0 5 FOO", "N" },
    { "GEOSEARCHSTORE d s FROMMEMBER m BYRADIUS 1 m", "I" },
    { "GEOSEARCHSTORE d d FROMMEMBER m BYRADIUS 1 m", "N" },
    { "GEORADIUS k 1 2 3 m", "R" },
    { "GEORADIUS k 1 2 3 m WITHCOORD COUNT 5 ANY ASC", "R" },
    { "GEORADIUS k 1 2 3 m STORE d", "I" },
    { "GEORADIUS k 1 2 3 m STOREDIST k", "N" },
    { "GEORADIUS k 1 2 3 m FOO", "N" },
    { "GEORADIUSBYMEMBER k m 3 m", "R" },
    { "GEORADIUSBYMEMBER k m 3 m STORE d", "I" },
    { "GEORADIUSBYMEMBER k m 3 m STORE k", "N" },
    { "SORT k", "R" },
    { "SORT k BY w_* LIMIT 0 5 GET # ALPHA DESC", "R" },
    { "SORT k STORE d", "I" },
    { "SORT k LIMIT 0 5 STORE d", "I" },
    { "SORT k STORE k", "I" },
    { "SORT k ALPHA DESC STORE k", "I" },
    { "SORT k LIMIT 0 5 STORE k", "N" },
    { "SORT k STORE k GET #", "N" },
    { "SORT k BY nosort DESC STORE k", "N" },
    { "SORT k STORE", "N" },
    { "SORT k FOO", "N" },
    { "LREM k 0 a", "S" },
    { "LREM k 1 a", "N" },
    { "LREM k x a", "N" },
    { "COPY a b", "D" },
    { "COPY a b REPLACE", "I" },
    { "COPY a b DB 1 REPLACE", "I" },
    { "COPY a b DB 1", "D" },
    { "COPY a b FOO", "N" },
    { "FUNCTION LOAD x", "D" },
    { "FUNCTION LOAD REPLACE x", "I" },
    { "FUNCTION LOAD FOO x", "N" },
    { "FUNCTION RESTORE x", "D" },
    { "FUNCTION RESTORE x FLUSH", "I" },
    { "FUNCTION RESTORE x APPEND", "D" },
    { "XADD s * f v", "N" },
    { "XADD s 5-* f v", "N" },
    { "XADD s 5-1 f v", "D" },
    { "XADD s 5 f v", "D" },
    { "XADD s NOMKSTREAM MAXLEN ~ 100 LIMIT 5 5-1 f v", "D" },
    { "XADD s MINID = 5 * f v", "N" },
    { "XADD s IDMP p i * f v", "I" },
    { "XADD s IDMPAUTO p * f v", "N" },
    { "XADD s 5-1 f", "N" },
    { "XADD s 5-1", "N" },
    { "XADD s 5- f v", "N" },
    { "XGROUP SETID s g 0", "I" },
    { "XGROUP SETID s g 5-1 ENTRIESREAD 3", "I" },
    { "XGROUP SETID s g $", "N" },
    { "XREAD STREAMS a b 0 0", "R" },
    { "XREAD COUNT 5 STREAMS a $", "R" },
    { "XREAD BLOCK 0 STREAMS a 0", "BR" },
    { "XREAD COUNT 1 BLOCK 5 STREAMS a b 0 5-1", "BR" },
    { "XREAD BLOCK 5 STREAMS a b 0 $", "BN" },
    { "XREAD BLOCK 5 STREAMS a b 0", "N" },
    { "XREAD BLOCK x STREAMS a 0", "N" },
    { "XREAD FOO STREAMS a 0", "N" },
    { "XREADGROUP GROUP g c STREAMS a >", "N" },
    { "XREADGROUP GROUP g c COUNT 1 NOACK STREAMS a 0", "N" },
    { "XREADGROUP GROUP g c BLOCK 0 STREAMS a >", "BN" },
    { "XREADGROUP GROUP BLOCK BLOCK STREAMS a >", "N" },
    { "XCLAIM s g c 0 5-1 JUSTID", "I" },
    { "XCLAIM s g c 0 5-1 6-1 FORCE JUSTID RETRYCOUNT 3", "I" },
    { "XCLAIM s g c 5 5-1 JUSTID", "N" },
    { "XCLAIM s g c 0 5-1", "N" },
    { "XCLAIM s g c 0 5-1 JUSTID IDLE 5", "N" },
    { "XAUTOCLAIM s g c 0 0-0 JUSTID", "I" },
    { "XAUTOCLAIM s g c 0 0-0 COUNT 5 JUSTID", "I" },
    { "XAUTOCLAIM s g c 5 0-0 JUSTID", "N" },
    { "XAUTOCLAIM s g c 0 0-0", "N" },
    { "EVALSHA abc 0", "N" },
    { "EVALSHA_RO abc 0", "R" },
    { "EVAL_RO return 0", "R" },
    { "FCALL f 0", "N" },
    { "FCALL_RO f 0", "R" },
    { "ACL LOG", "RN" },
    { "ACL LOG RESET", "A" },
    { "COMMANDLOG GET 5 slow", "RN" },
    { "COMMANDLOG RESET slow", "A" },
    { "SCAN 0", "R" },
    { "SCAN 17 COUNT 5", "RN" },
    { "HSCAN h 0", "R" },
    { "HSCAN h 5", "RN" },
    { "FT.SUGADD k s 1", "I" },
    { "FT.SUGADD k s 1 INCR", "N" },
    { "FT.AGGREGATE i q", "R" },
    { "FT.AGGREGATE i q WITHCURSOR", "RN" },
    { "JSON.SET k $ v", "I" },
    { "JSON.SET k $ v NX", "D" },
    { "JSON.DEL k", "S" },
    { "JSON.DEL k $.a.b", "S" },
    { "JSON.DEL k $.a[0]", "N" },
    { "JSON.DEL k $..a", "N" },
    { "JSON.ARRTRIM k $ 0 5", "I" },
    { "JSON.ARRTRIM k $ 1 5", "N" },
    { "CMS.MERGE d 1 s", "I" },
    { "CMS.MERGE d 2 s d", "N" },
    { "TS.ADD k * 1", "N" },
    { "TS.ADD k 5 1", "D" },
    { "TS.MADD k 5 1 k * 1", "N" },
    { "TS.MADD k 5 1", "D" },
    { "TS.READ k", "R" },
    { "TS.READ BLOCK 5 k", "BR" },
};

static void each_argument_rule_holds(void **state)
{
    (void)state;
    size_t wrong = 0;

    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        const char *class = class_of(calls[i].line);
        if (strcmp(class, calls[i].class) != 0) {
            print_error("%s: %s, not %s\n", calls[i].line, class,
                        calls[i].class);
            wrong++;
        }
    }
    assert_int_equal(wrong, 0);
}

static void scripts_without_writes_only_read(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        const char *class;
    } bodies[] = {
        { "#!lua flags=no-writes\nreturn 1", "R" },
        { "#!lua name=x flags=allow-stale,no-writes\nreturn 1", "R" },
        { "#!lua flags=no-writes,allow-oom\n", "R" },
        { "#!lua\nreturn 'flags=no-writes'", "N" },
        { "#!lua flags=allow-stale\nreturn 1", "N" },
        { "#!lua flags=no-writesx\nreturn 1", "N" },
        { "#!lua flags=no-writes", "N" },
        { "#!luaflags=no-writes\nreturn 1", "N" },
        { " #!lua flags=no-writes\nreturn 1", "N" },
        { "return 1", "N" },
        { "", "N" },
    };
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        const struct span argv[] = { span_of("EVAL"), span_of(bodies[i].body),
                                     span_of("0") };
        const struct command *c = command_find(argv[0], argv[1]);
        assert_string_equal(command_class_name(
                                command_class(c, argv, 3, wall_ms)),
                            bodies[i].class);
    }
}

/* ---- ranks, by trying ---- */

/* A list whose elements are the numbers from first on. */
struct list {
    int64_t first;
    int64_t len;
};

/* The range of existing positions that [start, stop] means; empty when
 * *from > *to. As Redis resolves negative and large indexes. */
static void resolve(int64_t len,
                    int64_t start,
                    int64_t stop,
                    int64_t *from,
                    int64_t *to)
{
    *from = start < 0 ? len + start : start;
    *to = stop < 0 ? len + stop : stop;
    if (*from < 0) {
        *from = 0;
    }
    if (*to >= len) {
        *to = len - 1;
    }
}

static struct list ltrim(struct list l, int64_t start, int64_t stop)
{
    int64_t from = 0;
    int64_t to = 0;

    resolve(l.len, start, stop, &from, &to);
    if (from > to || from >= l.len) {
        return (struct list){ 0 };
    }
    return (struct list){ .first = l.first + from, .len = to - from + 1 };
}

static const char *class_with(const char *command, int64_t start, int64_t stop)
{
    char line[64];

    (void)snprintf(line, sizeof line, "%s %d %d", command, (int)start,
                   (int)stop);
    return class_of(line);
}

enum {
    INDEX_MAX = 10
};

/* A range is I exactly when no list of any length tells a second LTRIM from
 * none. */
static void ltrim_is_idempotent_exactly_where_it_is_called_so(void **state)
{
    (void)state;

    for (int64_t start = -INDEX_MAX; start <= INDEX_MAX; start++) {
        for (int64_t stop = -INDEX_MAX; stop <= INDEX_MAX; stop++) {
            bool settles = true;
            /* longer than twice the largest index shows every case */
            for (int64_t len = 0; len <= 3 * INDEX_MAX; len++) {
                struct list once = ltrim((struct list){ 0, len }, start, stop);
                struct list twice = ltrim(once, start, stop);
                settles = settles && once.len == twice.len &&
                          once.first == twice.first;
            }
            assert_string_equal(class_with("LTRIM k", start, stop),
                                settles ? "I" : "N");
            assert_string_equal(class_with("ZRANGESTORE k k", start, stop),
                                settles ? "I" : "N");
        }
    }
}

/* A list as a set of positions: bit i says that element i is still there. */
static uint64_t zremrangebyrank(uint64_t set, int64_t start, int64_t stop)
{
    int64_t from = 0;
    int64_t to = 0;
    int64_t rank = 0;
    int64_t len = 0;

    for (uint64_t rest = set; rest != 0; rest &= rest - 1) {
        len++;
    }
    resolve(len, start, stop, &from, &to);
    for (uint64_t rest = set; rest != 0; rest &= rest - 1, rank++) {
        if (rank >= from && rank <= to) {
            set &= ~(rest & (~rest + 1));
        }
    }
    return set;
}

/* It is S exactly where a call can remove something and a second one nothing
 * more. One pair is left to N, as no one means it: -1 to 0 removes the only
 * element of a set of one. */
static void zremrangebyrank_settles_exactly_where_it_is_called_so(void **state)
{
    (void)state;

    for (int64_t start = -INDEX_MAX; start <= INDEX_MAX; start++) {
        for (int64_t stop = -INDEX_MAX; stop <= INDEX_MAX; stop++) {
            bool settles = true;
            bool removes = false;
            for (int len = 0; len <= 3 * INDEX_MAX; len++) {
                uint64_t all = ((uint64_t)1 << len) - 1;
                uint64_t once = zremrangebyrank(all, start, stop);
                uint64_t twice = zremrangebyrank(once, start, stop);
                settles = settles && once == twice;
                removes = removes || once != all;
            }
            const char *class = class_with("ZREMRANGEBYRANK k", start, stop);
            if (!settles || (start == -1 && stop == 0)) {
                assert_string_equal(class, "N");
            } else if (removes) {
                assert_string_equal(class, "S");
            }
        }
    }
}

static void ranks_that_are_no_numbers_are_n(void **state)
{
    (void)state;
    assert_string_equal(class_of("LTRIM k x 1"), "N");
    assert_string_equal(class_of("LTRIM k 0"), "N");
    assert_string_equal(class_of("LTRIM k 0 -1 5"), "N");
    assert_string_equal(class_of("LTRIM k 0 9223372036854775808"), "N");
    assert_string_equal(class_of("LTRIM k 0 9223372036854775807"), "I");
    assert_string_equal(class_of("ZREMRANGEBYRANK k 0 x"), "N");
}

/* ---- keys ---- */

static void check_keys(const char *line, const char *expected)
{
    struct words w = words_of(line);
    uint32_t index[WORDS_MAX];
    int count = command_keys(row_of(&w), w.argv, w.argc, index, WORDS_MAX);
    char text[128] = { 0 };
    size_t len = 0;

    for (int i = 0; i < count; i++) {
        int more =
            snprintf(text + len, sizeof text - len, " %u", (unsigned)index[i]);
        len += (size_t)more;
    }
    if (count == COMMAND_KEYS_UNKNOWN) {
        (void)snprintf(text, sizeof text, " unknown");
    }
    if (strcmp(text, expected) != 0) {
        print_error("%s\n", line);
    }
    assert_string_equal(text, expected);
}

static void keys_are_found(void **state)
{
    (void)state;
    check_keys("GET k", " 1");
    check_keys("GET", "");
    check_keys("PING", "");
    check_keys("MGET a b c", " 1 2 3");
    check_keys("MSET a 1 b 2", " 1 3");
    check_keys("RENAME a b", " 1 2");
    check_keys("BLPOP a b 0", " 1 2");
    check_keys("BITOP AND d a b", " 2 3 4");
    check_keys("OBJECT ENCODING k", " 2");
    check_keys("XGROUP CREATE s g 0", " 2");
    check_keys("XINFO STREAM s", " 2");
    check_keys("MEMORY USAGE k", " 2");
    check_keys("JSON.MSET a $ 1 b $ 2", " 1 4");
    check_keys("JSON.MGET a b $", " 1 2");
    check_keys("EVAL x 2 a b c", " 3 4");
    check_keys("EVAL x 0 c", " unknown");
    check_keys("EVAL x 3 a b", " unknown");
    check_keys("EVAL x -1 a b", " unknown");
    check_keys("FCALL f 1 a", " 3");
    check_keys("ZUNIONSTORE d 2 a b WEIGHTS 1 1", " 1 3 4");
    check_keys("ZUNIONSTORE d x a b", " unknown");
    check_keys("ZINTER 2 a b", " 2 3");
    check_keys("SINTERCARD 1 a LIMIT 1", " 2");
    check_keys("LMPOP 1 a LEFT", " 2");
    check_keys("BZMPOP 0 2 a b MIN", " 3 4");
    check_keys("MSETEX 2 a 1 b 2 NX", " 2 4");
    check_keys("MSETEX 2 a 1 b", " unknown");
    check_keys("XREAD COUNT 1 BLOCK 0 STREAMS a b 0 0", " 6 7");
    check_keys("XREADGROUP GROUP STREAMS c STREAMS a >", " 5");
    check_keys("XREAD STREAMS a b 0", " unknown");
    check_keys("MIGRATE h 1 k 0 5", " 3");
    check_keys("MIGRATE h 1 '' 0 5 COPY AUTH2 KEYS x KEYS a b", " 11 12");
    check_keys("MIGRATE h 1 '' 0 5", " unknown");
    check_keys("SORT k LIMIT 0 5 STORE d", " 1 6");
    check_keys("SORT k BY w_* STORE d", " unknown");
    check_keys("SORT k BY nosort GET #", " 1");
    check_keys("GEORADIUS k 1 2 3 m STORE d", " 1 7");
    check_keys("GEORADIUSBYMEMBER k STORE 3 m COUNT 5 STOREDIST d", " 1 8");
    check_keys("FLUSHALL", " unknown");
    check_keys("DBSIZE", " unknown");
    check_keys("SCAN 0", " unknown");
    check_keys("XYZZY a", " unknown");
}

static uint32_t first_key_of(const char *line)
{
    struct words w = words_of(line);
    return command_first_key(row_of(&w), w.argv, w.argc);
}

static void the_first_key_is_told_without_the_others(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        uint32_t first;
    } told[] = {
        { "GET k", 1 },
        { "GET", 0 },
        { "PING", 0 },
        { "PING k", 0 },
        { "MSET a 1 b 2", 1 },
        { "BITOP AND d a", 2 },
        { "OBJECT ENCODING k", 2 },
        { "XGROUP CREATE s g 0", 2 },
        { "EVAL x 2 a b c", 3 },
        { "EVAL x 2 a", 3 }, /* the rest is on its way, or missing */
        { "EVAL x 2", 0 },
        { "EVAL x", 0 },
        { "EVAL x 0 c", 0 },
        { "EVAL x -1 c", 0 },
        { "EVAL x y c", 0 },
        { "FCALL_RO f 1 a", 3 },
        { "ZUNIONSTORE d 2 a b", 1 },
        { "ZINTER 2 a b", 2 },
        { "ZINTER 2", 0 },
        { "MSETEX 2 a 1 b 2 NX", 2 },
        { "BZMPOP 0 2 a b MIN", 3 },
        { "XREAD COUNT 1 BLOCK 0 STREAMS a b 0 0", 6 },
        { "XREAD COUNT 1 BLOCK 0 STREAMS a", 6 },
        { "XREAD COUNT 1 BLOCK 0 STREAMS", 0 },
        { "XREADGROUP GROUP STREAMS c STREAMS a >", 5 },
        { "XREAD a STREAMS b 0", 0 },
        { "MIGRATE h 1 k 0 5", 3 },
        { "MIGRATE h 1 k", 3 },
        { "MIGRATE h 1", 0 },
        { "MIGRATE h 1 '' 0 5 COPY AUTH2 KEYS x KEYS a b", 11 },
        { "MIGRATE h 1 '' 0 5 COPY", 0 },
        { "SORT k BY w_* STORE d", 1 },
        { "GEORADIUS k 1 2 3 m STORE d", 1 },
        { "DBSIZE", 0 },
        { "XYZZY a", 0 },
    };
    for (size_t i = 0; i < sizeof told / sizeof told[0]; i++) {
        uint32_t first = first_key_of(told[i].line);
        if (first != told[i].first) {
            print_error("%s\n", told[i].line);
        }
        assert_int_equal(first, told[i].first);
    }
}

/* The core reads first_key_arg without asking anything else. */
static void rows_know_where_the_first_key_is(void **state)
{
    (void)state;
    assert_int_equal(find_line("GET")->first_key_arg, 1);
    assert_int_equal(find_line("OBJECT ENCODING")->first_key_arg, 2);
    assert_int_equal(find_line("BLMPOP")->first_key_arg, 3);
    assert_int_equal(find_line("SORT")->first_key_arg, 1);
    assert_int_equal(find_line("EVAL")->first_key_arg, 0);
    assert_int_equal(find_line("XREAD")->first_key_arg, 0);
    assert_int_equal(find_line("PING")->first_key_arg, 0);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const struct command *c = find_line(names[i]);
        assert_true(c->first_key_arg <= 3);
        if (c->key_first != 0) {
            assert_int_equal(c->first_key_arg, c->key_first);
        }
    }
}

static void keys_beyond_the_room_are_counted(void **state)
{
    (void)state;
    struct words w = words_of("DEL a b c d");
    uint32_t index[2] = { 0 };

    assert_int_equal(command_keys(row_of(&w), w.argv, w.argc, index, 2), 4);
    assert_int_equal(index[0], 1);
    assert_int_equal(index[1], 2);
    assert_int_equal(command_keys(row_of(&w), w.argv, w.argc, NULL, 0), 4);
}

/* ---- routes ---- */

/* All rows that go by another way than that of their keys. */
static const struct {
    const char *name;
    enum command_route route;
} routed[] = {
    { "ACL DELUSER", ROUTE_ALL_OK },
    { "ACL LOAD", ROUTE_ALL_OK },
    { "ACL SAVE", ROUTE_ALL_OK },
    { "ACL SETUSER", ROUTE_ALL_OK },
    { "ASKING", ROUTE_CONNECTION },
    { "CLUSTER ADDSLOTS", ROUTE_REFUSED },
    { "CLUSTER ADDSLOTSRANGE", ROUTE_REFUSED },
    { "CLUSTER BUMPEPOCH", ROUTE_REFUSED },
    { "CLUSTER CANCELSLOTMIGRATIONS", ROUTE_REFUSED },
    { "CLUSTER COUNTKEYSINSLOT", ROUTE_SLOT },
    { "CLUSTER DELSLOTS", ROUTE_REFUSED },
    { "CLUSTER DELSLOTSRANGE", ROUTE_REFUSED },
    { "CLUSTER FAILOVER", ROUTE_REFUSED },
    { "CLUSTER FLUSHSLOTS", ROUTE_REFUSED },
    { "CLUSTER FORGET", ROUTE_REFUSED },
    { "CLUSTER GETKEYSINSLOT", ROUTE_SLOT },
    { "CLUSTER INFO", ROUTE_VIEW },
    { "CLUSTER KEYSLOT", ROUTE_VIEW },
    { "CLUSTER LINKS", ROUTE_VIEW },
    { "CLUSTER MEET", ROUTE_REFUSED },
    { "CLUSTER MIGRATESLOTS", ROUTE_REFUSED },
    { "CLUSTER MIGRATION", ROUTE_REFUSED },
    { "CLUSTER MYID", ROUTE_VIEW },
    { "CLUSTER MYSHARDID", ROUTE_VIEW },
    { "CLUSTER NODES", ROUTE_VIEW },
    { "CLUSTER REPLICAS", ROUTE_VIEW },
    { "CLUSTER REPLICATE", ROUTE_REFUSED },
    { "CLUSTER RESET", ROUTE_REFUSED },
    { "CLUSTER SAVECONFIG", ROUTE_REFUSED },
    { "CLUSTER SET-CONFIG-EPOCH", ROUTE_REFUSED },
    { "CLUSTER SETSLOT", ROUTE_REFUSED },
    { "CLUSTER SHARDS", ROUTE_VIEW },
    { "CLUSTER SLAVES", ROUTE_VIEW },
    { "CLUSTER SLOTS", ROUTE_VIEW },
    { "CONFIG RESETSTAT", ROUTE_ALL_OK },
    { "CONFIG REWRITE", ROUTE_ALL_OK },
    { "CONFIG SET", ROUTE_ALL_OK },
    { "DBSIZE", ROUTE_ALL_SUM },
    { "DEL", ROUTE_SPLIT_COUNT },
    { "EXISTS", ROUTE_SPLIT_COUNT },
    { "FLUSHALL", ROUTE_ALL_OK },
    { "FLUSHDB", ROUTE_ALL_OK },
    { "FUNCTION DELETE", ROUTE_ALL_OK },
    { "FUNCTION FLUSH", ROUTE_ALL_OK },
    { "FUNCTION KILL", ROUTE_ALL_ANY },
    { "FUNCTION LOAD", ROUTE_ALL_OK },
    { "FUNCTION RESTORE", ROUTE_ALL_OK },
    { "KEYS", ROUTE_ALL_LIST },
    { "LATENCY RESET", ROUTE_ALL_SUM },
    { "MEMORY PURGE", ROUTE_ALL_OK },
    { "MGET", ROUTE_SPLIT_VALUES },
    { "MSET", ROUTE_SPLIT_PAIRS },
    { "RANDOMKEY", ROUTE_RANDOM },
    { "READONLY", ROUTE_CONNECTION },
    { "READWRITE", ROUTE_CONNECTION },
    { "SCAN", ROUTE_SCAN },
    { "SCRIPT EXISTS", ROUTE_ALL_AND },
    { "SCRIPT FLUSH", ROUTE_ALL_OK },
    { "SCRIPT KILL", ROUTE_ALL_ANY },
    { "SCRIPT LOAD", ROUTE_ALL_OK },
    { "SLOWLOG RESET", ROUTE_ALL_OK },
    { "SPUBLISH", ROUTE_CHANNEL },
    { "SSUBSCRIBE", ROUTE_CHANNEL },
    { "SUNSUBSCRIBE", ROUTE_CHANNEL },
    { "TOUCH", ROUTE_SPLIT_COUNT },
    { "UNLINK", ROUTE_SPLIT_COUNT },
    { "WAIT", ROUTE_LAST },
    { "WAITAOF", ROUTE_LAST },
};

static void routes_are_those_of_the_specification(void **state)
{
    (void)state;
    size_t others = 0;

    for (size_t i = 0; i < sizeof routed / sizeof routed[0]; i++) {
        const struct command *c = find_line(routed[i].name);
        assert_non_null(c);
        assert_string_equal(c->name, routed[i].name);
        assert_int_equal(c->route, routed[i].route);
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        others += find_line(names[i])->route != ROUTE_NODE;
    }
    for (size_t i = 0; i < sizeof containers / sizeof containers[0]; i++) {
        assert_int_equal(find_line(containers[i])->route, ROUTE_NODE);
    }
    assert_int_equal(others, sizeof routed / sizeof routed[0]);
}

/* What is split over slots has its keys in one range, so that the core can cut
 * it between them. */
static void what_is_split_has_plain_keys(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const struct command *c = find_line(names[i]);
        bool pairs = c->route == ROUTE_SPLIT_PAIRS;
        if (pairs || c->route == ROUTE_SPLIT_VALUES ||
            c->route == ROUTE_SPLIT_COUNT) {
            assert_int_equal(c->key_first, 1);
            assert_int_equal(c->key_last, -1);
            assert_int_equal(c->key_step, pairs ? 2 : 1);
            assert_int_equal(c->arity, pairs ? -3 : -2);
        }
    }
}

/* ---- waiting, writing, constant replies ---- */

static void check_block(const char *line, bool blocks, uint64_t us)
{
    struct words w = words_of(line);
    const struct command *c = row_of(&w);

    assert_int_equal(command_blocks(c, w.argv, w.argc), blocks);
    assert_int_equal(command_block_us(c, w.argv, w.argc), us);
}

static void waiting_calls_tell_how_long(void **state)
{
    (void)state;
    check_block("GET k", false, 0);
    check_block("BLPOP a b 2", true, 2000000);
    check_block("BLPOP a 0.25", true, 250000);
    check_block("BLPOP a 1.2345", true, 1235000);
    check_block("BLPOP a 1.2340", true, 1234000);
    check_block("BLPOP a 0.0001", true, 1000); /* not for ever */
    check_block("BLPOP a 0", true, 0);
    check_block("BLPOP a x", true, 0);
    check_block("BLMOVE a b LEFT RIGHT 3", true, 3000000);
    check_block("BLMPOP 1.5 1 a LEFT", true, 1500000);
    check_block("BZMPOP 2 1 a MIN", true, 2000000);
    check_block("WAIT 1 500", true, 500000);
    check_block("WAITAOF 1 0 500", true, 500000);
    check_block("XREAD STREAMS a 0", false, 0);
    check_block("XREAD STREAMS BLOCK 0", false, 0);
    check_block("XREAD BLOCK 100 STREAMS a 0", true, 100000);
    check_block("XREADGROUP GROUP BLOCK BLOCK STREAMS a 0", false, 0);
    check_block("XREADGROUP GROUP g c BLOCK 7 STREAMS a >", true, 7000);
    check_block("XYZZY 5", false, 0);
}

static uint32_t block_arg(const char *line)
{
    struct words w = words_of(line);
    return command_block_arg(row_of(&w), w.argv, w.argc);
}

static uint32_t stream_ids(const char *line)
{
    struct words w = words_of(line);
    return command_stream_ids(row_of(&w), w.argv, w.argc);
}

static void waiting_calls_tell_where_it_stands(void **state)
{
    (void)state;
    assert_int_equal(block_arg("GET k"), 0);
    assert_int_equal(block_arg("BLPOP a b 2"), 3);
    assert_int_equal(block_arg("BRPOPLPUSH a b 2"), 3);
    assert_int_equal(block_arg("BLMOVE a b LEFT RIGHT 3"), 5);
    assert_int_equal(block_arg("BLMPOP 1.5 1 a LEFT"), 1);
    assert_int_equal(block_arg("BZMPOP 2 1 a MIN"), 1);
    assert_int_equal(block_arg("BLMOVEM a b 1"), 0); /* not known */
    assert_int_equal(block_arg("WAIT 1 500"), 2);
    assert_int_equal(block_arg("WAITAOF 1 0 500"), 3);
    assert_int_equal(block_arg("XREAD STREAMS BLOCK 0"), 0);
    assert_int_equal(block_arg("XREAD COUNT 1 BLOCK 100 STREAMS a 0"), 4);
    assert_int_equal(block_arg("XREADGROUP GROUP g c BLOCK 7 STREAMS a >"), 5);
    assert_true(command_block_in_ms(find_line("XREAD")));
    assert_true(command_block_in_ms(find_line("WAIT")));
    assert_false(command_block_in_ms(find_line("BLMPOP")));
    assert_int_equal(stream_ids("XREAD BLOCK 1 STREAMS a b $ 0"), 6);
    assert_int_equal(stream_ids("XREAD BLOCK 1 STREAMS a b $"), 0);
    assert_int_equal(stream_ids("XREAD BLOCK 1 STREAMS"), 0);
    assert_int_equal(stream_ids("XREADGROUP GROUP g c STREAMS a >"), 0);
    assert_int_equal(stream_ids("GET a"), 0);
}

static bool writes(const char *line)
{
    struct words w = words_of(line);
    const struct command *c = row_of(&w);
    return command_writes(c, command_class(c, w.argv, w.argc, wall_ms));
}

static bool constant(const char *line)
{
    struct words w = words_of(line);
    return command_reply_constant(row_of(&w), w.argv, w.argc);
}

static void only_what_may_write_is_said_to_write(void **state)
{
    (void)state;
    assert_true(writes("SET k v"));
    assert_true(writes("INCR k"));
    assert_true(writes("EVAL x 0"));
    assert_true(writes("SORT k STORE d"));
    assert_true(writes("GETEX k EX 5"));
    assert_true(writes("XYZZY a"));
    assert_true(writes("BLPOP k 0"));
    assert_false(writes("SORT k"));
    assert_false(writes("GETEX k"));
    assert_false(writes("GET k"));
    assert_false(writes("XREAD BLOCK 0 STREAMS a 0"));
    assert_false(writes("PING"));
    assert_false(writes("SCAN 5"));
}

static void constant_replies_depend_on_nothing(void **state)
{
    (void)state;
    assert_true(constant("SET k v"));
    assert_true(constant("SET k v EX 5"));
    assert_true(constant("SET k v KEEPTTL"));
    assert_true(constant("MSET a 1"));
    assert_true(constant("SETEX k 5 v"));
    assert_true(constant("PSETEX k 5 v"));
    assert_false(constant("SET k v XX"));
    assert_false(constant("SET k v NX"));
    assert_false(constant("SET k v GET"));
    assert_false(constant("SET k v IFEQ EX"));
    assert_false(constant("HMSET h f v"));
    assert_false(constant("INCR k"));
    assert_false(constant("HSET h f v"));
    assert_false(constant("XYZZY"));
}

/* Every command takes any arguments without harm, and tells something. */
static void no_argument_breaks_a_rule(void **state)
{
    (void)state;
    static const char *const soup[] = {
        "0",
        "1",
        "-1",
        "a",
        "''",
        "STREAMS",
        "BLOCK",
        "STORE",
        "FIELDS",
        "KEYS",
        "LIMIT",
        "EX",
        "IDMP",
        "MAXLEN",
        "COUNT",
        "WEIGHTS",
        "AGGREGATE",
        "GROUP",
        "9223372036854775807",
    };
    const size_t words = sizeof soup / sizeof soup[0];
    uint32_t seed = 1;

    for (size_t i = 0; i < sizeof names / sizeof names[0] * 200; i++) {
        struct words w = words_of(names[i % (sizeof names / sizeof *names)]);
        uint32_t index[WORDS_MAX];
        size_t argc = w.argc + (seed >> 16) % 8;
        while (w.argc < argc) {
            seed = seed * 1664525u + 1013904223u;
            struct words one = words_of(soup[(seed >> 16) % words]);
            w.argv[w.argc++] = one.argv[0];
        }
        seed = seed * 1664525u + 1013904223u;
        const struct command *c = row_of(&w);
        assert_true((unsigned)command_class(c, w.argv, w.argc, wall_ms) <
                    CLASS_COUNT);
        int keys = command_keys(c, w.argv, w.argc, index, WORDS_MAX);
        assert_true(keys < (int)w.argc);
        uint32_t first = command_first_key(c, w.argv, w.argc);
        assert_true(first < w.argc);
        assert_true(keys <= 0 || first == index[0]);
        for (int k = 0; k < keys; k++) {
            assert_true(index[k] > 0 && index[k] < w.argc);
        }
        (void)command_block_us(c, w.argv, w.argc);
        assert_true(command_block_arg(c, w.argv, w.argc) < w.argc);
        assert_true(command_stream_ids(c, w.argv, w.argc) < w.argc);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_command_is_found_under_its_name_in_any_case),
        cmocka_unit_test(what_is_not_in_the_table_is_not_found),
        cmocka_unit_test(an_unknown_subcommand_gives_its_container),
        cmocka_unit_test(rows_say_what_the_server_says),
        cmocka_unit_test(the_core_s_commands_have_their_ids),
        cmocka_unit_test(what_lives_in_a_connection_takes_a_private_lane),
        cmocka_unit_test(each_argument_rule_holds),
        cmocka_unit_test(scripts_without_writes_only_read),
        cmocka_unit_test(ltrim_is_idempotent_exactly_where_it_is_called_so),
        cmocka_unit_test(zremrangebyrank_settles_exactly_where_it_is_called_so),
        cmocka_unit_test(ranks_that_are_no_numbers_are_n),
        cmocka_unit_test(keys_are_found),
        cmocka_unit_test(the_first_key_is_told_without_the_others),
        cmocka_unit_test(rows_know_where_the_first_key_is),
        cmocka_unit_test(routes_are_those_of_the_specification),
        cmocka_unit_test(what_is_split_has_plain_keys),
        cmocka_unit_test(keys_beyond_the_room_are_counted),
        cmocka_unit_test(waiting_calls_tell_how_long),
        cmocka_unit_test(waiting_calls_tell_where_it_stands),
        cmocka_unit_test(only_what_may_write_is_said_to_write),
        cmocka_unit_test(constant_replies_depend_on_nothing),
        cmocka_unit_test(no_argument_breaks_a_rule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
