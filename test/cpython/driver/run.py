"""Runs "python3 -m test" with the arguments given, and reports what becomes of
each test case on the standard output that it was started with: a line that
begins with the record separator (0x1e), then a JSON list.

    ["start", ID]                      a test case begins
    ["end", ID, OUTCOME, DETAIL]       pass, fail, error, skip, xfail, upass
    ["done", STATUS]                   the end of python3 -m test

The runner (test/cpython) takes the outcomes from these lines, so that a test
case that hangs, or that ends the process, is known by its name.
"""
import fcntl
import json
import os
import runpy
import sys

# Close-on-exec, and above the numbers that the tests use.
out = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 200)
owner = os.getpid()


def say(*what):
    if os.getpid() == owner:
        os.write(out, ("\n\x1e" + json.dumps(what) + "\n").encode())


def watch(cls):
    """Makes the result class report, beside what it does."""

    def wrap(name, report):
        inner = getattr(cls, name)

        def method(self, *args):
            report(*args)
            return inner(self, *args)

        setattr(cls, name, method)

    def error(outcome):
        def report(test, err):
            say("end", test.id(), outcome, detail(err))
        return report

    def subtest(test, sub, err):
        if err is not None:
            say("end", test.id(), "fail", str(sub) + "\n" + detail(err))

    wrap("startTest", lambda test: say("start", test.id()))
    wrap("addSuccess", lambda test: say("end", test.id(), "pass", ""))
    wrap("addError", error("error"))
    wrap("addFailure", error("fail"))
    wrap("addExpectedFailure", error("xfail"))
    wrap("addUnexpectedSuccess", lambda test: say("end", test.id(), "upass", ""))
    wrap("addSkip", lambda test, reason: say("end", test.id(), "skip", reason))
    wrap("addSubTest", subtest)


def detail(err):
    import traceback
    try:
        return "".join(traceback.format_exception(*err))[-3000:]
    except Exception as e:  # the exception's own __str__ may fail
        return "%r: %r" % (err[0], e)


def main():
    from test.support import testresult
    watch(testresult.RegressionTestResult)
    sys.argv[0] = "test"
    status = 0
    try:
        runpy.run_module("test", run_name="__main__", alter_sys=True)
    except SystemExit as e:
        status = e.code
        raise
    finally:
        say("done", status if isinstance(status, int) or status is None else str(status))


if __name__ == "__main__":
    main()
