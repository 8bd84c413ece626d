/* docs/configuration.md. */
#include "config/config.h"
#include "config/doc_writer.h"
#include "config/option.h"

static const char markdown_start[] =
    "# Configuration\n"
    "\n"
    "<!-- Generated from config/options.def; do not edit. -->\n"
    "\n"
    "Nothing needs to be configured to start:\n"
    "\n"
    "```\n"
    "redial --listen 127.0.0.1:6400 redis://127.0.0.1:6379\n"
    "redial --listen 127.0.0.1:50050 grpc://10.0.0.1:50051,10.0.0.2:50051\n"
    "```\n"
    "\n"
    "For more there is a file, and every option of the file can be set on the\n"
    "command line as well:\n"
    "\n"
    "```\n"
    "redial -c /etc/redial.ini --set upstream.deadline=5s\n"
    "redial --set 'upstream.password=${file:/run/secrets/redis}' "
    "redis://redis.internal\n"
    "```\n"
    "\n"
    "| to see | type |\n"
    "| --- | --- |\n"
    "| whether a configuration is right, and all that is wrong | `redial -c "
    "FILE --check` |\n"
    "| the configuration in effect, secrets hidden | `redial -c FILE "
    "--print-config` |\n"
    "| this list in the terminal | `redial --help-config` |\n"
    "\n"
    "## The file\n"
    "\n"
    "```ini\n"
    "# a listener for each address that clients connect to\n"
    "[listener default]\n"
    "address = 127.0.0.1:6400\n"
    "\n"
    "# an upstream for each server behind\n"
    "[upstream default]\n"
    "url = redis://redis.internal:6379\n"
    "password = ${file:/run/secrets/redis}\n"
    "deadline = 5s\n"
    "replay.INCR = all\n"
    "```\n"
    "\n"
    "- Lines are `[section]`, `[section NAME]`, `key = value`, or a comment "
    "that\n"
    "  begins with `#` or `;`. Behind a value a comment begins with a space "
    "and\n"
    "  `;`. A line has at most 198 bytes.\n"
    "- A name has letters, digits, `-` and `_`. `[listener]` and `[upstream]`\n"
    "  without a name are those named `default`.\n"
    "- A listener without `upstream =` uses the upstream named `default`, or "
    "the\n"
    "  only one.\n"
    "- `${NAME}` is replaced by a variable of the environment, "
    "`${file:/path}` by the\n"
    "  content of a file without its last newline. A plain `${` is written "
    "`$${`.\n"
    "- Unknown sections and keys, values out of range and the same key twice "
    "are\n"
    "  errors. All of them are reported at once, with file and line; nothing "
    "is\n"
    "  half applied.\n"
    "- `nodes`, `node_zones`, `allow_nodes`, `idempotent_methods` and "
    "`no_retry_methods` are\n"
    "  lists, with commas between. A long one takes several lines, each with "
    "the key.\n"
    "- What is taken but is hardly meant, such as retries after `INTERNAL`, is "
    "a warning:\n"
    "  `--check` shows it, and at start it is a line of the log "
    "(`config_warning`).\n"
    "\n";

