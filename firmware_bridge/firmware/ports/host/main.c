/* Port "host": the board as a process on two ptys, the link and the electrode channel.
 *
 * Its clock starts with the first use of either channel. It runs in real time, unless the holder of the electrode
 * channel steps it; when that holder goes away, however it goes, the clock runs on in real time, so that a killed host
 * never freezes a lease.
 */
#define _XOPEN_SOURCE 700

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "electrode.h"
#include "memory.h"
#include "options.h"
#include "watchdog.h"

#define PROBE_US 20000     /* how soon a channel that somebody opened is noticed */
#define IDLE_US 1000000    /* nothing to do: look again after so long */
#define ORPHAN_US 3000000  /* a board whose parent has gone lives through its lease, no longer than this */

typedef struct {
    sea_core_t core;
    channel_t link;
    electrode_t electrode;
    bench_t bench;
    memory_t memory;
    uint64_t memory_us; /* when it is looked at next, in device time */
    reset_t left; /* for the board after a reset */
    bool realtime;  /* the clock cannot be stepped */
    bool stepped;   /* the clock stands until it is told to advance */
    bool running;   /* used at least once */
    uint64_t base_device_us; /* device time ... */
    uint64_t base_host_us;   /* ... at this time of the host's monotonic clock */
    uint8_t logged_state;
    uint64_t logged_lease_us;
} board_t;

static volatile sig_atomic_t asked_to_end = 0;

static void on_signal(int number)
{
    (void)number;
    asked_to_end = 1;
}

static uint64_t host_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

static uint64_t device_us(const board_t *board)
{
    return board->stepped || !board->running ? board->base_device_us
                                             : board->base_device_us + (host_us() - board->base_host_us);
}

/* Fixes the pair of times from which the clock goes on, stepped or free. */
static void set_clock(board_t *board, uint64_t now_us, bool stepped)
{
    board->base_device_us = now_us;
    board->base_host_us = host_us();
    board->stepped = stepped;
    board->running = true;
    board->electrode.patient = stepped;
    board->left.stepped = stepped;
}

/* State changes and leases go into the trace beside the pulses. */
static void trace(board_t *board)
{
    bench_trace(&board->bench);
    const uint8_t state = sea_core_state(&board->core);
    const uint64_t lease = sea_core_lease_until_us(&board->core);
    if (state != board->logged_state) {
        board->logged_state = state;
        electrode_log(&board->electrode, "{\"t_us\": %" PRIu64 ", \"state\": \"%s\", \"cause\": \"%s\"}\n",
                      board->core.now_us, sea_state_name(state), sea_cause_name(sea_core_cause(&board->core)));
    }
    if (lease != board->logged_lease_us) {
        board->logged_lease_us = lease;
        electrode_log(&board->electrode, "{\"t_us\": %" PRIu64 ", \"lease_until_us\": %" PRIu64 "}\n",
                      board->core.now_us, lease);
    }
}

static void tick(board_t *board, uint64_t now_us)
{
    watchdog_feed();
    (void)sea_core_tick(&board->core, now_us);
    trace(board);
}

static void look_at_memory(board_t *board)
{
    if (!memory_look(&board->memory)) {
        sea_core_corrupt(&board->core);
    }
    board->memory_us += MEMORY_PIECE_US;
}

static uint64_t next_us(const board_t *board)
{
    const uint64_t due = sea_core_next_us(&board->core);
    return due < board->memory_us ? due : board->memory_us;
}

/* Through everything due before a time, each thing at its own time: in real time, too, the virtual board itself is never
 * late; only this process can wake late, and a machine that stutters must not look like a stimulator that does. */
static void run_before(board_t *board, uint64_t to_us)
{
    uint64_t due;
    while ((due = next_us(board)) < to_us) {
        if (due == board->memory_us) {
            look_at_memory(board);
        }
        tick(board, due > board->core.now_us ? due : board->core.now_us);
    }
}

static uint64_t bench_now(void *ctx)
{
    return device_us(ctx);
}

static bool bench_set_stepped(void *ctx, bool wanted)
{
    board_t *board = ctx;
    const bool stepped = wanted && !board->realtime;
    if (stepped != board->stepped || !board->running) {
        set_clock(board, device_us(board), stepped);
    }
    return stepped;
}

static void bench_step(void *ctx, uint64_t to_us)
{
    board_t *board = ctx;
    if (to_us > board->base_device_us) {
        run_before(board, to_us);
        set_clock(board, to_us, true);
    }
}

