/* What servers say of their commands, in the shapes of all versions, and the
 * rows that are made of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "parser/command_info.h"
#include "parser/number.h"

#ifdef REPLACE_MALLOC
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);

static long allocations_left = -1;

static bool allocation_fails(void)
{
    return allocations_left >= 0 && allocations_left-- == 0;
}

void *malloc(size_t size)
{
    return allocation_fails() ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    return allocation_fails() ? NULL : __libc_calloc(n, size);
}
#endif

/* ---- replies in words ------------------------------------------------------ */

static uint8_t wire[64 * 1024];
static size_t wire_len;

static void wire_add(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    int len = vsnprintf((char *)wire + wire_len, sizeof wire - wire_len, format,
                        args);
    va_end(args);
    assert_true(len >= 0 && (size_t)len < sizeof wire - wire_len);
    wire_len += (size_t)len;
}

static bool is_bracket(char c)
{
    return c == '(' || c == ')' || c == '{' || c == '}';
}

static const char *word_end(const char *at)
{
    return is_bracket(*at) ? at + 1 : at + strcspn(at, " \n(){}");
}

/* The values up to the bracket that closes. */
static size_t count_inside(const char *at)
{
    size_t count = 0;
    size_t depth = 0;

    for (at += strspn(at, " \n");; at = word_end(at), at += strspn(at, " \n")) {
        assert_true(*at != '\0');
        if (*at == ')' || *at == '}') {
            if (depth-- == 0) {
                return count;
            }
            continue;
        }
        count += depth == 0;
        depth += *at == '(' || *at == '{';
    }
}

/* "(get 2 (+fast) nil)": a list of a string, an integer, a list with a simple
 * string, nil. {} are the maps of RESP3, [] do not exist. */
static struct span reply_of(const char *words)
{
    wire_len = 0;
    for (const char *at = words + strspn(words, " \n"); *at != '\0';
         at += strspn(at, " \n")) {
        const char *end = word_end(at);
        int len = (int)(end - at);
        struct span word = { (const uint8_t *)at, (size_t)len };
        int64_t number = 0;
        if (*at == '(') {
            wire_add("*%zu\r\n", count_inside(end));
        } else if (*at == '{') {
            wire_add("%%%zu\r\n", count_inside(end) / 2);
        } else if (*at == ')' || *at == '}') {
            at = end;
            continue;
        } else if (number_parse(word, &number)) {
            wire_add(":%.*s\r\n", len, at);
        } else if (*at == '+' || *at == '-') {
            wire_add("%.*s\r\n", len, at);
        } else if (span_equal(word, span_of("nil"))) {
            wire_add("$-1\r\n");
        } else {
            wire_add("$%d\r\n%.*s\r\n", len, len, at);
        }
        at = end;
    }
    return (struct span){ wire, wire_len };
}

/* ---- reading --------------------------------------------------------------- */

enum {
    TAKEN_MAX = 16
};

static struct command_info taken[TAKEN_MAX];
static size_t n_taken;

static void take(void *context, const struct command_info *info)
{
    assert_ptr_equal(context, taken);
    assert_true(n_taken < TAKEN_MAX);
    assert_ptr_equal(info->row.name, info->name);
    command_info_copy(&taken[n_taken++], info);
}

static int read_words(const char *words)
{
    n_taken = 0;
    return command_info_read(reply_of(words), take, taken);
}

/* The only row that comes out of it. */
static const struct command_info *row_of(const char *words)
{
    assert_true(read_words(words) > 0);
    assert_int_equal(n_taken, 1);
    return &taken[0];
}

/* The keys of a call, as numbers in a text: "1 3"; "?": not known. */
static const char *keys_of(const struct command_info *info, const char *call)
{
    static char text[64];
    struct span argv[16];
    uint32_t index[8];
    size_t argc = 0;
    int len = 0;

    for (const char *at = call; *at != '\0'; at += strspn(at, " \n")) {
        size_t word = strcspn(at, " ");
        argv[argc++] = (struct span){ (const uint8_t *)at, word };
        at += word;
    }
    int n = command_keys(&info->row, argv, argc, index, 8);
    text[0] = '\0';
    if (n == COMMAND_KEYS_UNKNOWN) {
        return "?";
    }
    uint32_t first = command_first_key(&info->row, argv, argc);
    assert_true(n == 0 || first == index[0]);
    for (int i = 0; i < n; i++) {
        len += snprintf(text + len, sizeof text - (size_t)len, "%s%u",
                        i == 0 ? "" : " ", (unsigned)index[i]);
    }
    return text;
}

