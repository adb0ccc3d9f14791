/*
 *    Licensed under the Apache License, Version 2.0 (the "License"); you may
 *    not use this file except in compliance with the License. You may obtain
 *    a copy of the License at
 *
 *         http://www.apache.org/licenses/LICENSE-2.0
 *
 *    Unless required by applicable law or agreed to in writing, software
 *    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
 *    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
 *    License for the specific language governing permissions and limitations
 *    under the License.
 */

/*
 * A clock that can be set, for the programs that have this in LD_PRELOAD: what
 * they are told of the time of day is off by the seconds in the file that
 * FAULT_CLOCK names. Monotonic clocks and sleeps are left alone, as they are
 * when a machine's clock is set. (libfaketime is not used as it fails absolute
 * sleeps on the monotonic clock, which are those of Python since 3.11.)
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long *offset;

__attribute__((constructor)) static void map_offset(void)
{
    static long none;
    const char *path = getenv("FAULT_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *mapped = MAP_FAILED;

    if (file >= 0) {
        mapped = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
        close(file);
    }
    offset = mapped == MAP_FAILED ? &none : mapped;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    int failed;

    if (!real)
        real = dlsym(RTLD_NEXT, "clock_gettime");
    failed = real(clock, now);
    if (!failed && offset &&
        (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += *offset;
    return failed;
}

int gettimeofday(struct timeval *now, void *zone)
{
    struct timespec read;
    int failed = clock_gettime(CLOCK_REALTIME, &read);

    (void)zone;
    if (!failed) {
        now->tv_sec = read.tv_sec;
        now->tv_usec = read.tv_nsec / 1000;
    }
    return failed;
}

time_t time(time_t *seconds)
{
    struct timespec read;

    clock_gettime(CLOCK_REALTIME, &read);
    if (seconds)
        *seconds = read.tv_sec;
    return read.tv_sec;
}
