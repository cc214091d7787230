"""subprocess with programs that are position-independent, natively and inside."""
import asyncio
import os
import select
import signal
import subprocess
import sys
import threading
import time

PIPE, DEVNULL, STDOUT = subprocess.PIPE, subprocess.DEVNULL, subprocess.STDOUT


def show(what, *a):
    print(what, *a, flush=True)


def error(f, *a, **k):
    try:
        r = f(*a, **k)
    except Exception as e:
        return type(e).__name__, getattr(e, "errno", None), getattr(e, "returncode", None)
    return r


def main():
    r = subprocess.run(["echo", "one", "two words"], capture_output=True, text=True)
    show("run", r.returncode, repr(r.stdout), repr(r.stderr))
    show("input", len(subprocess.run(["cat"], input=b"x" * 300000, stdout=PIPE).stdout))
    show("output", subprocess.check_output(["pwd"], cwd="/tmp", env={}))
    show("environment", subprocess.check_output(["/bin/env"], env={"A": "1", "B": "two"}))
    show("false", error(subprocess.check_call, ["false"]))
    show("missing", error(subprocess.run, ["/nonexistent/program"]))
    show("missing directory", error(subprocess.run, ["echo"], cwd="/nonexistent"))
    show("a directory", error(subprocess.run, ["/tmp"]))
    show("timeout", error(subprocess.run, ["sleep", "100"], timeout=0.1))
    show("merged", subprocess.run(["cat", "/nonexistent"], stdout=PIPE, stderr=STDOUT, env={"LC_ALL": "C"}))

    p = subprocess.Popen(["cat"], stdin=PIPE, stdout=PIPE, text=True, bufsize=1)
    n = 0
    for i in range(100):
        p.stdin.write(f"line {i}\n")
        n += p.stdout.readline() == f"line {i}\n"
    p.stdin.close()
    show("conversation", n, p.wait(), p.poll())
    p.stdout.close()
    a = subprocess.Popen(["echo", "through two"], stdout=PIPE)
    b = subprocess.Popen(["cat"], stdin=a.stdout, stdout=PIPE)
    a.stdout.close()
    show("connected", b.communicate()[0], a.wait())

    for s in signal.SIGTERM, signal.SIGKILL, signal.SIGINT:
        p = subprocess.Popen(["sleep", "100"])
        show("poll", p.poll())
        p.send_signal(s)
        show(s.name, p.wait())
    p = subprocess.Popen(["sleep", "100"], start_new_session=True)
    show("session", os.getsid(p.pid) == p.pid, os.getpgid(p.pid) == p.pid)
    os.killpg(p.pid, signal.SIGTERM)
    show("killpg", p.wait())
    p = subprocess.Popen(["sleep", "100"], process_group=0)
    show("group", os.getpgid(p.pid) == p.pid)
    p.kill()
    p.wait()

    # A shell whose commands are its own, or other programs.
    show("shell", subprocess.run('echo $((6*7)) "$X"', shell=True, env={"X": "from here"}, stdout=PIPE))
    show("exit", subprocess.call("exit 9", shell=True))
    show("getoutput", subprocess.getstatusoutput("/bin/echo one; /bin/false || echo two"))
    show("pipeline", subprocess.getoutput("/bin/echo one | cat"))
    show("system", os.system("exit 3"), os.waitstatus_to_exitcode(os.system("kill -9 $$")))
    with os.popen("/bin/echo popen") as f:
        show("popen", f.read(), f.close())

    # Descriptors, preexec_fn and its like.
    r, w = os.pipe()
    p = subprocess.Popen(["cat", f"/dev/fd/{r}"], stdout=PIPE, pass_fds=[r])
    os.close(r)
    os.write(w, b"passed")
    os.close(w)
    show("pass_fds", p.communicate()[0])
    show("umask", subprocess.run("umask", shell=True, umask=0o27, stdout=PIPE).stdout)
    show("preexec", subprocess.run(["pwd"], preexec_fn=lambda: os.chdir("/"), stdout=PIPE).stdout)
    show("preexec fails", error(subprocess.run, ["pwd"], preexec_fn=lambda: 1 / 0))

    # os: spawn, wait, pidfd.
    show("spawnv", os.spawnv(os.P_WAIT, "/bin/sh", ["sh", "-c", "exit 5"]))
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "read x; exit $x"], {}, file_actions=[
        (os.POSIX_SPAWN_OPEN, 0, "/proc/self/comm", os.O_RDONLY, 0), (os.POSIX_SPAWN_CLOSE, 2)])
    show("posix_spawn", os.waitpid(pid, 0)[1] != 0)
    pid = os.posix_spawn("/bin/sleep", ["sleep", "100"], {}, setpgroup=0)
    fd = os.pidfd_open(pid)
    show("pidfd", select.select([fd], [], [], 0)[0])
    show("waitid", os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOHANG))
    os.kill(pid, signal.SIGSTOP)
    _, st = os.waitpid(pid, os.WUNTRACED)
    show("stopped", os.WIFSTOPPED(st), os.WSTOPSIG(st))
    os.kill(pid, signal.SIGCONT)
    _, st = os.waitpid(pid, os.WCONTINUED)
    show("continued", os.WIFCONTINUED(st))
    signal.pidfd_send_signal(fd, signal.SIGHUP)
    show("pidfd", select.select([fd], [], [], 5)[0] == [fd])
    i = os.waitid(os.P_PIDFD, fd, os.WEXITED)
    show("waitid", i.si_pid == pid, i.si_signo, i.si_code, i.si_status)
    os.close(fd)
    p = subprocess.Popen(["true"])
    _, st, ru = os.wait4(p.pid, 0)
    p.poll()
    show("wait4", st, ru.ru_utime < 5)
    show("nobody", error(os.wait))

    # From threads, and in an event loop.
    outs = [None] * 8

    def one(i):
        outs[i] = subprocess.check_output(["echo", str(i)])

    ts = [threading.Thread(target=one, args=(i,)) for i in range(8)]
    [t.start() for t in ts]
    [t.join() for t in ts]
    show("threads", outs)

    async def loop():
        p = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        out, _ = await p.communicate(b"asynchronous")
        show("asyncio", out, p.returncode)
        p = await asyncio.create_subprocess_shell("exit 4")
        show("asyncio shell", await p.wait())
        p = await asyncio.create_subprocess_exec("sleep", "100")
        try:
            await asyncio.wait_for(p.wait(), 0.1)
        except asyncio.TimeoutError:
            p.terminate()
        show("asyncio timeout", await p.wait())
        ps = [await asyncio.create_subprocess_exec("echo", str(i), stdout=PIPE) for i in range(5)]
        show("asyncio many", [(await q.communicate())[0] for q in ps])

    asyncio.run(loop())
    # A fork that leads nowhere: a child process of its own, or ENOSYS.
    try:
        pid = os.fork()
        if pid == 0:
            os._exit(6)
        show("fork", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    except OSError as e:
        show("fork", e)


main()
