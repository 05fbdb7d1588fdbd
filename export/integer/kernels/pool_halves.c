
/* The same where the scale stays and the window is 2^bits: no multiplication, and a mean needs no clipping. */
static void pool_halves(const pool_t *layer, uint32_t bits, const int16_t *x, int16_t *out)
{
    int32_t below_half = (int32_t)(1u << (bits - 1u)) - 1;
    for (uint32_t place = 0; place < layer->outputs; place++) {
        for (uint32_t channel = 0; channel < layer->channels; channel++) {
            int32_t sum = 0;
            for (uint32_t i = 0; i < layer->window; i++) {
                sum += x[i * layer->channels + channel];
            }
            *out++ = (int16_t)((sum + below_half + ((sum >> bits) & 1)) >> bits);
        }
        x += layer->window * layer->channels;
    }
}
