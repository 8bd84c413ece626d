/* The framer and the command scanner beside hiredis' reader.
 *
 *   framer_bench [CASE [ROUNDS]]
 *
 * Without arguments: nanoseconds per reply of every case, medians of several
 * runs, targets in turn. With a case (a number) and rounds it does only that,
 * for callgrind: the difference between two round counts is the cost. */
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <hiredis/hiredis.h>

#include "parser/commands.h"
#include "parser/resp.h"
#include "parser/resp_command.h"

enum {
    RUNS = 7,
    PIECE = 64 * 1024,
    MEBIBYTE = 1024 * 1024,
    TEXT_MAX = MEBIBYTE + 64
};

static char text[TEXT_MAX];
static size_t text_len;

/* ---- what is measured; each returns false when it went wrong ---- */

static bool with_framer(uint64_t rounds)
{
    const struct resp_limits limits = { .bulk_max = 512 * 1024 * 1024,
                                        .elements_max = 1024 * 1024 };
    struct resp_scanner s;
    enum scan scan = SCAN_DONE;

    resp_scanner_init(&s);
    while (rounds-- > 0) {
        for (size_t at = 0; at < text_len; at += PIECE) {
            size_t left = text_len - at;
            size_t used = 0;
            scan = resp_scan(&s, &limits, (const uint8_t *)text + at,
                             left < PIECE ? left : PIECE, &used);
        }
        if (scan != SCAN_DONE) {
            return false;
        }
    }
    return true;
}

static bool with_hiredis(uint64_t rounds)
{
    redisReader *reader = redisReaderCreate();
    void *reply = NULL;

    if (reader == NULL) {
        return false;
    }
    while (rounds-- > 0) {
        for (size_t at = 0; at < text_len; at += PIECE) {
            size_t left = text_len - at;
            redisReaderFeed(reader, text + at, left < PIECE ? left : PIECE);
            redisReaderGetReply(reader, &reply);
        }
        if (reply == NULL) {
            redisReaderFree(reader);
            return false;
        }
        freeReplyObject(reply);
        reply = NULL;
    }
    redisReaderFree(reader);
    return true;
}

static bool with_command_scanner(uint64_t rounds)
{
    const struct command_limits limits = { .bulk_max = 512 * 1024 * 1024,
                                           .args_max = 1024 * 1024 };
    struct command_scanner s;

    command_scanner_init(&s);
    while (rounds-- > 0) {
        size_t used = 0;
        if (command_scan(&s, &limits, (const uint8_t *)text, text_len, &used) !=
            SCAN_DONE) {
            return false;
        }
    }
    return true;
}

static bool with_find(uint64_t rounds)
{
    const struct span name = { .data = (const uint8_t *)text, .len = text_len };
    const struct span none = { 0 };

    while (rounds-- > 0) {
        if (command_find(name, none) == NULL) {
            return false;
        }
    }
    return true;
}

/* ---- the cases ---- */

static void text_is(const char *what)
{
    text_len = strlen(what);
    memcpy(text, what, text_len);
}

static void text_bulk(size_t size)
{
    text_len = (size_t)snprintf(text, sizeof text, "$%zu\r\n", size);
    memset(text + text_len, 'x', size);
    memcpy(text + text_len + size, "\r\n", 2);
    text_len += size + 2;
}

static void make_ok(void)
{
    text_is("+OK\r\n");
}

static void make_integer(void)
{
    text_is(":1\r\n");
}

static void make_bulk(void)
{
    text_bulk(64);
}

static void make_array(void)
{
    text_is("*100\r\n");
    for (int i = 0; i < 100; i++) {
        memcpy(text + text_len, "$10\r\n0123456789\r\n", 17);
        text_len += 17;
    }
}

static void make_mebibyte(void)
{
    text_bulk(MEBIBYTE);
}

static void make_set(void)
{
    text_is("*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000001\r\n$64\r\n");
    memset(text + text_len, 'x', 64);
    memcpy(text + text_len + 64, "\r\n", 2);
    text_len += 66;
}

static void make_get_name(void)
{
    text_is("get");
}

static void make_long_name(void)
{
    text_is("ZREVRANGEBYSCORE");
}

static const struct {
    const char *name;
    void (*make)(void);
    bool (*run)(uint64_t rounds);
    uint64_t rounds;
} cases[] = {
    { "+OK, framer", make_ok, with_framer, 2000000 },
    { "+OK, hiredis", make_ok, with_hiredis, 2000000 },
    { ":1, framer", make_integer, with_framer, 2000000 },
    { ":1, hiredis", make_integer, with_hiredis, 2000000 },
    { "64-byte bulk, framer", make_bulk, with_framer, 2000000 },
    { "64-byte bulk, hiredis", make_bulk, with_hiredis, 2000000 },
    { "array of 100, framer", make_array, with_framer, 50000 },
    { "array of 100, hiredis", make_array, with_hiredis, 50000 },
    { "1 MiB bulk in 64 KiB, framer", make_mebibyte, with_framer, 1000 },
    { "1 MiB bulk in 64 KiB, hiredis", make_mebibyte, with_hiredis, 1000 },
    { "SET of 64 bytes, command scanner", make_set, with_command_scanner,
      2000000 },
    { "find get", make_get_name, with_find, 2000000 },
    { "find ZREVRANGEBYSCORE", make_long_name, with_find, 2000000 },
};

enum {
    CASES = sizeof cases / sizeof cases[0]
};

static double now_ns(void)
{
    struct timespec t;
    (void)timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static int run_all(void)
{
    static double ns[CASES][RUNS];

    for (int run = 0; run < RUNS; run++) {
        for (size_t i = 0; i < CASES; i++) {
            cases[i].make();
            double begin = now_ns();
            if (!cases[i].run(cases[i].rounds)) {
                fprintf(stderr, "%s: went wrong\n", cases[i].name);
                return EXIT_FAILURE;
            }
            ns[i][run] = (now_ns() - begin) / (double)cases[i].rounds;
        }
    }
    for (size_t i = 0; i < CASES; i++) {
        qsort(ns[i], RUNS, sizeof ns[i][0], compare);
        printf("%2zu  %-34s %12.1f ns\n", i, cases[i].name, ns[i][RUNS / 2]);
    }
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        return run_all();
    }
    unsigned long i = strtoul(argv[1], NULL, 10);
    unsigned long rounds = argc > 2 ? strtoul(argv[2], NULL, 10) : 1;
    if (i >= CASES) {
        fprintf(stderr, "there are %d cases\n", (int)CASES);
        return EXIT_FAILURE;
    }
    cases[i].make();
    return cases[i].run(rounds) ? EXIT_SUCCESS : EXIT_FAILURE;
}