static uint32_t first_key_of(const struct command_info *info, size_t argc)
{
    struct span argv[16];

    for (size_t i = 0; i < argc; i++) {
        argv[i] = span_of("1");
    }
    return command_first_key(&info->row, argv, argc);
}

/* ---- shapes ---------------------------------------------------------------- */

static void six_elements_of_6_0_make_a_row(void **state)
{
    (void)state;
    const struct command_info *i =
        row_of("((box.get 2 (+readonly +fast) 1 1 1))");

    assert_string_equal(i->row.name, "BOX.GET");
    assert_int_equal(i->row.class, CLASS_R);
    assert_int_equal(i->row.arity, 2);
    assert_int_equal(i->row.route, ROUTE_NODE);
    assert_int_equal(i->row.flags, COMMAND_LEARNT);
    assert_string_equal(keys_of(i, "box.get a"), "1");
}

static void seven_elements_of_6_2_make_a_row(void **state)
{
    (void)state;
    const struct command_info *i =
        row_of("((box.put -3 (+write +denyoom) 1 -1 2 (+@write +@slow)))");

    assert_int_equal(i->row.class, CLASS_N);
    assert_int_equal(i->row.flags, COMMAND_LEARNT | COMMAND_WRITES);
    assert_int_equal(i->row.arity, -3);
    assert_string_equal(keys_of(i, "box.put a 1 b 2"), "1 3");
}

static void ten_elements_of_7_0_make_a_row(void **state)
{
    (void)state;
    const struct command_info *i = row_of(
        "((box.move 3 (+write) 1 2 1 (+@write) () (\n"
        "(flags (+RW) begin_search (type index spec (index 1)) find_keys (type "
        "range spec (lastkey 1 keystep 1 limit 0)))) ()))");

    assert_int_equal(i->row.class, CLASS_N);
    assert_string_equal(keys_of(i, "box.move a b"), "1 2");
    assert_int_equal(i->n_specs, 0); /* the columns say the same */
}

static void maps_of_resp3_make_the_same_row(void **state)
{
    (void)state;
    const struct command_info *i = row_of(
        "((box.find -3 (+readonly +movablekeys) 0 0 0 (+@read) () (\n"
        "{flags (+RO) begin_search {type keyword spec {keyword IN startfrom "
        "1}} find_keys {type range spec {lastkey -1 keystep 1 limit 0}}}) "
        "()))");

    assert_int_equal(i->row.class, CLASS_R);
    assert_string_equal(keys_of(i, "box.find x in a b"), "3 4");
}

static void what_the_table_knows_is_passed_over(void **state)
{
    (void)state;
    assert_int_equal(read_words(
                         "((get 2 (+write) 1 1 1) nil\n"
                         "(config -2 () 0 0 0 () () () (\n"
                         "(config|get -3 (+write) 0 0 0 () () () ()))))"),
                     2);
    assert_int_equal(n_taken, 0);
}

static void words_without_readonly_or_write_are_class_u(void **state)
{
    (void)state;
    const struct command_info *i = row_of("((box.ping 1 (+fast) 0 0 0))");

    assert_int_equal(i->row.class, CLASS_U);
    assert_int_equal(i->row.flags, COMMAND_LEARNT | COMMAND_WRITES);
    assert_true(command_writes(&i->row, CLASS_U));
}

