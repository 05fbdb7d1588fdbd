
/* Sums over neighbouring values of the observation, straight from where it lies. */
static void pool_sum_observation(const pool_t *layer, const int8_t *observation, int32_t zero, int16_t *out)
{
    for (uint32_t place = 0; place < layer->outputs; place++) {
        int32_t sum = -zero * (int32_t)layer->window;
        for (uint32_t i = 0; i < layer->window; i++) {
            sum += *observation++;
        }
        out[place] = (int16_t)sum;
    }
}
