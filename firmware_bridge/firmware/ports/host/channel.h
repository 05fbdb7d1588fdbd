/* One end of a pty: the board holds the master, whoever opens the path holds the other end. */
#ifndef CHANNEL_H
#define CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    int fd;
    char path[64];
    bool attached; /* somebody has the path open */
} channel_t;

bool channel_open(channel_t *channel);

/* Takes a pty over that was open before a reset. */
bool channel_adopt(channel_t *channel, int fd);

/* Bytes read; 0: nothing now. Sets `attached`. */
size_t channel_read(channel_t *channel, uint8_t *bytes, size_t size);

/* Writes all bytes, waiting at most so long for the reader; false: they were dropped, all or in part. */
bool channel_write(channel_t *channel, const uint8_t *bytes, size_t size, int wait_ms);

#endif
