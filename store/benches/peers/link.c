/* A link between two TAP devices with a rate, a delay and a bounded queue, for kernels without sch_netem.
 *
 *   link TAP TAP DELAY_MILLISECONDS MEGABITS QUEUE_KIBIBYTES
 *
 * Prints "ready" when the devices are there; they can be moved into network namespaces then. Each direction has its own rate and queue; the
 * delay is one-way. What does not fit into the queue is dropped, as a router does. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define FRAME_BYTES 2048
#define FRAMES 16384 /* a power of two: positions wrap */
#define BURST 64     /* frames read from one side before the other is looked at */

struct frame { int64_t due; int length; unsigned char bytes[FRAME_BYTES]; };
struct direction { struct frame *frames; unsigned first, end; int64_t busy_until; long queued; };

static int64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static int open_tap(const char *name) {
    int device = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
    struct ifreq request = {0};
    snprintf(request.ifr_name, IFNAMSIZ, "%s", name);
    request.ifr_flags = IFF_TAP | IFF_NO_PI;
    if (device < 0 || ioctl(device, TUNSETIFF, &request) < 0) { perror(name); exit(1); }
    return device;
}

/* Writes what is due; returns when the next frame is, or INT64_MAX. */
static int64_t deliver(struct direction *way, int device, int64_t now) {
    for (; way->first != way->end; way->first++) {
        struct frame *frame = &way->frames[way->first % FRAMES];
        if (frame->due > now) return frame->due;
        if (write(device, frame->bytes, frame->length) < 0 && errno != EIO && errno != EAGAIN && errno != ENETDOWN) perror("write");
        way->queued -= frame->length;
    }
    return INT64_MAX;
}

static void accept_frames(struct direction *way, int device, int64_t delay, double per_byte, long queue_bytes) {
    /* What is on the wire does not count as queued. */
    long room = queue_bytes + (per_byte > 0 ? (long)(delay / per_byte) : 0);
    for (int count = 0; count < BURST; count++) {
        struct frame *frame = &way->frames[way->end % FRAMES];
        unsigned char spare[FRAME_BYTES];
        int full = way->end - way->first >= FRAMES;
        int length = read(device, full ? spare : frame->bytes, FRAME_BYTES);
        if (length <= 0) return;
        if (full || way->queued + length > room) continue;
        int64_t now = nanoseconds(), start = way->busy_until > now ? way->busy_until : now;
        way->busy_until = start + (int64_t)(length * per_byte);
        frame->length = length;
        frame->due = way->busy_until + delay;
        way->queued += length;
        way->end++;
    }
}

int main(int count, char **arguments) {
    if (count != 6) { fprintf(stderr, "usage: link TAP TAP DELAY_MILLISECONDS MEGABITS QUEUE_KIBIBYTES\n"); return 2; }
    int devices[2] = { open_tap(arguments[1]), open_tap(arguments[2]) };
    int64_t delay = (int64_t)(atof(arguments[3]) * 1e6);
    double rate = atof(arguments[4]), per_byte = rate > 0 ? 8000 / rate : 0;
    long queue_bytes = atol(arguments[5]) * 1024;
    struct direction ways[2] = {0};
    for (int side = 0; side < 2; side++) ways[side].frames = malloc(sizeof(struct frame) * FRAMES);
    puts("ready");
    fflush(stdout);
    for (;;) {
        int64_t now = nanoseconds(), next = INT64_MAX;
        for (int side = 0; side < 2; side++) {
            int64_t due = deliver(&ways[side], devices[!side], now);
            if (due < next) next = due;
        }
        struct pollfd polled[2] = { { devices[0], POLLIN, 0 }, { devices[1], POLLIN, 0 } };
        struct timespec wait = { 1, 0 };
        if (next != INT64_MAX) {
            int64_t gap = next > now ? next - now : 0;
            wait = (struct timespec){ gap / 1000000000, gap % 1000000000 };
        }
        if (ppoll(polled, 2, &wait, NULL) < 0 && errno != EINTR) { perror("ppoll"); return 1; }
        for (int side = 0; side < 2; side++)
            if (polled[side].revents & POLLIN) accept_frames(&ways[side], devices[side], delay, per_byte, queue_bytes);
    }
}