static void a_command_that_blocks_gets_a_lane_and_is_not_replayed(void **state)
{
    (void)state;
    static const char *const words[] = {
        "((box.pop -2 (+write +blocking) 1 1 1 (+@write)))",
        "((box.pop -2 (+write) 1 1 1 (+@write +@blocking)))",
    };
    struct span argv[] = { span_of("box.pop"), span_of("a"), span_of("7") };

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        const struct command *c = &row_of(words[i])->row;
        assert_int_equal(c->class, CLASS_BN);
        assert_int_equal(c->flags, COMMAND_LEARNT | COMMAND_WRITES |
                                       COMMAND_BLOCKING | COMMAND_PRIVATE);
        assert_true(command_blocks(c, argv, 3));
        /* The last argument need not be its timeout. */
        assert_int_equal(command_block_us(c, argv, 3), 0);
    }
    const struct command_info *wait =
        row_of("((box.wait -2 (+readonly +blocking) 1 1 1))");
    assert_int_equal(wait->row.class, CLASS_BN);
    assert_false(wait->row.flags & COMMAND_WRITES);
}

static void what_may_change_the_connection_gets_a_lane(void **state)
{
    (void)state;
    static const char *const lone[] = {
        "((box.watch -2 (+pubsub) 0 0 0))",
        "((box.watch -2 (+noscript) 0 0 0))",
        "((box.watch -2 () 0 0 0 (+@connection)))",
        "((box.watch -2 () 0 0 0 (+@pubsub)))",
        "((box.watch -2 () 0 0 0 (+@transaction)))",
    };
    static const char *const shared[] = {
        "((box.info -2 (+noscript +admin) 0 0 0 (+@admin)))",
        "((box.info -2 (+loading +stale) 0 0 0 (+@fast)))",
    };

    for (size_t i = 0; i < sizeof lone / sizeof lone[0]; i++) {
        const struct command_info *info = row_of(lone[i]);
        assert_true(info->row.flags & COMMAND_PRIVATE);
        assert_false(info->row.flags & COMMAND_BLOCKING);
        assert_int_equal(info->row.class, CLASS_U);
    }
    for (size_t i = 0; i < sizeof shared / sizeof shared[0]; i++) {
        assert_false(row_of(shared[i])->row.flags & COMMAND_PRIVATE);
    }
}

static void what_monitor_must_not_see_holds_secrets(void **state)
{
    (void)state;
    assert_true(row_of("((box.login 2 (+skip_monitor) 0 0 0))")->row.flags &
                COMMAND_SECRET);
    assert_true(row_of("((box.login 2 (+skip_slowlog) 0 0 0))")->row.flags &
                COMMAND_SECRET);
}

/* ---- subcommands ----------------------------------------------------------- */

static void subcommands_of_an_unknown_container_are_rows(void **state)
{
    (void)state;
    assert_int_equal(read_words("((box -2 () 0 0 0 () () () (\n"
                                "(box|open 3 (+write) 2 2 1 () () () ())\n"
                                "(peek 3 (+readonly) 2 2 1 () () () ()))))"),
                     1);
    assert_int_equal(n_taken, 3);
    assert_string_equal(taken[0].name, "BOX");
    assert_true(taken[0].row.flags & COMMAND_CONTAINER);
    assert_string_equal(taken[1].name, "BOX OPEN");
    assert_int_equal(taken[1].row.class, CLASS_N);
    assert_string_equal(keys_of(&taken[1], "box open a"), "2");
    assert_string_equal(taken[2].name, "BOX PEEK"); /* without its container */
    assert_int_equal(taken[2].row.class, CLASS_R);
}

static void new_subcommands_of_known_containers_are_rows(void **state)
{
    (void)state;
    const struct command_info *i =
        row_of("((object -2 () 0 0 0 () () () (\n"
               "(object|freq 3 (+readonly) 2 2 1 () () () ())\n"
               "(object|color 3 (+readonly) 2 2 1 () () () ()))))");

    assert_string_equal(i->name, "OBJECT COLOR");
    assert_int_equal(i->row.class, CLASS_R);
    assert_string_equal(keys_of(i, "object color a"), "2");
}

static void such_a_subcommand_is_at_least_what_its_container_is(void **state)
{
    (void)state;
    const struct command_info *i =
        row_of("((client|paint -3 (+loading) 0 0 0 (+@slow) () () ()))");

    assert_string_equal(i->name, "CLIENT PAINT");
    assert_int_equal(i->row.class, CLASS_A);
    assert_true(i->row.flags & COMMAND_PRIVATE);
    assert_false(i->row.flags & COMMAND_CONTAINER);
}

/* ---- keys ------------------------------------------------------------------ */

