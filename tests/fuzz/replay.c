/* Runs a fuzzer's inputs once each, without libFuzzer: what their coverage is. usage: replay FILE... */
#include <stdint.h>
#include <stdio.h>

#ifdef REPLAY_PREPARES
int LLVMFuzzerInitialize(int *argc, char ***argv);
#endif
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(int argc, char **argv)
{
    static uint8_t data[65536];
#ifdef REPLAY_PREPARES
    (void)LLVMFuzzerInitialize(&argc, &argv);
#endif
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        if (file == NULL) {
            return 2;
        }
        const size_t size = fread(data, 1, sizeof data, file);
        (void)fclose(file);
        (void)LLVMFuzzerTestOneInput(data, size);
    }
    return 0;
}
