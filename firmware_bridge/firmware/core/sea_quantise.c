#include "sea_policy.h"

void sea_policy_quantise(const sea_policy_t *policy, const int32_t *obs_q16, int8_t *out)
{
    for (uint32_t i = 0; i < policy->n_obs; i++) {
        int32_t distance = sea_saturate32((int64_t)obs_q16[i] - policy->q_centre);
        int32_t steps = sea_requantise(distance, policy->q_multiplier, policy->q_shift);
        out[i] = sea_saturate8(sea_saturate32((int64_t)steps + policy->q_zero));
    }
}
