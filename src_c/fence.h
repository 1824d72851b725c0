/* Gaps between the parts of one piece of memory, which nobody may touch, in a build with the address sanitizer: it sees
 * nothing of what is overrun within one malloc.  In all other builds there is no gap, and no instruction. */
#ifndef EMC_FENCE_H
#define EMC_FENCE_H

#include <stddef.h>

#include "emc.h"

#if defined(__SANITIZE_ADDRESS__)
#define EMC_FENCED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EMC_FENCED 1
#endif
#endif

#ifdef EMC_FENCED
#include <sanitizer/asan_interface.h>
#define EMC_GAP EMC_ALIGN
#else
#define EMC_FENCED 0
#define EMC_GAP 0
#endif

/* The bytes that a part takes up with its gap: the next one is aligned. */
static inline ptrdiff_t emc_room(ptrdiff_t bytes) { return (bytes + EMC_GAP + EMC_ALIGN - 1) / EMC_ALIGN * EMC_ALIGN; }

/* Of `room` bytes, the first may be touched, whatever was said of them before, and the others not. */
static inline void emc_fence(void *part, ptrdiff_t bytes, ptrdiff_t room) {
#if EMC_FENCED
    ASAN_UNPOISON_MEMORY_REGION(part, (size_t)bytes);
    ASAN_POISON_MEMORY_REGION((char *)part + bytes, (size_t)(room - bytes));
#else
    (void)part, (void)bytes, (void)room;
#endif
}

#endif
