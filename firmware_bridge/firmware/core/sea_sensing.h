/* Whether an observation is fit to act on. The one judgement of sensing: the board calls it on OBSERVE, and the host, where
 * it decides, calls this same function (firmware_bridge/sensing.py) and sends what it says with SET_STIM. */
#ifndef SEA_SENSING_H
#define SEA_SENSING_H

#include "sea_codes.h"
#include "sea_limits.h"
#include "sea_messages.h"

/* Heads as they stand in OBSERVE (SEA_OBSERVE_HEAD_SIZE bytes each); previous is null where there is none. Returns SENSING
 * bits, 0: fit. */
uint8_t sea_sensing_judge(const uint8_t *head, const uint8_t *previous);

#endif
