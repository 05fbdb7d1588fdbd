#define _XOPEN_SOURCE 700

#include "electrode.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PATIENCE_MS 5000 /* for a reader that steps the clock and so must read on */
#define IMPATIENCE_MS 20 /* for a mere onlooker */

bool electrode_open(electrode_t *electrode, const char *log_path, int fd)
{
    *electrode = (electrode_t){.log_fd = -1};
    if (log_path != NULL) {
        electrode->log_fd = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (electrode->log_fd < 0) {
            return false;
        }
    }
    return fd > 0 ? channel_adopt(&electrode->channel, fd) : channel_open(&electrode->channel);
}

void electrode_log(electrode_t *electrode, const char *format, ...)
{
    char line[256];
    if (electrode->log_fd < 0) {
        return;
    }
    va_list arguments;
    va_start(arguments, format);
    const int size = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (size < 0 || (size_t)size >= sizeof line || write(electrode->log_fd, line, (size_t)size) != size) {
        perror("sea-board-host: the electrode log cannot be written, stopping");
        exit(1);
    }
}

bool electrode_send(electrode_t *electrode, const uint8_t *bytes, size_t size)
{
    const int wait_ms = electrode->patient ? PATIENCE_MS : electrode->missed ? 0 : IMPATIENCE_MS;
    if (electrode->channel.attached && !channel_write(&electrode->channel, bytes, size, wait_ms)) {
        electrode->missed = true;
        return false;
    }
    return true;
}

void electrode_log_pulse(electrode_t *electrode, const sea_pulse_t *pulse, const sea_given_t *given)
{
    electrode_log(electrode,
                  "{\"t_us\": %" PRIu64 ", \"pulse\": {\"uA\": [%" PRId32 ", %" PRId32 "], \"us\": [%u, %u], "
                  "\"residual_pC\": %" PRId32 ", \"peak_uV\": %" PRIu32 "}}\n",
                  pulse->start_us, pulse->amplitude_uA[0], pulse->amplitude_uA[1], (unsigned)pulse->width_us[0],
                  (unsigned)pulse->width_us[1], given->residual_pC, given->peak_uV);
}