#define SPECS(specs) \
    "((box.join -3 (+readonly +movablekeys) 0 0 0 () () (" specs ") ()))"
#define AT(index) "begin_search (type index spec (index " #index ")) "
#define BEHIND(w, f) \
    "begin_search (type keyword spec (keyword " #w " startfrom " #f ")) "
#define RANGE(l, s, m) \
    "find_keys (type range spec (lastkey " #l " keystep " #s " limit " #m "))"
#define NUMBER(n, f, s)                                          \
    "find_keys (type keynum spec (keynumidx " #n " firstkey " #f \
    " keystep " #s "))"

static void keys_behind_their_number_are_found(void **state)
{
    (void)state;
    const struct command_info *i =
        row_of(SPECS("(flags (+RO) " AT(2) NUMBER(0, 1, 1) ")"));

    assert_string_equal(keys_of(i, "box.join how 2 a b limit 3"), "3 4");
    assert_string_equal(keys_of(i, "box.join how 0 a b"), "?");
    assert_string_equal(keys_of(i, "box.join how 3 a b"), "?");
    assert_string_equal(keys_of(i, "box.join how many a b"), "?");
    assert_string_equal(keys_of(i, "box.join how -1 a b"), "?");
    assert_string_equal(keys_of(i, "box.join how"), "?");
    assert_string_equal(keys_of(i, "box.join how 9223372036854775807 a"), "?");
}

static void keys_in_steps_behind_their_number_are_found(void **state)
{
    (void)state;
    const struct command_info *i =
        row_of(SPECS("(flags (+RW) " AT(1) NUMBER(0, 1, 2) ")"));

    assert_string_equal(keys_of(i, "box.join 2 a 1 b 2 nx"), "2 4");
}

static void keys_behind_a_word_are_found(void **state)
{
    (void)state;
    const struct command_info *i =
        row_of(SPECS("(flags (+RO) " BEHIND(streams, 1) RANGE(-1, 1, 2) ")"));

    assert_string_equal(keys_of(i, "box.join count 1 STREAMS a b 0 0"), "4 5");
    assert_string_equal(keys_of(i, "box.join streams a 0"), "2");
    assert_string_equal(keys_of(i, "box.join streams"), "?");
    assert_string_equal(keys_of(i, "box.join a b"), "?");
}

static void a_word_is_looked_for_from_the_end(void **state)
{
    (void)state;
    const struct command_info *i =
        row_of(SPECS("(flags (+RO) " BEHIND(KEYS, -2) RANGE(-1, 1, 0) ")"));

    assert_string_equal(keys_of(i, "box.join keys x keys a b"), "4 5");
    assert_string_equal(keys_of(i, "box.join keys a keys"), "2 3");
    assert_string_equal(keys_of(i, "box.join"), "?");
}

static void several_rules_add_up(void **state)
{
    (void)state;
    const struct command_info *i = row_of(SPECS(
        "(flags (+OW) " AT(1)
            RANGE(0, 1, 0) ") "
                           "(flags (+RO) " AT(2)
                               NUMBER(0, 1, 1) ") "
                                               "(flags (+OW) " BEHIND(STORE, 4)
                                                   RANGE(0, 1, 0) ")"));

    assert_string_equal(keys_of(i, "box.join d 2 a b"), "1 3 4");
    assert_string_equal(keys_of(i, "box.join d 2 a b store e"), "1 3 4 6");
    assert_string_equal(keys_of(i, "box.join d 2 a b store"), "?");
}

