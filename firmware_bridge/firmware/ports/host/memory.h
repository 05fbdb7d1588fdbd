/* The host board's patrol over its own program: code, weights and constant tables as they were loaded. */
#ifndef MEMORY_H
#define MEMORY_H

#include "sea_integrity.h"

#define MEMORY_PIECE_US 20000u /* of device time: a piece of each region */
#define MEMORY_PIECES 16u      /* a turn; a flipped bit is found at the latest when the next one ends: 0.64 s */
#define MEMORY_REGIONS 8u

typedef struct {
    sea_patrol_t regions[MEMORY_REGIONS];
    size_t count;
} memory_t;

/* Sums up every part of this program that nobody may write to. */
void memory_start(memory_t *memory);

/* The next piece; false: something has changed. */
bool memory_look(memory_t *memory);

#ifdef SEA_TEST_BUILD
/* Flips a bit of a constant. */
void memory_flip(const void *at, unsigned bit);
#endif

#endif
