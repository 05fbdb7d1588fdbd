/* Random frames, noise and time steps against the core; judge.h watches every pulse.
 *
 * usage: fuzz SEED ROUNDS   prints what happened; exit code 1 at the first pulse outside the envelope. */
#include "host.h"

int main(int argc, char **argv)
{
    world_t *w = &world;
    if (argc != 3) {
        return 2;
    }
    w->choices.random = strtoull(argv[1], NULL, 10) * 2654435769u + 88172645463325252u;
    const unsigned long rounds = strtoul(argv[2], NULL, 10);
    for (unsigned long i = 0; i < rounds; i++) {
        if (i % 5000 == 0) { /* another board */
            power_on(w, i == 0 ? 0 : draw(w, VARIANTS));
        }
        world_step(w);
    }
    printf("pulses %" PRIu64 " acks %" PRIu64 " nacks %" PRIu64 " stops %" PRIu64 " visits", w->judge.pulses, w->acks, w->nacks,
           w->stops);
    for (size_t i = 0; i < 6; i++) {
        printf(" %" PRIu64, w->visits[i]);
    }
    printf(" decisions %" PRIu64 " not-finite %" PRIu64 " hostile %" PRIu64 " shadowed %" PRIu64 "\n", w->decisions, w->not_finite, w->hostiles,
           w->shadowed);
    return 0;
}
