/* A module for redis-server, with what it takes of the interface declared here.
 * box.get and box.put answer how many arguments they had; box.pop waits for
 * box.fill. The key of box.get is its second argument. */
#include <stddef.h>

struct context;
struct string;
struct key;
struct blocked;

typedef int (*command)(struct context *, struct string **, int);
typedef void (*no_data)(struct context *, void *);

static struct {
    int (*SetModuleAttribs)(struct context *, const char *, int, int);
    int (*CreateCommand)(struct context *,
                         const char *,
                         command,
                         const char *,
                         int,
                         int,
                         int);
    int (*ReplyWithLongLong)(struct context *, long long);
    int (*ReplyWithSimpleString)(struct context *, const char *);
    struct blocked *(
        *BlockClient)(struct context *, command, command, no_data, long long);
    int (*UnblockClient)(struct blocked *, void *);
} api;

static struct blocked *waiting;

static int get(struct context *ctx, struct string **argv, int argc)
{
    (void)argv;
    return api.ReplyWithLongLong(ctx, argc);
}

static int filled(struct context *ctx, struct string **argv, int argc)
{
    (void)argv;
    (void)argc;
    return api.ReplyWithSimpleString(ctx, "full");
}

static int pop(struct context *ctx, struct string **argv, int argc)
{
    (void)argv;
    (void)argc;
    waiting = api.BlockClient(ctx, filled, NULL, NULL, 0);
    return 0;
}

static int fill(struct context *ctx, struct string **argv, int argc)
{
    (void)argv;
    (void)argc;
    if (waiting != NULL) {
        api.UnblockClient(waiting, NULL);
        waiting = NULL;
    }
    return api.ReplyWithSimpleString(ctx, "OK");
}

int RedisModule_OnLoad(struct context *ctx, struct string **argv, int argc);
int RedisModule_OnLoad(struct context *ctx, struct string **argv, int argc)
{
    /* The first member of a context is the function that finds the others. */
    int (*find)(const char *, void *) = *(int (**)(const char *, void *))ctx;

    (void)argv;
    (void)argc;
    find("RedisModule_SetModuleAttribs", (void *)&api.SetModuleAttribs);
    find("RedisModule_CreateCommand", (void *)&api.CreateCommand);
    find("RedisModule_ReplyWithLongLong", (void *)&api.ReplyWithLongLong);
    find("RedisModule_ReplyWithSimpleString",
         (void *)&api.ReplyWithSimpleString);
    find("RedisModule_BlockClient", (void *)&api.BlockClient);
    find("RedisModule_UnblockClient", (void *)&api.UnblockClient);
    if (api.SetModuleAttribs == NULL) {
        return 1;
    }
    api.SetModuleAttribs(ctx, "box", 1, 1);
    return api.CreateCommand(ctx, "box.get", get, "readonly fast", 2, 2, 1) ||
           api.CreateCommand(ctx, "box.put", get, "write", 1, 1, 1) ||
           api.CreateCommand(ctx, "box.pop", pop, "write blocking", 1, 1, 1) ||
           api.CreateCommand(ctx, "box.fill", fill, "fast", 0, 0, 0);
}