static void rules_that_do_not_tell_all_make_keys_unknown(void **state)
{
    (void)state;
    static const char *const words[] = {
        SPECS("(flags (+RO +incomplete) " AT(1) RANGE(0, 1, 0) ")"),
        SPECS("(flags (+RO) " AT(1) RANGE(
            0, 1, 0) ") (flags (+RO) "
                     "begin_search (type unknown spec ()) " RANGE(0, 1, 0) ")"),
        SPECS("(flags (+RO) " AT(1) "find_keys (type unknown spec ()))"),
        SPECS("(flags (+RO) " AT(0) RANGE(0, 1, 0) ")"),
        SPECS("(flags (+RO) " AT(-1) RANGE(0, 1, 0) ")"),
        SPECS("(flags (+RO) " AT(99999999) NUMBER(0, 1, 1) ")"),
        SPECS("(flags (+RO) " AT(1) NUMBER(0, 1, 0) ")"),
        SPECS("(flags (+RO) " AT(1) NUMBER(-1, 1, 1) ")"),
        SPECS("(flags (+RO) " AT(1) NUMBER(1, 1, 1) ")"),
        SPECS("(flags (+RO) " BEHIND(K, 1) RANGE(0, 0, 0) ")"),
        SPECS("(flags (+RO) " BEHIND(K, 0) RANGE(0, 1, 0) ")"),
        SPECS("(flags (+RO) " BEHIND(K, 1) RANGE(-2, 1, 2) ")"),
        SPECS("(flags (+RO) " BEHIND(K, 1) RANGE(-1, 1, -2) ")"),
        SPECS("(flags (+RO) " AT(x) NUMBER(0, 1, 1) ")"),
        SPECS("(flags (+RO))"),
        SPECS("nil"),
        SPECS("7"),
        SPECS("(flags (+RO) begin_search 7 find_keys 7)"),
        SPECS("(flags (+RO) begin_search (type index) find_keys (type range))"),
        SPECS("(flags (+RO) begin_search (type keyword) find_keys (type x))"),
        SPECS(""),
        /* They move, though no rule says how: a function finds them. */
        SPECS("(flags (+RO) " AT(1) RANGE(0, 1, 0) ")"),
        /* More rules than are kept. */
        SPECS("(flags () " AT(1) NUMBER(0, 1, 1) ") (flags () " AT(1)
                  NUMBER(0, 1, 1) ") (flags () " AT(1)
                      NUMBER(0, 1, 1) ") (flags "
                                      "() " AT(1)
                                          NUMBER(0, 1, 1) ") (flags () " AT(1)
                                              NUMBER(0, 1, 1) ")"),
    };

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        assert_string_equal(keys_of(row_of(words[i]), "box.join a b c"), "?");
        assert_int_equal(taken[0].n_specs, 0);
        assert_int_equal(first_key_of(&taken[0], 4), 0);
    }
}

static void keys_that_move_behind_a_first_one_have_a_node(void **state)
{
    (void)state;
    const struct command_info *i =
        row_of("((box.sort -2 (+write +movablekeys) 1 1 1))");

    assert_string_equal(keys_of(i, "box.sort a b"), "?");
    assert_int_equal(first_key_of(i, 3), 1);
    assert_int_equal(first_key_of(i, 1), 0);
}

static void a_command_without_declared_keys_may_touch_any(void **state)
{
    (void)state;
    static const char *const words[] = {
        "((box.all -1 (+readonly) 0 0 0))",
        "((box.all -1 (+readonly) 0 0 1))",
        "((box.all -1 (+readonly) 1 1 0))",
        "((box.all -1 (+readonly) 1 1 -1))",
        "((box.all -1 (+readonly) -1 1 1))",
        "((box.all -1 (+readonly) 2 1 1))",
        "((box.all -1 (+readonly) 300 300 1))",
        "((box.all -1 (+readonly) a b c))",
    };

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        assert_string_equal(keys_of(row_of(words[i]), "box.all a b"), "?");
        assert_int_equal(first_key_of(&taken[0], 3), 0);
    }
}

static void keys_that_our_table_lacks_are_taken_from_the_server(void **state)
{
    (void)state;
    const struct command_info *i =
        row_of("((arset -4 (+readonly +noscript) 1 1 1))");
    const struct command *own =
        command_find(span_of("ARSET"), (struct span){ 0 });

    assert_int_equal(i->row.class, own->class);
    assert_int_equal(i->row.flags, COMMAND_WRITES | COMMAND_LEARNT);
    assert_string_equal(keys_of(i, "arset a 1 2"), "1");
    assert_int_equal(read_words("((arset -4 (+write) 0 0 0))"), 1);
    assert_int_equal(n_taken, 0); /* it does not know better */
}

/* ---- what makes no sense --------------------------------------------------- */

