/* One process computes a key, and the others wait for it. */
#include "index_support.h"
#include "service/index_file.h"

static void test_one_process_computes_and_the_others_wait(void) {
    vrange_shared *index = open_index("flights");
    unsigned char digest[16];
    vrange_shared_flight led, other;
    digest_of(1, digest);
    CHECK(vrange_shared_lead(index, digest, &led) == VRANGE_OK);
    CHECK(vrange_shared_lead(index, digest, &other) == VRANGE_HELD);
    CHECK(vrange_shared_wait(index, &other, 1000000) == VRANGE_HELD);
    int told[2];
    char byte;
    CHECK(pipe(told) == 0);
    const pid_t waiter = begin_child();
    if (waiter == 0) {
        CHECK(vrange_shared_join(index) == 0);
        CHECK(vrange_shared_lead(index, digest, &other) == VRANGE_HELD);
        CHECK(write(told[1], "x", 1) == 1);
        while (vrange_shared_wait(index, &other, 50000000) == VRANGE_HELD) {}
        _exit(0);
    }
    CHECK(read(told[0], &byte, 1) == 1);
    usleep(20000);
    CHECK(waitpid(waiter, NULL, WNOHANG) == 0);
    vrange_shared_land(index, &led);
    int status;
    CHECK(waitpid(waiter, &status, 0) == waiter && status == 0);
    CHECK(vrange_shared_wait(index, &other, 0) == VRANGE_OK);
    CHECK(vrange_shared_lead(index, digest, &led) == VRANGE_OK);
    vrange_shared_land(index, &led);
}

static void test_a_leader_that_is_killed_or_stopped_is_not_waited_for(void) {
    vrange_shared *index = open_index("leaders");
    unsigned char digest[16];
    digest_of(2, digest);
    for (int signal = SIGKILL;; signal = SIGSTOP) {
        int told[2];
        char byte;
        CHECK(pipe(told) == 0);
        const pid_t leader = begin_child();
        if (leader == 0) {
            vrange_shared_flight led;
            CHECK(vrange_shared_join(index) == 0);
            CHECK(vrange_shared_lead(index, digest, &led) == VRANGE_OK);
            CHECK(write(told[1], "x", 1) == 1);
            for (;;) pause();
        }
        vrange_shared_flight awaited;
        CHECK(read(told[0], &byte, 1) == 1);
        CHECK(vrange_shared_lead(index, digest, &awaited) == VRANGE_HELD);
        CHECK(kill(leader, signal) == 0); /* not reaped yet: a zombie is as dead */
        while (vrange_shared_wait(index, &awaited, 50000000) == VRANGE_HELD) {}
        vrange_shared_flight led;
        CHECK(vrange_shared_lead(index, digest, &led) == VRANGE_OK);
        vrange_shared_land(index, &led);
        end_child(leader);
        if (signal == SIGSTOP) return;
    }
}

static void test_a_circle_of_waits_is_found(void) {
    vrange_shared *index = open_index("circle");
    unsigned char one[16], two[16];
    vrange_shared_flight a, b;
    digest_of(1, one);
    digest_of(2, two);
    CHECK(vrange_shared_lead(index, one, &a) == VRANGE_OK && vrange_shared_lead(index, two, &b) == VRANGE_OK);
    CHECK(!vrange_shared_leads_to(index, b.number, &a, 1));
    vrange_shared_waits_for(index, &b, a.number);
    CHECK(vrange_shared_leads_to(index, b.number, &a, 1));
    vrange_shared_waits_for(index, &b, -1);
    CHECK(!vrange_shared_leads_to(index, b.number, &a, 1));
    CHECK(vrange_shared_leads_to(index, a.number, &a, 1));
}

static pid_t begin_leader(vrange_shared *index, const unsigned char *digest, int expected) {
    int told[2];
    char byte;
    CHECK(pipe(told) == 0);
    const pid_t leader = begin_child();
    if (leader == 0) {
        vrange_shared_flight flight;
        CHECK(vrange_shared_join(index) == 0);
        if (digest) CHECK(vrange_shared_lead(index, digest, &flight) == expected);
        CHECK(write(told[1], "x", 1) == 1);
        for (;;) pause();
    }
    CHECK(read(told[0], &byte, 1) == 1);
    close(told[0]);
    close(told[1]);
    return leader;
}

/* A flight has 14 bits of its leader's serial: another member of that place may have the same. */
static void test_a_later_member_does_not_lead_what_a_dead_one_led(void) {
    vrange_shared *index = open_index("serials");
    unsigned char digest[16];
    vrange_shared_flight flight;
    digest_of(3, digest);
    end_child(begin_leader(index, digest, VRANGE_OK));
    for (int place = 0; place < 8; place++) { /* as if 16,383 processes had come and gone */
        const uint64_t word = atomic_load(&index->members[place].word);
        if ((uint32_t)word != (uint32_t)getpid()) atomic_store(&index->members[place].word, word + (16383ull << 32));
    }
    const pid_t later = begin_leader(index, NULL, VRANGE_OK);
    CHECK(vrange_shared_lead(index, digest, &flight) == VRANGE_OK);
    vrange_shared_land(index, &flight);
    end_child(later);
}

int main(void) {
    make_directory();
    test_one_process_computes_and_the_others_wait();
    test_a_leader_that_is_killed_or_stopped_is_not_waited_for();
    test_a_circle_of_waits_is_found();
    test_a_later_member_does_not_lead_what_a_dead_one_led();
    remove_directory();
    return 0;
}
