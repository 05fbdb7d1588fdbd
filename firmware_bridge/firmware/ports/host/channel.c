#define _XOPEN_SOURCE 700

#include "channel.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

/* The line discipline must hand bytes through as they are; opening once also makes the master see a hang-up. */
static bool make_raw(const char *path)
{
    struct termios settings;
    const int fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    bool done = tcgetattr(fd, &settings) == 0;
    if (done) {
        settings.c_iflag = 0;
        settings.c_oflag = 0;
        settings.c_lflag = 0;
        settings.c_cflag = (settings.c_cflag & ~(tcflag_t)(CSIZE | PARENB)) | CS8;
        settings.c_cc[VMIN] = 1;
        settings.c_cc[VTIME] = 0;
        done = tcsetattr(fd, TCSANOW, &settings) == 0;
    }
    close(fd);
    return done;
}

bool channel_adopt(channel_t *channel, int fd)
{
    const char *path = fd < 0 ? NULL : ptsname(fd);
    channel->attached = false;
    channel->fd = fd;
    if (path == NULL || strlen(path) >= sizeof channel->path) {
        return false;
    }
    strcpy(channel->path, path);
    return fcntl(fd, F_SETFL, O_NONBLOCK) == 0 && fcntl(fd, F_SETFD, FD_CLOEXEC) == 0;
}

bool channel_open(channel_t *channel)
{
    const int fd = posix_openpt(O_RDWR | O_NOCTTY);
    return fd >= 0 && grantpt(fd) == 0 && unlockpt(fd) == 0 && channel_adopt(channel, fd) && make_raw(channel->path);
}

size_t channel_read(channel_t *channel, uint8_t *bytes, size_t size)
{
    const ssize_t got = read(channel->fd, bytes, size);
    if (got > 0) {
        channel->attached = true;
        return (size_t)got;
    }
    /* Linux says EIO, others end of file, when nobody holds the other end. */
    channel->attached = got < 0 && (errno == EAGAIN || errno == EINTR);
    return 0;
}

bool channel_write(channel_t *channel, const uint8_t *bytes, size_t size, int wait_ms)
{
    while (size > 0) {
        const ssize_t put = channel->attached ? write(channel->fd, bytes, size) : -1;
        if (put > 0) {
            bytes += put;
            size -= (size_t)put;
            continue;
        }
        struct pollfd reader = {.fd = channel->fd, .events = POLLOUT};
        if (!channel->attached || wait_ms <= 0 || poll(&reader, 1, wait_ms) <= 0 || (reader.revents & POLLHUP) != 0) {
            return false;
        }
    }
    return true;
}