static const char markdown_values[] =
    "## What wins\n"
    "\n"
    "From weak to strong:\n"
    "\n"
    "1. the defaults below,\n"
    "2. the file,\n"
    "3. the URL, `--listen ADDR` and `--admin ADDR`,\n"
    "4. `--set section.key=value`; of the same key twice, the last.\n"
    "\n"
    "The URL, `--listen` and `--set upstream.key=value` mean the section "
    "named\n"
    "`default`; without one, the only section of that kind; without any, a "
    "new one.\n"
    "`--set upstream.NAME.key=value` means a section of the file by name. A "
    "URL\n"
    "replaces type, address, nodes, target, all credentials, master_name and "
    "db of the file\n"
    "together, so that no password goes to a server it is not for. So does "
    "`--set\n"
    "upstream.url=...`.\n"
    "\n"
    "## Values\n"
    "\n"
    "| kind | written | meaning |\n"
    "| --- | --- | --- |\n"
    "| duration | `500us` `250ms` `1.5s` `1m` `2h` `1d` | always with a unit; "
    "`0` needs none; `infinite` where it is allowed |\n"
    "| size | `512` `64KiB` `8MiB` `1GiB` | bytes; `kB`, `MB` and `GB` are "
    "powers of 1000; `infinite` where it is allowed |\n"
    "| share | `20%` `0.2` | to a tenth of a percent |\n"
    "| yes or no | `yes` `no` | also `on`, `off`, `true`, `false` |\n"
    "| address | `127.0.0.1:6400` `[::1]:6400` `name:6400` "
    "`unix:/run/redial.sock` | to listen, `:6400` means every address |\n"
    "| URL | `redis://user:password@host:6379/0` | port 6379 and database 0 "
    "may be left out |\n"
    "| | `redis://:password@host` | a password without a user |\n"
    "| | `redis+unix:///run/redis.sock?db=0` | a Unix socket |\n"
    "| | `redis+cluster://user:password@host:6379,host:6379` | some nodes of a "
    "cluster |\n"
    "| | `redis+sentinel://user:password@host:26379,host/mymaster?db=0` | "
    "sentinels and the name of the primary; user and password are for the "
    "primary; `/mymaster/0` will do, and `sentinel://` |\n"
    "| | `...&sentinel_username=u&sentinel_password=p` | behind `?`: what the "
    "sentinels ask for |\n"
    "| | `grpc://host:50051,host:50051` | all servers of gRPC, each with its "
    "port |\n"
    "| | `grpc+unix:///run/calls.sock` | a Unix socket |\n"
    "| list | `a:6379, b, [::1]:6379` | with commas or spaces between |\n"
    "| codes | `UNAVAILABLE, 10` | status codes of gRPC, by name or number |\n"
    "| methods | `/pkg.Svc/Get*, /pkg.Svc/List*` | `*` stands for any "
    "characters but `/` |\n"
    "\n"
    "In a URL, `@`, `:`, `/`, `?`, `&` and `%` inside of a user name or "
    "password are written\n"
    "`%40`, `%3A`, `%2F`, `%3F`, `%26` and `%25`. TLS to the server is not "
    "built yet: `rediss://`,\n"
    "`rediss+cluster://`, `rediss+sentinel://` and `grpcs://` are refused.\n"
    "\n"
    "An address that other machines can reach needs `bind_public = yes` "
    "besides: redial\n"
    "is made to be spoken to from its own machine.\n";

/* Text in a table: "|" would end the cell. Angle brackets would be HTML. */
static void put_cell(const struct writer *w, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '|') {
            doc_put(w, "\\|");
        } else if (*text == '<') {
            doc_put(w, "&lt;");
        } else {
            w->write(w->context, text, 1);
        }
    }
}

static const char markdown_end[] =
    "\n"
    "## Choosing a level of replay\n"
    "\n"
    "A request that was never sent, or that the server refused to execute, is "
    "sent again at\n"
    "every level. `replay` is about the others: the connection broke after a "
    "request was sent\n"
    "and before its reply came, so nobody knows whether it was executed.\n"
    "\n"
    "- Below the level, the client gets `-UNKNOWNOUTCOME` and decides. Its "
    "connection stays open.\n"
    "- `idempotent` is the default. Its price: when another client wrote the "
    "same key between\n"
    "  the first and the second execution, that write is overwritten. The "
    "`deadline` bounds how\n"
    "  late a second execution can be. With `replay = read` no write is ever "
    "repeated.\n"
    "- `convergent` is for those who ignore the counts in replies. A repeated "
    "`DEL` or `ZREM` says\n"
    "  0 where the lost reply said 1: code such as \"`ZREM` returned 1, so "
    "the job is mine\" then\n"
    "  loses the job.\n"
    "- `all` repeats everything. Use it for single commands or keys where "
    "twice is better than\n"
    "  never: `replay.PUBLISH = all`, `replay.prefix.metrics: = all`.\n"
    "\n";

