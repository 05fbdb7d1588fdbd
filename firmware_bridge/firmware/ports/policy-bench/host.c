/* The policy alone in a process of this machine; the files are those of bare.c. */
#define _XOPEN_SOURCE 700

#include <stdio.h>
#include <string.h>
#include <ucontext.h>

#include "bench_file.h"

#define STACK (1u << 20) /* bytes */
#define PAINT 0xA5

static int8_t observation[SEA_POLICY_MAX_OBS];
static int32_t logits[2u * SEA_POLICY_MAX_SLOTS];

/* One decision. callgrind counts what happens inside (--toggle-collect), a call and a jump of it not the policy's. */
void sea_bench_infer(void);
__attribute__((noinline)) void sea_bench_infer(void)
{
    SEA_POLICY.infer(observation, logits);
}

static void nothing(void)
{
}

/* How far down a function comes on a painted stack. */
static uint32_t depth(void (*function)(void))
{
    static unsigned char stack[STACK];
    static ucontext_t there;
    static ucontext_t here;
    memset(stack, PAINT, sizeof stack);
    if (getcontext(&there) != 0) {
        return 0;
    }
    there.uc_stack.ss_sp = stack;
    there.uc_stack.ss_size = sizeof stack;
    there.uc_link = &here;
    makecontext(&there, function, 0);
    (void)swapcontext(&here, &there);
    uint32_t low = 0;
    while (low < STACK && stack[low] == PAINT) {
        low++;
    }
    return STACK - low;
}

int main(int argc, char **argv)
{
    FILE *in = fopen("bench.in", "rb");
    FILE *out = fopen("bench.out", "wb");
    FILE *cost_file = fopen("bench.cost", "wb");
    bench_head_t head;
    if (in == NULL || out == NULL || cost_file == NULL || fread(&head, sizeof head, 1, in) != 1) {
        return BENCH_EXIT_FILE;
    }
    if (head.n_obs != SEA_POLICY.n_obs || SEA_POLICY.n_obs > SEA_POLICY_MAX_OBS ||
        SEA_POLICY.slots > SEA_POLICY_MAX_SLOTS) {
        return BENCH_EXIT_SHAPE;
    }
    (void)argv;
    const uint32_t stack = argc > 1 ? 0 : depth(sea_bench_infer) - depth(nothing); /* an argument: under valgrind */
    const bench_cost_t cost = {SEA_POLICY.n_obs, SEA_POLICY.slots, stack};
    if (fwrite(&cost, sizeof cost, 1, cost_file) != 1) {
        return BENCH_EXIT_FILE;
    }
    for (uint32_t i = 0; i < head.count; i++) {
        if (i == 0 || (head.reset_every != 0 && i % head.reset_every == 0)) {
            SEA_POLICY.reset();
        }
        if (fread(observation, 1, SEA_POLICY.n_obs, in) != SEA_POLICY.n_obs) {
            return BENCH_EXIT_FILE;
        }
        sea_bench_infer();
        if (fwrite(logits, 8, SEA_POLICY.slots, out) != SEA_POLICY.slots) {
            return BENCH_EXIT_FILE;
        }
    }
    return fclose(out) == 0 && fclose(cost_file) == 0 ? 0 : BENCH_EXIT_FILE;
}