#ifdef SEA_TEST_BUILD
static void bench_hang(void *ctx, bool deaf)
{
    (void)ctx;
    (void)deaf; /* signals, its only interrupts, are let in only while it sleeps */
    for (;;) {
    }
}

static void bench_flip(void *ctx, const void *at, unsigned bit)
{
    (void)ctx;
    memory_flip(at, bit);
}
#define HANG bench_hang
#define FLIP bench_flip
#else
#define HANG NULL
#define FLIP NULL
#endif

static bool bench_send(void *ctx, const uint8_t *bytes, size_t size)
{
    return electrode_send(&((board_t *)ctx)->electrode, bytes, size);
}

/* A virtual board's inference takes no device time on a clock that stands. */
static void decide(board_t *board)
{
    const int8_t *observation;
    while (sea_core_to_decide(&board->core, &observation)) {
        board->core.config->policy->infer(observation, sea_core_logits(&board->core));
        const uint64_t now_us = device_us(board);
        run_before(board, now_us);
        (void)sea_core_decided(&board->core, sea_core_logits(&board->core), now_us);
        trace(board);
    }
}

static void read_link(board_t *board)
{
    uint8_t bytes[4096];
    size_t size;
    while ((size = channel_read(&board->link, bytes, sizeof bytes)) > 0) {
        if (!board->running) {
            set_clock(board, 0, false);
        }
        const uint64_t now_us = device_us(board);
        run_before(board, now_us);
        (void)sea_core_feed(&board->core, bytes, size, now_us);
        trace(board);
        decide(board);
    }
}

static void read_bench(board_t *board)
{
    uint8_t bytes[4096];
    size_t size;
    channel_t *channel = &board->electrode.channel;
    const bool attached = channel->attached;
    while ((size = channel_read(channel, bytes, sizeof bytes)) > 0) {
        bench_feed(&board->bench, bytes, size);
        trace(board);
    }
    if (attached && !channel->attached) { /* its holder has gone: nobody may freeze the clock */
        bench_released(&board->bench);
        board->electrode.missed = false;
        if (board->stepped) {
            set_clock(board, board->base_device_us, false);
        }
    }
}

static void send_link(void *ctx, const uint8_t *bytes, size_t size)
{
    (void)channel_write(&((board_t *)ctx)->link, bytes, size, 0); /* a host that does not read loses what it misses */
}

static bool port_stimulate(void *ctx, const sea_pulse_t *pulse, sea_given_t *given)
{
    board_t *board = ctx;
    if (!bench_stimulate(&board->bench, pulse, given)) {
        return false;
    }
    electrode_log_pulse(&board->electrode, pulse, given);
    return true;
}

static void port_ground(void *ctx, bool grounded)
{
    bench_ground(&((board_t *)ctx)->bench, grounded);
}

/* How long the loop may sleep. */
static uint64_t sleep_us(const board_t *board)
{
    uint64_t wait = board->link.attached && board->electrode.channel.attached ? IDLE_US : PROBE_US;
    if (board->running && !board->stepped) {
        const uint64_t now = device_us(board);
        uint64_t due = next_us(board);
        if (board->bench.waiting && board->bench.waiting_us < due) {
            due = board->bench.waiting_us;
        }
        if (due <= now) {
            return 0;
        }
        wait = due - now < wait ? due - now : wait;
    }
    return wait;
}

/* Sleeps until something is due or somebody writes; true: the parent has gone. */
static bool wait_for_work(const board_t *board, int parent_fd, const sigset_t *while_asleep)
{
    fd_set readable;
    const uint64_t wait = sleep_us(board);
    const struct timespec limit = {.tv_sec = (time_t)(wait / 1000000u), .tv_nsec = (long)(wait % 1000000u) * 1000};
    int highest = -1;
    const int fds[] = {board->link.attached ? board->link.fd : -1,
                       board->electrode.channel.attached ? board->electrode.channel.fd : -1, parent_fd};
    FD_ZERO(&readable);
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++) {
        if (fds[i] >= 0) {
            FD_SET(fds[i], &readable);
            highest = fds[i] > highest ? fds[i] : highest;
        }
    }
    if (pselect(highest + 1, &readable, NULL, NULL, &limit, while_asleep) <= 0) {
        return false;
    }
    char byte;
    return parent_fd >= 0 && FD_ISSET(parent_fd, &readable) && read(parent_fd, &byte, 1) == 0;
}