static void nonsense_is_passed_over(void **state)
{
    (void)state;
    assert_int_equal(read_words("()"), 0);
    assert_int_equal(read_words("(nil 7 box () (box) (box 1 () 1 1)\n"
                                "(nil 1 () 1 1 1) (7 1 () 1 1 1)\n"
                                "(+a 1 nil 1 1 1))"),
                     1);
    assert_int_equal(n_taken, 1);
    assert_int_equal(taken[0].row.class, CLASS_U);
    assert_int_equal(
        command_info_read(span_of("*1\r\n*6\r\n$3\r\na b\r\n:1\r\n*0\r\n:1\r\n"
                                  ":1\r\n:1\r\n"),
                          take, taken),
        0);
    assert_int_equal(read_words("((box -2 () 0 0 0 () () () 7)\n"
                                "(crate -2 () 0 0 0 () () () (7 nil ()\n"
                                "(x) (open 300 () 1 1 1))))"),
                     2);
    assert_int_equal(n_taken, 3);
    assert_string_equal(taken[2].name, "CRATE OPEN");
    assert_int_equal(taken[2].row.arity, 0);
}

static void names_that_are_too_long_are_passed_over(void **state)
{
    (void)state;
    char words[300];

    snprintf(words, sizeof words, "((a%063d 1 () 1 1 1))", 7);
    assert_int_equal(read_words(words), 1);
    assert_int_equal(strlen(taken[0].name), COMMAND_INFO_NAME_MAX);
    snprintf(words, sizeof words, "((a%064d 1 () 1 1 1))", 7);
    assert_int_equal(read_words(words), 0);
    snprintf(words, sizeof words,
             "((a%055d 1 () 1 1 1 () () () ((eightchr 1 () 1 1 1))))", 7);
    assert_int_equal(read_words(words), 1);
    assert_int_equal(n_taken, 1); /* with its container it is too long */
}

static void what_is_no_list_is_refused(void **state)
{
    (void)state;
    assert_int_equal(read_words("-NOPERM"), -1);
    assert_int_equal(read_words("7"), -1);
    assert_int_equal(read_words("nil"), -1);
    reply_of("((get 2 () 1 1 1))");
    assert_int_equal(command_info_read((struct span){ wire, wire_len - 1 },
                                       take, taken),
                     -1);
    assert_int_equal(command_list_read((struct span){ wire, wire_len - 1 },
                                       NULL, NULL),
                     -1);
    assert_int_equal(command_list_read(reply_of("-ERR"), NULL, NULL), -1);
}

/* ---- lists ----------------------------------------------------------------- */

static char names[256];

static void take_name(void *context, struct span name)
{
    (void)context;
    size_t len = strlen(names);
    snprintf(names + len, sizeof names - len, "%s%.*s", len == 0 ? "" : " ",
             (int)name.len, (const char *)name.data);
}

static void a_list_gives_the_names_to_ask_for(void **state)
{
    (void)state;
    names[0] = '\0';
    assert_int_equal(
        command_list_read(reply_of(
                              "(get box.get config config|get config|paint\n"
                              "box|open 7 nil () arset GET |x x|)"),
                          take_name, NULL),
        10);
    /* box|open comes with box, should that be a container. */
    assert_string_equal(names, "box.get config|paint arset x|");
}

/* ---- rows ------------------------------------------------------------------ */

