/* The reserve follows the rate at which it is used up, within bounds, and forgets it. */
#include "check.h"
#include "reserve/burst.h"

#define MS 1000000ull

int main(void) {
    const uint64_t reserve = 32 * MIB;
    uint64_t now = 10000 * MS;
    CHECK(burst_reserve(reserve, 0, now) == reserve);
    CHECK(burst_reserve(reserve, 2 * MIB, now += 5 * MS) == reserve); /* the reserve lasts for several looks */
    CHECK(burst_reserve(reserve, 16 * MIB, now += 5 * MS) == 64 * MIB);
    CHECK(burst_reserve(reserve, 200 * MIB, now += 5 * MS) == 128 * MIB); /* never all of the limit */

    CHECK(burst_reserve(reserve, 16 * MIB, now += 5 * MS) == 128 * MIB); /* the fastest counts */
    const uint64_t later = burst_reserve(reserve, 0, now += 1900 * MS);
    CHECK(later >= reserve && later < 128 * MIB);
    CHECK(burst_reserve(reserve, 0, now += 2000 * MS) == reserve);

    burst_reserve(reserve, 200 * MIB, now += 5 * MS);
    burst_forget();
    CHECK(burst_reserve(reserve, 0, now += 5 * MS) == reserve);
    return 0;
}