static const char markdown_grpc[] =
    "## Retries of gRPC\n"
    "\n"
    "Without any policy, a call is sent again only when it is known not to "
    "have "
    "run: it never left\n"
    "redial, or the server refused it unseen. What comes beyond that is the "
    "user's to say, in\n"
    "one of two ways:\n"
    "\n"
    "- `max_retry_attempts` and the keys behind it are one policy for all "
    "methods. Calls of it\n"
    "  that may have run are sent again only if `idempotent_methods` names "
    "them.\n"
    "- `service_config` names a file in the form that gRPC libraries read, "
    "with "
    "a\n"
    "  `retryPolicy` for single methods or services. It is its owner's "
    "statement that these\n"
    "  may be retried, also when a connection was lost in the middle.\n"
    "\n"
    "```json\n"
    "{\n"
    "  \"methodConfig\": [{\n"
    "    \"name\": [{ \"service\": \"shop.Catalog\" }],\n"
    "    \"timeout\": \"2s\",\n"
    "    \"retryPolicy\": {\n"
    "      \"maxAttempts\": 4,\n"
    "      \"initialBackoff\": \"0.1s\",\n"
    "      \"maxBackoff\": \"1s\",\n"
    "      \"backoffMultiplier\": 2,\n"
    "      \"retryableStatusCodes\": [\"UNAVAILABLE\"]\n"
    "    }\n"
    "  }, {\n"
    "    \"name\": [{ \"service\": \"shop.Orders\", \"method\": \"Charge\" "
    "}],\n"
    "    \"waitForReady\": false\n"
    "  }],\n"
    "  \"retryThrottling\": { \"maxTokens\": 100, \"tokenRatio\": 0.1 }\n"
    "}\n"
    "```\n"
    "\n"
    "For a method the entry that names it is used; without one, that of its "
    "service; without that,\n"
    "the one with the name `{}`. What this entry does not say comes from the "
    "keys: the retryPolicy\n"
    "as a whole, and waitForReady. Of timeouts and message limits the smallest "
    "counts.\n"
    "loadBalancingConfig, retryThrottling and connectionScaling win over their "
    "keys. `retries`,\n"
    "`max_retry_attempts = 0` and `no_retry_methods` switch off what any of "
    "them says. A\n"
    "hedgingPolicy is not supported yet: its methods have no retries. One "
    "mistake in the file,\n"
    "and redial does not start; `redial -c FILE --check` tells all of them.\n"
    "\n";

static const char markdown_examples[] =
    "## Examples\n"
    "\n"
    "Two servers, each with an address of its own:\n"
    "\n"
    "```ini\n"
    "[listener sessions]\n"
    "address = 127.0.0.1:6400\n"
    "upstream = sessions\n"
    "\n"
    "[listener cache]\n"
    "address = 127.0.0.1:6401\n"
    "upstream = cache\n"
    "\n"
    "[upstream sessions]\n"
    "address = sessions.internal:6379\n"
    "\n"
    "[upstream cache]\n"
    "address = cache.internal:6379\n"
    "deadline = 500ms\n"
    "replay = read\n"
    "```\n"
    "\n"
    "A cluster; clients see one server that holds all keys:\n"
    "\n"
    "```ini\n"
    "[upstream default]\n"
    "type = cluster\n"
    "nodes = 10.0.0.1:6379, 10.0.0.2:6379, 10.0.0.3:6379\n"
    "password = ${file:/run/secrets/redis}\n"
    "read_from = prefer_replica\n"
    "```\n"
    "\n"
    "A primary that sentinels watch:\n"
    "\n"
    "```ini\n"
    "[upstream default]\n"
    "type = sentinel\n"
    "nodes = sentinel-1.internal, sentinel-2.internal, sentinel-3.internal\n"
    "master_name = mymaster\n"
    "password = ${file:/run/secrets/redis}\n"
    "sentinel_password = ${file:/run/secrets/sentinel}\n"
    "allow_nodes = 10.0.0.0/8\n"
    "```\n"
    "\n"
    "The application knows no password; redial does:\n"
    "\n"
    "```ini\n"
    "[listener default]\n"
    "address = unix:/run/redial/redis.sock\n"
    "unix_mode = 0660\n"
    "\n"
    "[upstream default]\n"
    "address = redis.internal:6379\n"
    "username = app\n"
    "password = ${file:/run/secrets/redis}\n"
    "```\n"
    "\n"
    "gRPC beside Redis, on one port:\n"
    "\n"
    "```ini\n"
    "[listener default]\n"
    "address = 127.0.0.1:6400\n"
    "protocol = auto\n"
    "upstream = cache\n"
    "grpc_upstream = shop\n"
    "\n"
    "[upstream cache]\n"
    "url = redis://redis.internal\n"
    "\n"
    "[upstream shop]\n"
    "type = grpc\n"
    "nodes = shop-1.internal:50051, shop-2.internal:50051\n"
    "lb = round_robin\n"
    "service_config = /etc/redial/shop.json\n"
    "idempotent_methods = /shop.Catalog/*\n"
    "keepalive_time = 30s\n"
    "```\n"
    "\n"
    "Probes and metrics from outside of the machine or container:\n"
    "\n"
    "```ini\n"
    "[admin]\n"
    "address = :6401\n"
    "bind_public = yes\n"
    "```\n";

