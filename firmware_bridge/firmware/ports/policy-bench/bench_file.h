/* What goes in and comes out of the policy bench, all little-endian:
 *
 *     bench.in    head {count, n_obs, reset_every, counted} u32, then count observations of n_obs int8
 *     bench.out   for each observation 2 * slots logits, int32
 *     bench.cost  {n_obs, slots, stack bytes} u32, then for each of the first `counted` observations the ticks of its
 *                 decision and those of calling nothing, u64 (none on a host)
 */
#ifndef BENCH_FILE_H
#define BENCH_FILE_H

#include "sea_policy.h"

typedef struct {
    uint32_t count;
    uint32_t n_obs;
    uint32_t reset_every; /* the recurrent state is cleared before each of these; 0: only before the first */
    uint32_t counted;
} bench_head_t;

typedef struct {
    uint32_t n_obs;
    uint32_t slots;
    uint32_t stack_bytes;
} bench_cost_t;

#define BENCH_EXIT_FILE 2  /* a file cannot be read or written */
#define BENCH_EXIT_SHAPE 3 /* the observations are not of this policy's size */

#endif
