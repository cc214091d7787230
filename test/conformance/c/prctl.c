// prctl(2): what a thread sets and reads back, and who has it.
#include "check.h"
#include <sys/prctl.h>
static void *thread(void *p)
{
	char name[16];
	CALL(prctl(PR_GET_KEEPCAPS, 0, 0, 0, 0));
	CALL(prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0));
	CALL(prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0));
	CALL(prctl(PR_SET_TIMERSLACK, 5000, 0, 0, 0));
	CALL(prctl(PR_SET_TIMERSLACK, 0, 0, 0, 0));
	CALL(prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0));
	CALL(prctl(PR_GET_NAME, name, 0, 0, 0));
	printf("%s\n", name);
	CALL(prctl(PR_SET_NAME, "other", 0, 0, 0));
	return 0;
}
int main(void)
{
	char name[16];
	int v;
	pthread_t t;
	CALL(prctl(PR_SET_NAME, "a name that is too long", 0, 0, 0));
	CALL(prctl(PR_GET_NAME, name, 0, 0, 0));
	printf("%s\n", name);
	CALL(prctl(PR_SET_NAME, (void *)8, 0, 0, 0));
	CALL(prctl(PR_GET_KEEPCAPS, 0, 0, 0, 0));
	CALL(prctl(PR_SET_KEEPCAPS, 2, 0, 0, 0));
	CALL(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0));
	CALL(prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0));
	CALL(prctl(PR_SET_TIMERSLACK, 77777, 0, 0, 0));
	pthread_create(&t, 0, thread, 0);
	pthread_join(t, 0);
	CALL(prctl(PR_GET_KEEPCAPS, 0, 0, 0, 0));
	CALL(prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0));
	CALL(prctl(PR_SET_TIMERSLACK, 0, 0, 0, 0));
	CALL(prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0));
	CALL(prctl(PR_GET_NAME, name, 0, 0, 0));
	printf("%s\n", name);
	CALL(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0));
	CALL(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
	CALL(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0));
	CALL(prctl(PR_SET_DUMPABLE, 2, 0, 0, 0));
	CALL(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
	CALL(prctl(PR_SET_PDEATHSIG, 65, 0, 0, 0));
	CALL(prctl(PR_SET_PDEATHSIG, SIGUSR1, 0, 0, 0));
	CALL(prctl(PR_GET_PDEATHSIG, &v, 0, 0, 0));
	printf("%d\n", v);
	CALL(prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0));
	CALL(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
	CALL(prctl(PR_GET_CHILD_SUBREAPER, &v, 0, 0, 0));
	printf("%d\n", v);
	CALL(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0));
	CALL(prctl(PR_SET_NO_NEW_PRIVS, 1, 1, 0, 0));
	CALL(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	CALL(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
	CALL(prctl(PR_GET_NO_NEW_PRIVS, 1, 0, 0, 0));
	CALL(prctl(PR_SET_THP_DISABLE, 0, 1, 0, 0));
	CALL(prctl(PR_GET_THP_DISABLE, 1, 0, 0, 0));
	CALL(prctl(PR_CAPBSET_READ, 1000, 0, 0, 0));
	CALL(prctl(PR_CAPBSET_READ, 0, 0, 0, 0));
	CALL(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, 0, 0, 0));
	CALL(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, 1000, 0, 0));
	CALL(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 0, 0, 0));
	CALL(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
	CALL(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 1, 0, 0));
	CALL(prctl(PR_CAP_AMBIENT, 99, 0, 0, 0));
	CALL(prctl(123456, 0, 0, 0, 0));
	return 0;
}
