/* Between the parts of the core: sea_core.c (clock, bytes, a person), sea_state.c (states, seal), sea_pulses.c (slots and
 * pulses), sea_orders.c (what the host says), sea_session.c (handshake, arming), sea_observe.c (the board decides) and
 * sea_replies.c (what the board says). */
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

/* The one way to stimulate, for an order and for a decision of the board's own: null where it is refused (why). */
const sea_decision_t *sea_hold(sea_core_t *core, const sea_msg_set_stim_t *order, sea_verdict_t *why);

/* `sea_core_tick` within a call. */
sea_status_t sea_live(sea_core_t *core, uint64_t now_us);

/* The clock as bytes or a decision come: gives what was due before. */
sea_status_t sea_arrive(sea_core_t *core, uint64_t now_us);

void sea_on_observe(sea_core_t *core, const sea_frame_t *frame);

/* A new session: what was observed and answered before belongs to nobody. */
void sea_forget_observation(sea_core_t *core);

void sea_on_hello(sea_core_t *core, const sea_frame_t *frame);
void sea_on_arm(sea_core_t *core, const sea_frame_t *frame);

/* ---- sea_state.c */

static inline void sea_count(uint32_t *counter)
{
    if (*counter != UINT32_MAX) {
        (*counter)++;
    }
}

/* Begins and ends whatever may change the core's memory. Between the two ends and the next beginning nothing may: if
 * something has, the board is in SAFE_OFF from here on. */
void sea_open(sea_core_t *core, uint64_t now_us);
void sea_seal(sea_core_t *core);
uint32_t sea_key_sum(const uint8_t *device_key);

/* Memory is not what it was: SAFE_OFF, until the board is started anew. */
void sea_corrupted(sea_core_t *core);

/* Tries an event; false: the state refuses it, and nothing has changed. */
bool sea_event(sea_core_t *core, uint8_t event, uint8_t cause);

/* The loop is not to be trusted: FALLBACK, if one is under way. */
void sea_degrade(sea_core_t *core, uint32_t fault, uint8_t cause);

/* Counts one more in a row, no further than the limit; true: the limit is reached. */
bool sea_strike(uint8_t *in_a_row, uint32_t limit);

/* The output or the memory failed: SAFE_OFF. */
void sea_fault(sea_core_t *core, uint32_t bit, uint8_t cause);

/* The queued decision takes over when its start has come. */
void sea_promote(sea_core_t *core);

/* ---- sea_pulses.c */

/* First slot with a pulse that has not been dealt with; `slots` when there is none. */
uint16_t sea_next_pulse(const sea_decision_t *decision);

/* SEA_NEVER where there is no such slot. */
uint64_t sea_slot_start(const sea_decision_t *decision, uint16_t slot);
uint64_t sea_lease_end(const sea_decision_t *decision);

/* The pulses that were left in a decision are not given any more. */
void sea_count_lapsed(sea_core_t *core, sea_decision_t *decision);

/* Whether FALLBACK gives a fixed setting. */
bool sea_has_fixed(const sea_core_t *core);

/* Where the set point is to go: masks only gate pulses. */
uint32_t sea_target_uA(const sea_core_t *core);

/* Deals with the next pulse of the decision under way, due at a time; with the next one of the fixed setting. */
void sea_give_slot(sea_core_t *core, uint64_t due_us);
void sea_give_fixed(sea_core_t *core);

/* Acts on a whole frame. */
void sea_take(sea_core_t *core, const sea_frame_t *frame);

#endif
