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

bool electrode_open(electrode_t *electrode, const char *log_path)
{
    *electrode = (electrode_t){.log_fd = -1, .grounded = true};
    if (log_path != NULL) {
        electrode->log_fd = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (electrode->log_fd < 0) {
            return false;
        }
    }
    return channel_open(&electrode->channel);
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

void electrode_send(electrode_t *electrode, uint8_t type, uint64_t time_us, const uint8_t *payload, size_t size)
{
    uint8_t out[SEA_FRAME_MAX];
    const sea_frame_t frame = {
        .version = SEA_PROTOCOL,
        .type = type,
        .sequence = ++electrode->sequence,
        .time_us = time_us,
        .payload = payload,
        .size = size,
    };
    const size_t length = sea_frame_encode(out, &frame);
    const int wait_ms = electrode->patient ? PATIENCE_MS : electrode->lost > 0 ? 0 : IMPATIENCE_MS;
    if (electrode->channel.attached && !channel_write(&electrode->channel, out, length, wait_ms)) {
        electrode->lost += type == SEA_PULSE;
    }
}

bool electrode_stimulate(void *ctx, const sea_pulse_t *pulse, int32_t *residual_pC)
{
    electrode_t *electrode = ctx;
    if (electrode->fault == SEA_ELECTRODE_FAULT_DEAD) {
        return false;
    }
    /* what the electrode measures, not what the core believes */
    const int32_t residual = pulse->amplitude_uA[0] * pulse->width_us[0] + pulse->amplitude_uA[1] * pulse->width_us[1] +
                             (electrode->fault == SEA_ELECTRODE_FAULT_UNBALANCED ? electrode->fault_residual_pC : 0);
    const sea_msg_pulse_t message = {
        .amplitude_1_uA = pulse->amplitude_uA[0],
        .width_1_us = pulse->width_us[0],
        .amplitude_2_uA = pulse->amplitude_uA[1],
        .width_2_us = pulse->width_us[1],
        .residual_pC = residual,
    };
    uint8_t payload[SEA_PULSE_SIZE];
    sea_pack_pulse(payload, &message);
    electrode_log(electrode,
                  "{\"t_us\": %" PRIu64 ", \"pulse\": {\"uA\": [%" PRId32 ", %" PRId32 "], \"us\": [%u, %u], "
                  "\"residual_pC\": %" PRId32 "}}\n",
                  pulse->start_us, pulse->amplitude_uA[0], pulse->amplitude_uA[1], (unsigned)pulse->width_us[0],
                  (unsigned)pulse->width_us[1], residual);
    electrode_send(electrode, SEA_PULSE, pulse->start_us, payload, sizeof payload);
    *residual_pC = residual;
    return true;
}

void electrode_ground(void *ctx, bool grounded)
{
    ((electrode_t *)ctx)->grounded = grounded;
}
