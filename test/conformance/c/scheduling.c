// Scheduling: affinity, policies, nice values.
#include "check.h"
#include <sys/resource.h>

static void *child(void *arg)
{
	printf("nice of a new thread %d\n", getpriority(PRIO_PROCESS, 0));
	return 0;
}

int main(void)
{
	char mask[4096] = {0};
	OK(syscall(SYS_sched_getaffinity, 0, 8, mask) == -1 ? syscall(SYS_sched_getaffinity, 0, sizeof mask, mask) : 0);
	CALL(syscall(SYS_sched_getaffinity, -1, sizeof mask, mask));
	CALL(syscall(SYS_sched_getaffinity, 4194303, sizeof mask, mask));
	CALL(syscall(SYS_sched_getaffinity, 0, 7, mask));
	CALL(syscall(SYS_sched_getaffinity, 0, 1027, mask));
	CALL(syscall(SYS_sched_getaffinity, 0, sizeof mask, (void *)8));
	memset(mask, 0, sizeof mask);
	CALL(syscall(SYS_sched_setaffinity, 0, sizeof mask, mask));
	CALL(syscall(SYS_sched_setaffinity, -1, sizeof mask, mask));
	CALL(syscall(SYS_sched_setaffinity, 0, 8, (void *)8));

	struct timespec ts = {-1, -1};
	CALL(sched_rr_get_interval(0, &ts));
	TRUE(ts.tv_sec == 0 && ts.tv_nsec >= 0 && ts.tv_nsec < 1000000000);
	CALL(sched_rr_get_interval(-1, &ts));
	CALL(sched_rr_get_interval(4194303, &ts));
	CALL(sched_rr_get_interval(0, (void *)8));

	struct sched_param p = {0};
	CALL(sched_getscheduler(0));
	CALL(sched_getscheduler(-1));
	CALL(sched_getscheduler(4194303));
	CALL(sched_getparam(0, &p));
	CALL(p.sched_priority);
	CALL(sched_getparam(0, 0));
	CALL(sched_getparam(-1, &p));
	CALL(sched_setscheduler(0, SCHED_BATCH, &p));
	CALL(sched_getscheduler(0));
	CALL(sched_setscheduler(0, SCHED_OTHER | SCHED_RESET_ON_FORK, &p));
	CALL(sched_getscheduler(0));
	CALL(sched_setscheduler(0, SCHED_OTHER, 0));
	CALL(sched_setscheduler(0, 77, &p));
	CALL(sched_setscheduler(0, -1, &p));
	CALL(sched_setscheduler(-1, 0, &p));
	CALL(sched_setscheduler(0, SCHED_FIFO, &p));
	p.sched_priority = 1;
	CALL(sched_setscheduler(0, SCHED_BATCH, &p));
	CALL(sched_setparam(0, &p));
	CALL(sched_setparam(-1, &p));
	p.sched_priority = 100;
	CALL(sched_setscheduler(0, SCHED_RR, &p));
	for (int i = -1; i < 8; i++) {
		CALL(sched_get_priority_min(i));
		CALL(sched_get_priority_max(i));
	}

	CALL(getpriority(PRIO_PROCESS, 0));
	CALL(setpriority(PRIO_PROCESS, 0, 3));
	CALL(getpriority(PRIO_PROCESS, 0));
	CALL(getpriority(PRIO_PROCESS, getpid()));
	CALL(setpriority(PRIO_PROCESS, 0, 1000));
	CALL(getpriority(PRIO_PROCESS, 0));
	CALL(nice(0));
	CALL(getpriority(77, 0));
	CALL(setpriority(-1, 0, 0));
	CALL(getpriority(PRIO_PROCESS, 4194303));
	CALL(setpriority(PRIO_PROCESS, 4194303, 5));
	CALL(getpriority(PRIO_USER, 12345678));
	// SCHED_RESET_ON_FORK keeps a nice value that is not negative.
	pthread_t t;
	pthread_create(&t, 0, child, 0);
	pthread_join(t, 0);
	return 0;
}
