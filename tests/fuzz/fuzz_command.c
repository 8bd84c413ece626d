/* Byte soup to the command scanner: however it is cut, the answer is the same;
 * the splitter agrees; class and keys of whatever it was can be told. */
#include "fuzz.h"
#include "parser/commands.h"
#include "parser/resp_command.h"

static const struct command_limits limits = { .bulk_max = 1 << 20,
                                              .args_max = 1 << 12 };

enum {
    ARGS_MAX = 1 << 12
};

/* What a scan has told, errors as text. */
struct answer {
    enum scan scan;
    size_t used;
    uint32_t argc;
    bool is_inline;
    char error[64];
    struct command_arg arg[COMMAND_ARGS_KEPT];
};

static void answer_note(struct answer *a, const struct command_scanner *s)
{
    REQUIRE((a->scan == SCAN_INVALID) == (s->error != NULL));
    if (a->scan == SCAN_INVALID) {
        size_t len = strlen(s->error);
        REQUIRE(len < sizeof a->error);
        memcpy(a->error, s->error, len);
    }
    if (a->scan == SCAN_DONE) {
        REQUIRE(s->bytes == a->used);
        REQUIRE(s->seen == s->argc);
        a->argc = s->argc;
        a->is_inline = s->is_inline;
        for (uint32_t i = 0; i < s->argc && i < COMMAND_ARGS_KEPT; i++) {
            if (!s->is_inline) {
                a->arg[i] = s->arg[i];
            }
        }
    }
}

static void scan_pieces(const uint8_t *data,
                        size_t size,
                        uint32_t seed,
                        struct answer *a)
{
    struct command_scanner s;

    command_scanner_init(&s);
    *a = (struct answer){ .scan = SCAN_MORE };
    while (a->used < size && a->scan == SCAN_MORE) {
        seed = seed * 1664525u + 1013904223u;
        size_t piece = seed == 0 ? size : 1 + (seed >> 24) % 7;
        if (piece > size - a->used) {
            piece = size - a->used;
        }
        uint8_t *copy = malloc(piece);
        REQUIRE(copy != NULL);
        memcpy(copy, data + a->used, piece);
        size_t used = 0;
        a->scan = command_scan(&s, &limits, copy, piece, &used);
        REQUIRE(used <= piece && (a->scan != SCAN_MORE || used == piece));
        a->used += used;
        free(copy);
    }
    answer_note(a, &s);
}

static void scan_whole(const uint8_t *data, size_t size, struct answer *a)
{
    struct command_scanner s;

    command_scanner_init(&s);
    *a = (struct answer){ .scan = SCAN_MORE };
    a->scan = command_scan(&s, &limits, data, size, &a->used);
    REQUIRE(a->used <= size && (a->scan != SCAN_MORE || a->used == size));
    answer_note(a, &s);
}

static void judge(const struct span *argv, size_t argc)
{
    uint32_t index[8];
    struct span sub = argc > 1 ? argv[1] : (struct span){ 0 };
    const struct command *c = command_find(argv[0], sub);
    enum command_class class = command_class(c, argv, argc, 1700000000000);
    int keys = command_keys(c, argv, argc, index, 8);

    REQUIRE((unsigned)class < CLASS_COUNT);
    REQUIRE((c == NULL) == (class == CLASS_U) || c->class == CLASS_U);
    REQUIRE(keys >= COMMAND_KEYS_UNKNOWN && keys < (int)argc);
    for (int i = 0; i < keys && i < 8; i++) {
        REQUIRE(index[i] > 0 && index[i] < argc);
    }
    uint32_t first = command_first_key(c, argv, argc);
    REQUIRE(first < argc && (keys <= 0 || first == index[0]));
    (void)command_blocks(c, argv, argc);
    (void)command_block_us(c, argv, argc);
    (void)command_writes(c, class);
    (void)command_reply_constant(c, argv, argc);
}

static void split_and_judge(const struct answer *a, struct span data)
{
    static struct span args[ARGS_MAX];
    uint8_t *out = NULL;

    if (a->is_inline) {
        size_t room = 16 * data.len + 64;
        out = malloc(room);
        REQUIRE(out != NULL);
        int64_t len = command_from_inline(data, out, room);
        REQUIRE(len <= (int64_t)room);
        data = (struct span){ .data = out, .len = len < 0 ? 0 : (size_t)len };
    }
    size_t argc = data.len == 0 ? 0 : command_split(data, args, ARGS_MAX);
    REQUIRE(a->is_inline ? (argc > 0) == (data.len > 0) : argc == a->argc);
    for (uint32_t i = 0; !a->is_inline && i < argc && i < COMMAND_ARGS_KEPT;
         i++) {
        REQUIRE((uint64_t)(args[i].data - data.data) == a->arg[i].offset);
        REQUIRE(args[i].len == a->arg[i].len);
    }
    if (argc > 0 && argc <= ARGS_MAX) {
        judge(args, argc);
    }
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct answer whole;
    struct answer pieces;

    if (size < 2) {
        return 0;
    }
    scan_whole(data + 1, size - 1, &whole);
    scan_pieces(data + 1, size - 1, data[0], &pieces);
    REQUIRE(whole.scan == pieces.scan && whole.used == pieces.used &&
            whole.argc == pieces.argc && whole.is_inline == pieces.is_inline &&
            strcmp(whole.error, pieces.error) == 0 &&
            memcmp(whole.arg, pieces.arg, sizeof whole.arg) == 0);
    if (whole.scan == SCAN_DONE && whole.argc > 0) {
        split_and_judge(&whole,
                        (struct span){ .data = data + 1, .len = whole.used });
    }
    return 0;
}
