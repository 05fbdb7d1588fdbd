#define _GNU_SOURCE /* dl_iterate_phdr */

#include "memory.h"

#include <link.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* Called for each loaded object, this program first. */
static int add_regions(struct dl_phdr_info *object, size_t size, void *to)
{
    memory_t *memory = to;
    (void)size;
    for (size_t i = 0; i < object->dlpi_phnum && memory->count < MEMORY_REGIONS; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];
        const bool constant = part->p_type == PT_LOAD && (part->p_flags & PF_W) == 0;
        if (constant || part->p_type == PT_GNU_RELRO) { /* the latter: constants that hold addresses, as a policy does */
            const uintptr_t start = (uintptr_t)(object->dlpi_addr + part->p_vaddr);
            sea_patrol_start(&memory->regions[memory->count++], (const uint8_t *)start, (size_t)part->p_filesz);
        }
    }
    return 1; /* no further object */
}

void memory_start(memory_t *memory)
{
    *memory = (memory_t){0};
    (void)dl_iterate_phdr(add_regions, memory);
}

bool memory_look(memory_t *memory)
{
    bool right = true;
    for (size_t i = 0; i < memory->count; i++) {
        sea_patrol_t *region = &memory->regions[i];
        if (!sea_patrol(region, (region->size / MEMORY_PIECES + 4u) & ~(size_t)3u)) {
            right = false;
        }
    }
    return right;
}

#ifdef SEA_TEST_BUILD
void memory_flip(const void *at, unsigned bit)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    void *const start = (void *)((uintptr_t)at & ~(page - 1u));
    volatile uint8_t *const byte = (volatile uint8_t *)(uintptr_t)at;
    if (mprotect(start, page, PROT_READ | PROT_WRITE | PROT_EXEC) != 0) {
        abort();
    }
    *byte = (uint8_t)(*byte ^ (1u << bit));
}
#endif
