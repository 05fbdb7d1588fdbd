#define _XOPEN_SOURCE 700

#include "watchdog.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define OPTION "--reset" /* the last of the arguments after a reset */

static atomic_uint fed;
static clockid_t loop_clock; /* time that the main loop has run */
static const reset_t *left_behind;
static char **arguments;
static char text[64];

bool reset_read(reset_t *reset, const char *word)
{
    int stepped = 0;
    if (word == NULL ||
        sscanf(word, "%d,%d,%u,%d", &reset->link_fd, &reset->electrode_fd, &reset->resets, &stepped) != 4) {
        return false;
    }
    reset->stepped = stepped != 0;
    return reset->link_fd > 0 && reset->electrode_fd > 0;
}

static uint64_t read_us(clockid_t clock)
{
    struct timespec now = {0};
    (void)clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

static void bite(void)
{
    (void)fcntl(left_behind->link_fd, F_SETFD, 0);
    (void)fcntl(left_behind->electrode_fd, F_SETFD, 0);
    (void)snprintf(text, sizeof text, "%d,%d,%u,%d", left_behind->link_fd, left_behind->electrode_fd,
                   left_behind->resets + 1u, left_behind->stepped);
    (void)execv("/proc/self/exe", arguments);
    abort(); /* a board that is gone gives no pulse either */
}

static void *watch(void *nothing)
{
    (void)nothing;
    unsigned seen = atomic_load(&fed);
    uint64_t since_us = read_us(CLOCK_MONOTONIC);
    uint64_t ran_us = read_us(loop_clock);
    bool hangs = false;
    while (!hangs) {
        const struct timespec pause = {.tv_nsec = WATCHDOG_LOOK_US * 1000};
        (void)nanosleep(&pause, NULL);
        const unsigned now = atomic_load(&fed);
        if (now != seen) {
            seen = now;
            since_us = read_us(CLOCK_MONOTONIC);
            ran_us = read_us(loop_clock);
        } else {
            hangs = read_us(CLOCK_MONOTONIC) - since_us > WATCHDOG_US && read_us(loop_clock) - ran_us > WATCHDOG_RAN_US;
        }
    }
    bite();
    return NULL;
}

bool watchdog_start(int argc, char **argv, const reset_t *left)
{
    pthread_t thread;
    size_t count = 0;
    arguments = calloc((size_t)argc + 3u, sizeof *arguments);
    if (arguments == NULL || pthread_getcpuclockid(pthread_self(), &loop_clock) != 0) {
        return false;
    }
    for (int i = 0; i < argc && strcmp(argv[i], OPTION) != 0; i++) {
        arguments[count++] = argv[i];
    }
    static char option[] = OPTION;
    arguments[count++] = option;
    arguments[count] = text;
    left_behind = left;
    return pthread_create(&thread, NULL, watch, NULL) == 0 && pthread_detach(thread) == 0;
}

void watchdog_feed(void)
{
    atomic_fetch_add(&fed, 1u);
}
