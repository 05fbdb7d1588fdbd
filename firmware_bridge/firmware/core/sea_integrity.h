/* Whether memory still holds what it held: a sum over the code and constants of an image, a little at a time, and one over
 * what the core remembers between two calls. */
#ifndef SEA_INTEGRITY_H
#define SEA_INTEGRITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A sum of 32 bits, continued from a running value. A change that lies within one aligned word of the bytes always shows;
 * any other escapes once in 2^32. Whole words but for the last piece. */
uint32_t sea_sum(uint32_t sum, const uint8_t *bytes, size_t size);

/* One region that must not change, and how far its present turn is. */
typedef struct {
    const uint8_t *start;
    size_t size;
    size_t at;
    uint32_t sum;
    uint32_t right; /* as it was at the start */
} sea_patrol_t;

void sea_patrol_start(sea_patrol_t *patrol, const uint8_t *start, size_t size);

/* Looks at the next bytes (a multiple of 4); false: a turn has ended, and its sum is another. */
bool sea_patrol(sea_patrol_t *patrol, size_t bytes);

#endif