static void run(board_t *board, int parent_fd, const sigset_t *while_asleep)
{
    bool orphan = false;
    uint64_t orphan_since_us = 0;
    while (!asked_to_end) {
        watchdog_feed();
        if (wait_for_work(board, orphan ? -1 : parent_fd, while_asleep)) {
            orphan = true;
            orphan_since_us = host_us();
        }
        if (!board->stepped && board->running) {
            run_before(board, device_us(board) + 1);
        }
        read_link(board);
        read_bench(board);
        if (board->bench.waiting && device_us(board) >= board->bench.waiting_us) {
            run_before(board, board->bench.waiting_us);
            bench_poll(&board->bench);
        }
        if (orphan && (sea_core_state(&board->core) != SEA_STATE_CLOSED_LOOP ||
                       host_us() - orphan_since_us > ORPHAN_US)) {
            return;
        }
    }
}

/* Signals are let in only while the loop sleeps, so that none is missed between the test and the sleep. */
static void catch_signals(sigset_t *while_asleep)
{
    const int ending[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = on_signal};
    sigset_t blocked;
    sigemptyset(&action.sa_mask);
    sigemptyset(&blocked);
    for (size_t i = 0; i < sizeof ending / sizeof ending[0]; i++) {
        sigaction(ending[i], &action, NULL);
        sigaddset(&blocked, ending[i]);
    }
    sigprocmask(SIG_BLOCK, &blocked, while_asleep);
    for (size_t i = 0; i < sizeof ending / sizeof ending[0]; i++) {
        sigdelset(while_asleep, ending[i]);
    }
    signal(SIGPIPE, SIG_IGN);
}

int main(int argc, char **argv)
{
    static board_t board; /* large, and the core asks for the caller's memory */
    options_t options;
    sigset_t while_asleep;
    if (!options_read(&options, argc, argv)) {
        return 2;
    }
    const int link_fd = options.reset.link_fd;
    if (!(link_fd > 0 ? channel_adopt(&board.link, link_fd) : channel_open(&board.link)) ||
        !electrode_open(&board.electrode, options.electrode_log, options.reset.electrode_fd)) {
        perror("sea-board-host: cannot open a pty or the electrode log");
        return 2;
    }
    board.link.attached = board.electrode.channel.attached = link_fd > 0; /* whoever held the other ends still does */
    const bench_port_t bench_port = {.ctx = &board,
                                     .send = bench_send,
                                     .now_us = bench_now,
                                     .set_stepped = bench_set_stepped,
                                     .step = bench_step,
                                     .hang = HANG,
                                     .flip = FLIP};
    bench_init(&board.bench, &bench_port, &board.core);
    const sea_port_t port = {.ctx = &board, .tx = send_link, .stimulate = port_stimulate, .ground = port_ground};
    if (sea_core_init(&board.core, &options.config, &port) != SEA_OK) {
        return 2;
    }
    board.realtime = options.realtime;
    board.logged_state = SEA_STATES;
    board.left = (reset_t){.link_fd = board.link.fd,
                           .electrode_fd = board.electrode.channel.fd,
                           .resets = options.reset.resets};
    memory_start(&board.memory);
    tick(&board, 0);
    catch_signals(&while_asleep); /* before there is another thread to take them */
    if (!watchdog_start(argc, argv, &board.left)) {
        perror("sea-board-host: cannot start the watchdog");
        return 2;
    }
    if (!registry_add(options.registry, board.link.path, board.electrode.channel.path)) {
        perror("sea-board-host: cannot write the registry of running boards");
        return 2;
    }
    if (link_fd > 0) {
        board.bench.stepped = options.reset.stepped; /* whoever held the clock still holds it */
        set_clock(&board, 0, options.reset.stepped);
    } else {
        printf("%s\nelectrode %s\n", board.link.path, board.electrode.channel.path);
        fflush(stdout);
    }
    run(&board, options.with_parent ? STDIN_FILENO : -1, &while_asleep);
    registry_remove(options.registry);
    electrode_log(&board.electrode, "{\"t_us\": %" PRIu64 ", \"state\": \"OFF\", \"cause\": \"%s\"}\n",
                  board.core.now_us, asked_to_end ? "SIGNAL" : "PARENT_GONE");
    return 0;
}
