/* Doubly linked lists through nodes that live inside their owners. */
#ifndef CORE_LIST_H
#define CORE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list_node {
    struct list_node *next, *prev;
};

/* The struct around a member. */
#define CONTAINER_OF(pointer, type, member) \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

static inline void list_init(struct list_node *head)
{
    head->next = head;
    head->prev = head;
}

static inline bool list_empty(const struct list_node *head)
{
    return head->next == head;
}

static inline void list_insert_before(struct list_node *at,
                                      struct list_node *node)
{
    node->prev = at->prev;
    node->next = at;
    at->prev->next = node;
    at->prev = node;
}

static inline void list_append(struct list_node *head, struct list_node *node)
{
    list_insert_before(head, node);
}

static inline void list_remove(struct list_node *node)
{
    /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): it is in a list */
    node->prev->next = node->next;
    node->next->prev = node->prev;
    node->next = NULL;
    node->prev = NULL;
}

/* NOLINTBEGIN(bugprone-macro-parentheses): node is declared here */
#define LIST_FOR_EACH(node, head)                               \
    for (struct list_node *node = (head)->next; node != (head); \
         node = node->next)
/* NOLINTEND(bugprone-macro-parentheses) */

#endif
