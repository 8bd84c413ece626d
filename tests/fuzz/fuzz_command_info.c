/* Byte soup as what servers say of their commands. The first byte chooses the
 * question that it answers. Whatever comes out is a row that can be used: for a
 * call, whose arguments are made of the same bytes. */
#include "fuzz.h"
#include "parser/command_info.h"

enum {
    ARGS_MAX = 24,
    KEYS_MAX = 8
};

struct call {
    struct span argv[ARGS_MAX];
    size_t argc;
};

/* Words of up to three bytes, of whatever is there. */
static void make_call(struct call *call, struct span bytes)
{
    size_t at = 0;

    while (call->argc < ARGS_MAX && at < bytes.len) {
        size_t len = bytes.data[at] % 4;
        len = len < bytes.len - at ? len : bytes.len - at;
        call->argv[call->argc++] = (struct span){ bytes.data + at, len };
        at += len + 1;
    }
}

static void require_keys(const struct command *c, const struct call *call)
{
    uint32_t index[KEYS_MAX];

    for (size_t argc = 1; argc <= call->argc; argc++) {
        int n = command_keys(c, call->argv, argc, index, KEYS_MAX);
        uint32_t first = command_first_key(c, call->argv, argc);
        REQUIRE(n >= COMMAND_KEYS_UNKNOWN && n <= (int)(argc * KEYS_MAX));
        REQUIRE(first < argc);
        for (int i = 0; i < n && i < KEYS_MAX; i++) {
            REQUIRE(index[i] > 0 && index[i] < argc);
        }
    }
}

static void take(void *context, const struct command_info *info)
{
    const struct call *call = context;
    const struct command *c = &info->row;
    struct command_info copy;

    REQUIRE(c->name == info->name && c->name[0] != '\0');
    REQUIRE(memchr(c->name, '\0', sizeof info->name) != NULL);
    REQUIRE((c->flags & COMMAND_LEARNT) != 0);
    REQUIRE((c->flags & COMMAND_ASK_KEYS) == 0);
    REQUIRE(c->class < CLASS_COUNT);
    REQUIRE(info->n_specs <= COMMAND_SPECS_MAX);
    if (command_blocks(c, call->argv, call->argc)) {
        REQUIRE((c->flags & COMMAND_PRIVATE) != 0);
        REQUIRE(command_block_us(c, call->argv, call->argc) == 0);
    }
    require_keys(c, call);
    command_info_copy(&copy, info);
    REQUIRE(command_info_equal(&copy, info) && copy.row.name == copy.name);
}

static void take_name(void *context, struct span name)
{
    (void)context;
    REQUIRE(name.len > 0 && name.len <= COMMAND_INFO_NAME_MAX);
    for (size_t i = 0; i < name.len; i++) {
        REQUIRE(name.data[i] > ' ' && name.data[i] <= '~');
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct call call = { .argc = 0 };

    if (size < 1) {
        return 0;
    }
    struct span reply = { data + 1, size - 1 };
    make_call(&call, reply);
    if (data[0] % 2 == 0) {
        command_info_read(reply, take, &call);
    } else {
        command_list_read(reply, take_name, NULL);
    }
    return 0;
}