static void markdown_option(const struct writer *w, const struct option *o)
{
    char type[DOC_TEXT_MAX];
    char meaning[DOC_TEXT_MAX];
    doc_type(o, type);
    doc_meaning(o, meaning);
    doc_putf(w, "| `%s` | ", o->key);
    if (o->type == OPTION_SET) {
        doc_put(w, "all");
    } else if (o->fallback != NULL) {
        doc_putf(w, "`%s`", o->fallback);
    }
    doc_put(w, " | ");
    put_cell(w, type);
    doc_put(w, " | ");
    put_cell(w, meaning);
    if (o->alias != NULL) {
        doc_putf(w, " (%s)", o->alias);
    }
    doc_put(w, " |\n");
}

static void markdown_words(const struct writer *w, const struct option *o)
{
    doc_putf(w, "\n| `%s` | |\n| --- | --- |\n", o->key);
    for (const struct word *word = o->words; word->text != NULL; word++) {
        doc_putf(w, "| `%s` | ", word->text);
        put_cell(w, word->help);
        doc_put(w, " |\n");
    }
}

static void markdown_group(const struct writer *w,
                           enum section_kind kind,
                           unsigned group)
{
    doc_put(w, "\n| key | default | value | meaning |\n"
               "| --- | --- | --- | --- |\n");
    for (size_t i = 0; i < option_count(); i++) {
        if (doc_is_in(option_get(i), kind, group)) {
            markdown_option(w, option_get(i));
        }
    }
    for (size_t i = 0; i < option_count(); i++) {
        if (doc_is_in(option_get(i), kind, group) &&
            doc_has_words(option_get(i))) {
            markdown_words(w, option_get(i));
        }
    }
}

void config_markdown(config_writer *write, void *context)
{
    struct writer w = { .write = write, .context = context };
    doc_put(&w, markdown_start);
    doc_put(&w, markdown_values);
    for (unsigned kind = 0; kind < SECTION_COUNT; kind++) {
        doc_put(&w, "\n## `");
        doc_put_title(&w, (enum section_kind)kind);
        doc_put(&w, "`\n\n");
        doc_put_wrapped(&w, "", section_get((enum section_kind)kind)->help);
        markdown_group(&w, (enum section_kind)kind, GROUP_FIRST);
        if (doc_has_group((enum section_kind)kind, GROUP_GRPC)) {
            doc_putf(&w, "\n### %s for gRPC\n\n",
                     kind == SECTION_LISTENER ? "Listeners" : "Upstreams");
            doc_put_wrapped(&w, "", doc_grpc_intro((enum section_kind)kind));
            markdown_group(&w, (enum section_kind)kind, GROUP_GRPC);
        }
    }
    doc_put(&w, markdown_end);
    doc_put(&w, markdown_grpc);
    doc_put(&w, markdown_examples);
}
