/* What is given back ahead: as much as was asked for between two looks, for a tenth of a second. */
#include "check.h"
#include "reserve/demand.h"

#define MS 1000000ull

int main(void) {
    demand d = {0};
    uint64_t now = 1000 * MS;
    CHECK(demand_look(&d, 100 * MIB, 7 * MIB, now) == 0); /* the first look knows of nothing before */
    CHECK(demand_look(&d, 100 * MIB, 0, now += 5 * MS) == 0);
    CHECK(demand_look(&d, 110 * MIB, 0, now += 5 * MS) == 10 * MIB);
    CHECK(demand_look(&d, 105 * MIB, 30 * MIB, now += 5 * MS) == 25 * MIB); /* it lost as much, and grew */

    uint64_t before = 25 * MIB, wanted;
    for (int looks = 0; looks < 4; looks++) { /* nobody asks: less is wanted each time */
        wanted = demand_look(&d, 105 * MIB, 0, now += 5 * MS);
        CHECK(wanted < before);
        before = wanted;
    }
    CHECK(wanted > 20 * MIB); /* the next burst may come in a moment */
    CHECK(demand_look(&d, 105 * MIB, 0, now += 200 * MS) == 0); /* or not at all */
    CHECK(demand_look(&d, 50 * MIB, 0, now += 5 * MS) == 0);    /* freed */
    CHECK(demand_look(&d, 40 * MIB, 4 * MIB, now += 5 * MS) == 0);
    return 0;
}
