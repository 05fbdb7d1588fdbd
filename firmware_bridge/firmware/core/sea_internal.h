/* Between the parts of the core: sea_core.c (clock, states, pulses), sea_orders.c (what the host says), sea_session.c
 * (handshake, arming) and sea_replies.c (what the board says). */
#ifndef SEA_INTERNAL_H
#define SEA_INTERNAL_H

#include "sea_core.h"

/* Sends one frame to the host. */
void sea_send(sea_core_t *core, uint8_t type, const uint8_t *payload, size_t size);

/* STATUS, asked for (sequence) or not (0). */
void sea_send_status(sea_core_t *core, uint32_t of_sequence);

void sea_send_nack(sea_core_t *core, uint32_t of_sequence, uint8_t of_type, const sea_verdict_t *why);

/* NACK, counted as a refused order. */
void sea_refuse(sea_core_t *core, const sea_frame_t *frame, const sea_verdict_t *why);
void sea_refuse_code(sea_core_t *core, const sea_frame_t *frame, uint8_t code, uint64_t value);

/* ACK with the values applied; decision may be null. */
void sea_accept(sea_core_t *core, const sea_frame_t *frame, uint8_t code, const sea_decision_t *decision);

void sea_on_hello(sea_core_t *core, const sea_frame_t *frame);
void sea_on_arm(sea_core_t *core, const sea_frame_t *frame);

/* Tries an event; false: the state refuses it, and nothing has changed. */
bool sea_event(sea_core_t *core, uint8_t event, uint8_t cause);

/* The queued decision takes over when its start has come. */
void sea_promote(sea_core_t *core);

/* Acts on a whole frame. */
void sea_take(sea_core_t *core, const sea_frame_t *frame);

#endif
