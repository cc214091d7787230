#include "check.h"
#include <linux/futex.h>
static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t c = PTHREAD_COND_INITIALIZER;
static int count, stage, spinning;
static __thread int mine = 7;
static void *add(void *p)
{
	for (int i = 0; i < 20000; i++) {
		pthread_mutex_lock(&m);
		count++;
		pthread_mutex_unlock(&m);
		if (i % 1000 == 0)
			sched_yield();
	}
	mine += (long)p;
	return (void *)(long)mine;
}
static void *spin(void *p)
{
	volatile int *stop = p;
	__atomic_add_fetch(&spinning, 1, __ATOMIC_SEQ_CST);
	while (!*stop)
		;
	return (void *)1;
}
static void *waiter(void *p)
{
	pthread_mutex_lock(&m);
	while (stage < 3)
		pthread_cond_wait(&c, &m);
	pthread_mutex_unlock(&m);
	return p;
}
static void *robust(void *p)
{
	pthread_mutex_lock(p);
	return 0;
}
static long futex(uint32_t *a, int op, uint32_t v, struct timespec *t, uint32_t *b, uint32_t v3)
{
	return syscall(SYS_futex, a, op, v, t, b, v3);
}
int main(void)
{
	pthread_t t[8];
	void *r;
	for (long i = 0; i < 8; i++)
		pthread_create(&t[i], 0, add, (void *)i);
	for (int i = 0; i < 8; i++) {
		pthread_join(t[i], &r);
		printf("thread %d returned %ld\n", i, (long)r);
	}
	printf("count %d\n", count);

	// Threads that never call the kernel are preempted.
	volatile int stop = 0;
	pthread_create(&t[0], 0, spin, (void *)&stop);
	pthread_create(&t[1], 0, spin, (void *)&stop);
	do
		usleep(50000);
	while (__atomic_load_n(&spinning, __ATOMIC_SEQ_CST) < 2);
	stop = 1;
	pthread_join(t[0], &r);
	printf("spin 0 ran %ld\n", (long)r);
	pthread_join(t[1], &r);
	printf("spin 1 ran %ld\n", (long)r);

	for (long i = 0; i < 4; i++)
		pthread_create(&t[i], 0, waiter, (void *)i);
	for (int i = 0; i < 3; i++) {
		pthread_mutex_lock(&m);
		stage++;
		pthread_cond_broadcast(&c);
		pthread_mutex_unlock(&m);
	}
	for (int i = 0; i < 4; i++) {
		pthread_join(t[i], &r);
		printf("waiter %ld\n", (long)r);
	}
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_nsec += 20000000;
	if (ts.tv_nsec >= 1000000000)
		ts.tv_sec++, ts.tv_nsec -= 1000000000;
	pthread_mutex_lock(&m);
	printf("timedwait %s\n", strerrorname_np(pthread_cond_timedwait(&c, &m, &ts)));
	pthread_mutex_unlock(&m);

	pthread_mutexattr_t a;
	pthread_mutex_t rm;
	pthread_mutexattr_init(&a);
	pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&rm, &a);
	pthread_create(&t[0], 0, robust, &rm);
	pthread_join(t[0], 0);
	printf("robust lock %s\n", strerrorname_np(pthread_mutex_lock(&rm)));
	printf("consistent %d\n", pthread_mutex_consistent(&rm));

	uint32_t f = 1, g = 0;
	struct timespec short_ = {0, 10000000};
	CALL(futex(&f, FUTEX_WAIT, 2, 0, 0, 0));
	CALL(futex(&f, FUTEX_WAIT, 1, &short_, 0, 0));
	CALL(futex(&f, FUTEX_WAKE, 1, 0, 0, 0));
	CALL(futex(&f, FUTEX_CMP_REQUEUE, 1, (void *)1, &g, 5));
	CALL(futex(&f, FUTEX_CMP_REQUEUE, 1, (void *)1, &g, 1));
	CALL(futex(&f, FUTEX_WAIT_BITSET, 1, 0, 0, 0));
	CALL(futex((uint32_t *)((char *)&f + 1), FUTEX_WAIT, 1, 0, 0, 0));
	CALL(futex((uint32_t *)8, FUTEX_WAIT, 1, 0, 0, 0));
	CALL(futex(&f, FUTEX_WAKE_OP, 1, (void *)1, &g, FUTEX_OP(FUTEX_OP_ADD, 5, FUTEX_OP_CMP_EQ, 0)));
	printf("g %u\n", g);
	return 0;
}
