/* What must hold between values. */
#ifndef CONFIG_CHECK_H
#define CONFIG_CHECK_H

#include "config/config.h"
#include "config/draft.h"

/* The type of an upstream whose type or url has a problem. What depends on the
 * type is not checked then: it would only follow from that problem. */
static const enum upstream_type type_unknown = (enum upstream_type)31;

/* Report everything that does not fit together. */
void check_config(const struct config *c, const struct draft *d);

#endif
