/* The names of a service config: each may be there once. */
#ifndef CONFIG_SERVICE_NAMES_H
#define CONFIG_SERVICE_NAMES_H

#include <stdbool.h>

#include "config/service_config.h"

/* Returns false when a name is there twice, or without memory; the problems are
 * told then. */
bool service_names_check(const struct service_config *c,
                         const struct service_config_rules *rules);

#endif
