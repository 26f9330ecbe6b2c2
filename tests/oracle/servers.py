"""pelton and Apache Kafka on temporary directories."""
import contextlib
import os
import pathlib
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "clients"))
from run import Broker  # noqa: E402  the same command line starts both

WAIT = 30.0  # seconds that something may take that must come


def until(attempt, what):
    end = time.monotonic() + WAIT
    while not attempt():
        if time.monotonic() > end:
            raise AssertionError(f"no {what} within {WAIT} s")
        time.sleep(0.05)


@contextlib.contextmanager
def running(binary, after=None, **settings):
    """A broker, stopped in the end; a panic of it or a bad exit is an error. `after` may look at its directory then."""
    broker = Broker(binary, **settings)
    try:
        yield broker
    except BaseException:
        print(f"the end of {broker.dir}/broker.log:\n{broker.tail()}")
        broker.p.kill()
        raise
    problems = broker.stop()
    if problems:
        raise AssertionError(f"{problems}\n{broker.tail()}")
    if after:
        after(broker)
    broker.remove()


def pelton_binary():
    return os.environ.get("PELTON_BIN") or sys.exit("error: set PELTON_BIN")


@contextlib.contextmanager
def pair(after=None):
    """The addresses of one pelton and one Kafka; `after` may look at pelton's directory in the end."""
    with running(pelton_binary(), after) as pelton, running(HERE / "kafka") as kafka:
        yield pelton.address, kafka.address
