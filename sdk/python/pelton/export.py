"""From a class to the exports of its world."""

from contextlib import contextmanager

from . import aggregate, state, timers
from .aggregate import Aggregator
from .partition import Partitioner
from .state import StateTransform
from .timers import TimerTransform
from .transform import Fatal, Rejected, Retry, Transform, reason

# What a component imports must be imported before records come: there is no file later. Each world has some of these.
try:
    from componentize_py_types import Err
    from wit_world.imports.records import Failure_Fatal, Failure_Reject, Failure_Retry, Rejection
except ImportError:
    Err = None
try:
    from wit_world.imports import state as _stores
except ImportError:
    _stores = None
try:
    from wit_world.imports import timers as _timers
except ImportError:
    _timers = None


def export(plugin):
    """The class that pelton's world asks for, of a `Transform`, `StateTransform`, `TimerTransform`, `Aggregator` or `Partitioner`:
    `WitWorld = pelton.export(Shout)`. Without pelton, as in unit tests, there is no world and this is None."""
    try:
        import wit_world
    except ModuleNotFoundError:
        return None
    kinds = [
        (TimerTransform, _timer_transform, "transform-timer"),
        (StateTransform, _state_transform, "transform-state"),
        (Transform, _transform, "transform"),
        (Aggregator, _aggregator, "aggregator"),
        (Partitioner, _partitioner, "partitioner"),
    ]
    for kind, make, world in kinds:
        if issubclass(plugin, kind):
            lacks = kind is TimerTransform and _timers is None or kind is StateTransform and _stores is None
            if lacks:
                name = f"{plugin.__name__} is a pelton.{kind.__name__}"
                raise TypeError(f"{name}, for which plugin.toml needs world = \"{world}\"")
            return make(wit_world.WitWorld, plugin())
    known = ", ".join(f"pelton.{kind.__name__}" for kind, _, _ in kinds)
    raise TypeError(f"{plugin.__name__} must be one of {known}")


def _configure(instance, config):
    try:
        instance.configure(dict(config))
    except Exception as error:
        raise Err(str(error) or type(error).__name__) from error


@contextmanager
def _failures(of_all=()):
    """Tells the server how a call fails. What is in `of_all` is no record's and stops the task."""
    try:
        yield
    except Rejected as error:
        raise Err(Failure_Reject([Rejection(i, why) for i, why in error.rejections])) from error
    except Retry as error:
        raise Err(Failure_Retry(reason(error))) from error
    except (Fatal, *of_all) as error:
        raise Err(Failure_Fatal(reason(error))) from error


def _transform(world, instance):
    class Exported(world):
        def configure(self, config):
            _configure(instance, config)

        def process(self, b):
            with _failures():
                return instance.batch(b)

    return Exported


def _state_transform(world, instance):
    class Exported(world):
        def configure(self, config):
            _configure(instance, config)

        def process(self, b):
            with _failures():
                return state.process(instance, b, _stores)

    return Exported


class _TimerHost:
    """The server's timers, with the domains as the SDK names them."""

    def set(self, domain, names, at):
        _timers.set(_timers.TimeDomain[domain], names, at)

    def cancel(self, domain, names):
        _timers.cancel(_timers.TimeDomain[domain], names)

    def clock(self):
        return _timers.clock()


def _timer_transform(world, instance):
    host = _TimerHost()

    class Exported(world):
        def configure(self, config):
            _configure(instance, config)

        def process(self, b):
            with _failures():
                return timers.process(instance, b, _stores, host)

        def fire(self, domain, names, at):
            with _failures():
                return timers.fire(instance, domain.name, names, at, _stores, host)

    return Exported


def _aggregator(world, instance):
    class Exported(world):
        def configure(self, config):
            _configure(instance, config)

        def create(self):
            try:
                value = instance.create()
            except Exception as error:
                raise Err(reason(error)) from error
            return value.encode() if isinstance(value, str) else value

        def add(self, aggregates, b, groups):
            with _failures():
                return aggregate.fold(instance.add, aggregates, b, groups)

        def subtract(self, aggregates, b, groups):
            with _failures():
                return aggregate.fold(instance.subtract, aggregates, b, groups)

        def merge(self, left, right):
            with _failures(of_all=(Exception,)):
                return aggregate.merge(instance, left, right)

    return Exported


def _partitioner(world, instance):
    class Exported(world):
        def configure(self, config):
            _configure(instance, config)

        def partition(self, b, partitions):
            return instance.batch(b, partitions)

    return Exported