static void rows_are_equal_when_they_say_the_same(void **state)
{
    (void)state;
    static const char *const different[] = {
        "((box.get 2 (+readonly) 1 1 1))",
        "((box.put 2 (+readonly) 1 1 1))",
        "((box.get 3 (+readonly) 1 1 1))",
        "((box.get 2 (+write) 1 1 1))",
        "((box.get 2 (+readonly +noscript) 1 1 1))",
        "((box.get 2 (+readonly) 2 2 1))",
        "((box.get 2 (+readonly) 1 2 1))",
        "((box.get 2 (+readonly) 1 1 2))",
        "((box.get 2 (+readonly +movablekeys) 1 1 1))",
        "((box.get 2 (+readonly) 0 0 0 () () ((flags () " AT(1)
            NUMBER(0, 1, 1) "))))",
        "((box.get 2 (+readonly) 0 0 0 () () ((flags () " AT(1)
            NUMBER(0, 2, 1) "))))",
        "((box.get 2 (+readonly) 0 0 0 () () ((flags () " AT(1)
            NUMBER(0, 1, 2) "))))",
        "((box.get 2 (+readonly) 0 0 0 () () ((flags () " AT(2)
            NUMBER(0, 1, 1) "))))",
        "((box.get 2 (+readonly) 0 0 0 () () ((flags () " BEHIND(A, 1)
            RANGE(-1, 1, 0) "))))",
        "((box.get 2 (+readonly) 0 0 0 () () ((flags () " BEHIND(B, 1)
            RANGE(-1, 1, 0) "))))",
        "((box.get 2 (+readonly) 0 0 0 () () ((flags () " BEHIND(B, 1)
            RANGE(-1, 1, 2) "))))",
        "((box.get 2 (+readonly) 0 0 0 () () ((flags () " BEHIND(B, 1)
            RANGE(-2, 1, 0) "))))",
    };
    enum {
        N = sizeof different / sizeof different[0]
    };
    static struct command_info rows[N];

    for (size_t i = 0; i < N; i++) {
        command_info_copy(&rows[i], row_of(different[i]));
        assert_ptr_equal(rows[i].row.name, rows[i].name);
    }
    for (size_t i = 0; i < N; i++) {
        for (size_t j = 0; j < N; j++) {
            assert_true(command_info_equal(&rows[i], &rows[j]) == (i == j));
        }
    }
}

#ifdef REPLACE_MALLOC
static void each_allocation_fails_in_turn(void **state)
{
    (void)state;
    struct span reply =
        reply_of("((box -2 () 0 0 0 () () () ((box|open 3 (+write) 2 2 1))))");
    int count = -1;

    for (long n = 0; count < 0; n++) {
        assert_true(n < 1000);
        n_taken = 0;
        allocations_left = n;
        count = command_info_read(reply, take, taken);
        allocations_left = -1;
        assert_true(n_taken == (count < 0 ? 0u : 2u));
    }
    reply = reply_of("(box.get)");
    count = -1;
    for (long n = 0; count < 0; n++) {
        assert_true(n < 1000);
        allocations_left = n;
        count = command_list_read(reply, take_name, NULL);
        allocations_left = -1;
    }
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(six_elements_of_6_0_make_a_row),
        cmocka_unit_test(seven_elements_of_6_2_make_a_row),
        cmocka_unit_test(ten_elements_of_7_0_make_a_row),
        cmocka_unit_test(maps_of_resp3_make_the_same_row),
        cmocka_unit_test(what_the_table_knows_is_passed_over),
        cmocka_unit_test(words_without_readonly_or_write_are_class_u),
        cmocka_unit_test(a_command_that_blocks_gets_a_lane_and_is_not_replayed),
        cmocka_unit_test(what_may_change_the_connection_gets_a_lane),
        cmocka_unit_test(what_monitor_must_not_see_holds_secrets),
        cmocka_unit_test(subcommands_of_an_unknown_container_are_rows),
        cmocka_unit_test(new_subcommands_of_known_containers_are_rows),
        cmocka_unit_test(such_a_subcommand_is_at_least_what_its_container_is),
        cmocka_unit_test(keys_behind_their_number_are_found),
        cmocka_unit_test(keys_in_steps_behind_their_number_are_found),
        cmocka_unit_test(keys_behind_a_word_are_found),
        cmocka_unit_test(a_word_is_looked_for_from_the_end),
        cmocka_unit_test(several_rules_add_up),
        cmocka_unit_test(rules_that_do_not_tell_all_make_keys_unknown),
        cmocka_unit_test(keys_that_move_behind_a_first_one_have_a_node),
        cmocka_unit_test(a_command_without_declared_keys_may_touch_any),
        cmocka_unit_test(keys_that_our_table_lacks_are_taken_from_the_server),
        cmocka_unit_test(nonsense_is_passed_over),
        cmocka_unit_test(names_that_are_too_long_are_passed_over),
        cmocka_unit_test(what_is_no_list_is_refused),
        cmocka_unit_test(a_list_gives_the_names_to_ask_for),
        cmocka_unit_test(rows_are_equal_when_they_say_the_same),
#ifdef REPLACE_MALLOC
        cmocka_unit_test(each_allocation_fails_in_turn),
#endif
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
